"""Forge's page in a browser, through Playwright."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import Locator, Page

from tests.support.waiting import wait_until

FINISHED = """([tab, before, patience]) => {
    const interrupt = document.getElementById(tab + '_interrupt');
    const running = interrupt && getComputedStyle(interrupt).display !== 'none';
    if (running) { window.testIdleSince = 0; return null; }
    const image = document.querySelector(`#${tab}_gallery img`);
    if (image && image.src !== before) return 'a picture';
    window.testIdleSince = window.testIdleSince || Date.now();
    return Date.now() - window.testIdleSince > patience ? 'nothing' : null;
}"""
"""What a generation made: a picture when a new one is in the gallery, nothing so many milliseconds after it ended."""

FINISHED_STRIP = ".fk-report:not(.fk-live) .fk-strip"
"""Numbers at a glance of a finished generation, in the panel's report."""

VALUES = "() => [...document.querySelectorAll('input')].map(input => input.value).join()"

PATIENCE = 60
"""Seconds to wait for what the page shows within one or two, where nothing else holds the machine up."""

POLLING = 100
"""Milliseconds between two looks at the page."""

LOOKS_ANSWERED, LOOKS = 6, 15
"""In so many looks in succession no input may have changed: where all of gradio's first events are known to be
answered, and where they are not."""

EVENTS = Path(__file__).with_name("gradio_events.js")
"""Counts gradio's events in the page."""

LOADED_ONCE = "if (location.protocol !== 'about:') sessionStorage.setItem('physton_icon_refreshed', '1')"
"""Forge Neo loads its page anew two seconds after it first came in a tab, whatever a test does there by then."""


@dataclass(frozen=True)
class AccessibleNode:
    """An element as assistive technology sees it."""

    role: str
    name: str
    properties: dict[str, Any] = field(default_factory=dict)


class Events(NamedTuple):
    """Gradio's events of a page: those answered since it was opened, and those that are not yet."""

    answered: int
    pending: int


class ForgePage:
    """Forge's page in a browser, with its components reached by their element ids."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.console: list[str] = []
        self.errors: list[str] = []
        self.gallery_before: str | None = None
        self.report_before: str | None = None
        self.opened = False
        page.set_default_timeout(PATIENCE * 1000)
        page.add_init_script(path=EVENTS)
        page.add_init_script(LOADED_ONCE)
        page.on("console", lambda message: self.console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, url: str, *, dark: bool = False, timeout: float = 90) -> None:
        """Open the page and wait until Gradio has built it and its initial events are over."""
        if not self.opened:
            self._forget(url)
        self.opened = True
        self.page.goto(f"{url}/?__theme={'dark' if dark else 'light'}", wait_until="domcontentloaded")
        self.page.wait_for_selector("#txt2img_generate", state="visible", timeout=timeout * 1000)
        self.settle(timeout)

    def _forget(self, url: str) -> None:
        """Clear what other pages have stored for this server."""
        session = self.page.context.new_cdp_session(self.page)
        session.send("Storage.clearDataForOrigin", {"origin": url, "storageTypes": "local_storage,indexeddb"})
        session.detach()

    def settle(self, timeout: float = PATIENCE) -> None:
        """Wait until no input of the page changes any more.

        Looks are counted, not seconds: while the page is busy and cannot change anything, it does not answer either.
        """
        seen: list[tuple[str, Events]] = []

        def still() -> bool:
            events = self.events()
            seen.append((self.page.evaluate(VALUES), events))
            looks = LOOKS_ANSWERED if events.answered and not events.pending else LOOKS
            last = seen[-looks:]
            return len(last) == looks and len(set(last)) == 1

        self.wait_until(still, lambda: "the page's inputs to stay as they are", timeout)

    def element(self, elem_id: str) -> Locator:
        """Return the component with this ``elem_id``."""
        return self.page.locator(f'[id="{elem_id}"]')

    def accessible(self, elem_id: str) -> list[AccessibleNode]:
        """Return the browser's accessibility tree at and below a component, in reading order."""
        session = self.page.context.new_cdp_session(self.page)
        nodes = session.send("Accessibility.getFullAXTree")["nodes"]
        document = session.send("DOM.getDocument")["root"]["nodeId"]
        found = session.send("DOM.querySelector", {"nodeId": document, "selector": f'[id="{elem_id}"]'})
        top = session.send("DOM.describeNode", {"nodeId": found["nodeId"]})["node"]["backendNodeId"]
        session.detach()
        by_id = {node["nodeId"]: node for node in nodes}
        waiting = [next(node for node in nodes if node.get("backendDOMNodeId") == top)]
        tree = []
        while waiting:
            node = waiting.pop()
            if not node["ignored"]:
                properties = {entry["name"]: entry["value"].get("value") for entry in node.get("properties", [])}
                name = node.get("name", {}).get("value", "")
                tree.append(AccessibleNode(node["role"]["value"], name, properties))
            waiting += [by_id[child] for child in reversed(node.get("childIds", [])) if child in by_id]
        return tree

    def click(self, elem_id: str) -> None:
        """Click a component."""
        self.element(elem_id).click()

    def open_tab(self, name: str) -> None:
        """Show one of the page's main tabs, such as ``img2img``."""
        self.page.locator("#tabs > .tab-nav > button", has_text=name).first.click()

    def open_accordion(self, elem_id: str) -> None:
        """Unfold an accordion that is folded."""
        label = self.element(elem_id).locator(".label-wrap").first
        if "open" not in (label.get_attribute("class") or "").split():
            label.click()

    def fill(self, elem_id: str, value: str | float) -> None:
        """Fill in a text box, a number or a slider's number, and leave it."""
        inputs = self.element(elem_id).locator('textarea, input[type="number"], input:not([type])')
        inputs.first.fill(str(value))
        inputs.first.press("Tab")

    def drop_image(self, elem_id: str, path: Path) -> None:
        """Drop a file on a picture component and wait until it is shown."""
        component = self.element(elem_id)
        component.locator('input[type="file"]').first.set_input_files(str(path))
        component.locator("img").first.wait_for(state="visible")

    def wait_until(self, condition: Callable[[], bool], what: Callable[[], str], timeout: float = PATIENCE) -> None:
        """Poll until a condition holds, as ``waiting.wait_until`` does, while the page's events are handled."""
        wait_until(condition, timeout, what, sleep=lambda seconds: self.page.wait_for_timeout(seconds * 1000))

    def events(self) -> Events:
        """Return how many of gradio's events the page has had answered, and how many are pending."""
        return Events(*self.page.evaluate("() => [testGradio.answers(), testGradio.pending()]"))

    @contextmanager
    def answered(self) -> Iterator[None]:
        """Wait until gradio has answered the event that the block triggers, and every other."""
        before = self.events().answered
        yield

        def done() -> bool:
            events = self.events()
            return events.answered > before and not events.pending

        self.wait_until(done, lambda: f"an answer of gradio's after {before}; {self.events()}")

    def clear_image(self, elem_id: str) -> None:
        """Clear a picture component."""
        component = self.element(elem_id)
        component.get_by_label("Remove Image").or_(component.get_by_label("Clear")).first.click()
        component.locator('input[type="file"]').first.wait_for(state="attached")

    def gallery_image(self, tab: str = "txt2img") -> str | None:
        """Return the address of the picture that the gallery shows, or None."""
        image = self.page.locator(f"#{tab}_gallery img")
        return image.first.evaluate("image => image.src") if image.count() else None

    def start_generation(self, tab: str = "txt2img") -> None:
        """Click "Generate"."""
        self.gallery_before = self.gallery_image(tab)
        strip = self.page.locator(f"#{tab}_flux_kontext_report {FINISHED_STRIP}")
        self.report_before = strip.inner_text() if strip.count() else None
        self.page.evaluate("window.testIdleSince = 0")
        self.click(f"{tab}_generate")

    def wait_generation_done(self, tab: str = "txt2img", timeout: float = 120, *, refused: bool = False) -> None:
        """Wait until the generation that :meth:`start_generation` began has ended and its result is shown.

        Args:
            tab: where it runs.
            timeout: in seconds.
            refused: whether it must make no picture, instead of a new one.
        """
        arguments = [tab, self.gallery_before, 3000 if refused else 15000]
        done = self.page.wait_for_function(FINISHED, arg=arguments, timeout=timeout * 1000, polling=POLLING)
        assert done.json_value() == ("nothing" if refused else "a picture"), self.log(tab)

    def generate(self, tab: str = "txt2img", timeout: float = 120, *, refused: bool = False) -> None:
        """Generate and wait for the result: a new picture, or none if it must be refused."""
        self.start_generation(tab)
        self.wait_generation_done(tab, timeout, refused=refused)

    def report(self, tab: str = "txt2img") -> Locator:
        """Wait for the panel's report of the generation that :meth:`start_generation` began, and return it."""
        strips = f"document.querySelectorAll('#{tab}_flux_kontext_report {FINISHED_STRIP}')"
        shown = f"[...{strips}].map(strip => strip.innerText)"
        self.page.wait_for_function(
            f"before => {shown}.length === 1 && {shown}[0] !== before",
            arg=self.report_before,
            polling=POLLING,
        )
        return self.element(f"{tab}_flux_kontext_report")

    def infotext(self, tab: str = "txt2img") -> str:
        """Return the generation data below the gallery."""
        return self.element(f"html_info_{tab}").inner_text()

    def log(self, tab: str = "txt2img") -> str:
        """Return the messages below the gallery: the time taken, or an error."""
        return self.element(f"html_log_{tab}").inner_text()

    def screenshot(self, path: Path, *, full: bool = False) -> None:
        """Save a picture of the page."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=str(path), full_page=full)
