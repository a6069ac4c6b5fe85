"""The panel without mouse and sight: through Chromium's accessibility tree, and by keyboard alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib_fluxkontext.settings import PRESETS
from tests.support.forge_page import AccessibleNode, ForgePage
from tests.support.panel import PANEL, check, drop_both, facts, show_runs, unfold_report, wait_lit, wait_value

OPERATED = {
    "button", "checkbox", "textbox", "spinbutton", "slider", "listbox", "combobox", "link", "menuitem", "radio", "tab",
    "DisclosureTriangle", "region",
}  # fmt: skip
"""Roles of elements that are pressed, typed into, moved or scrolled."""

CALM = [
    "",
    "-visible-checkbox",
    "_image1",
    "_image2",
    "_report",
    *[f"_preset_{name.lower()}" for name in PRESETS],
    *[f"_{name}" for name in ("cache", "threshold", "recommend", "prompt_ideas", "advanced")],
]
ORDER = [
    *CALM,
    *[f"_{name}" for name in ("swap", "clear", "to_img2img", "use_size1", "mute1", "use_size2", "mute2")],
    *[f"_{name}" for name in ("sizing", "half_size", "stitch", "placement", "hires_references")],
    *[f"_{name}" for name in ("warmup", "max_consecutive", "compute_last", "forecast", "correct")],
    "_reference_refresh",
    "_runs",
]
"""Element ids, less the panel's prefix, in the order in which Tab reaches them: with *Advanced* folded, and unfolded.
The report has parts to unfold."""

FOCUSED = """prefix => {
    const element = document.activeElement;
    const style = getComputedStyle(element);
    return [
        element.closest(`[id^="${prefix}"]`)?.id ?? null,
        element.matches(":focus-visible") && style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
    ];
}"""

LISTEN = """id => {
    window.testSpoken = [];
    const region = document.querySelector(`#${id} [role=status]`);
    new MutationObserver(() => {
        const said = region.innerText.trim();
        if (said) window.testSpoken.push(said);
    }).observe(region, {childList: true, subtree: true, characterData: true});
}"""


def nameless(tree: list[AccessibleNode]) -> list[AccessibleNode]:
    """Return what can be operated or focused but has no accessible name."""
    focusable = [node for node in tree if node.role in OPERATED or node.properties.get("focusable")]
    assert len(focusable) > 20
    return [node for node in focusable if not node.name.strip()]


def names(tree: list[AccessibleNode], role: str) -> list[str]:
    """Return the names of all elements of a role."""
    return [node.name for node in tree if node.role == role]


def only_node(tree: list[AccessibleNode], role: str, name: str) -> AccessibleNode:
    """Return the only element of this role and name."""
    (found,) = [node for node in tree if (node.role, node.name) == (role, name)]
    return found


def test_every_control_has_a_name_and_every_table_its_headings(page: ForgePage, files: dict[str, Path]) -> None:
    assert nameless(page.accessible(PANEL)) == []
    page.page.evaluate(LISTEN, f"{PANEL}_spoken")
    drop_both(page, files)
    check(page, f"{PANEL}_half_size")
    page.fill(f"{PANEL}_threshold", 1.0)
    page.fill("txt2img_steps", 12)
    page.generate()
    page.element(f"{PANEL}_spoken").get_by_text("Steps: 12 in").wait_for(state="attached")
    spoken = page.page.evaluate("window.testSpoken")
    assert len(spoken) == len(set(spoken)) <= 6  # at most each quarter and the end
    assert "1 computed, 11 reused" in spoken[-1]
    unfold_report(page)
    page.element(f"{PANEL}_report").locator("details[data-fk-fold=table] > summary").click()
    show_runs(page, "Euler")
    page.click(f"{PANEL}_runs_csv")
    page.element(f"{PANEL}_runs_file").locator("a").first.wait_for()

    tree = page.accessible(PANEL)
    assert nameless(tree) == []
    assert names(tree, "checkbox")[0] == "Flux Kontext"
    assert only_node(tree, "button", "Flux Kontext").properties["expanded"]
    assert {"Reference 1", "Reference 2", "Speed"} <= set(names(tree, "group"))
    assert {"Reference 1", "Reference 2"} <= set(names(tree, "image"))
    assert any(name.startswith("Chart of 12 steps: 1 computed, 11 reused; slowest") for name in names(tree, "image"))
    assert {"All steps", "Runs"} <= set(names(tree, "region"))
    assert "" not in names(tree, "columnheader")
    assert {"Step", "Kind", "Run", "Picture"} <= set(names(tree, "columnheader"))
    assert {"1", "12"} <= set(names(tree, "rowheader"))
    assert page.element(f"{PANEL}_report").locator("[aria-live], [role=status], [role=alert]").count() == 0
    assert [node.properties.get("live") for node in tree if node.role == "status"] == ["polite"] * 7
    tree = page.accessible("image_buttons_txt2img")
    assert {"→ Kontext 1", "→ Kontext 2"} <= set(names(tree, "button"))


def test_tab_reaches_every_control_in_order_with_a_visible_focus(page: ForgePage) -> None:
    page.fill("txt2img_steps", 1)
    page.generate()
    page.report()
    for order in (ORDER, CALM):
        assert visited_by_tab(page) == order
        page.element(f"{PANEL}_advanced").locator(".label-wrap").first.click()


def visited_by_tab(page: ForgePage) -> list[str]:
    """Return where Tab leads from the panel's title to its end; the focus must be seen."""
    page.element(PANEL).locator(".label-wrap").first.focus()
    visited: list[str] = []
    for _ in range(80):
        place, visible = page.page.evaluate(FOCUSED, PANEL)
        if place is None:
            break
        assert visible or not visited, place  # no key focused the first one
        if place.removeprefix(PANEL) not in visited:
            visited.append(place.removeprefix(PANEL))
        page.page.keyboard.press("Tab")
    page.page.evaluate("document.activeElement.blur()")  # the next control may have unfolded its options
    return visited


def test_the_keyboard_alone_turns_the_panel_on_and_off_and_chooses_a_preset(page: ForgePage) -> None:
    box = page.page.locator(f"#{PANEL}-visible-checkbox")
    keyboard = page.page.keyboard
    page.element(PANEL).locator(".label-wrap").first.focus()
    for state in (False, True):  # folding the panel turns it off, as everywhere in Forge
        keyboard.press("Enter")
        assert box.is_checked() == state
        assert page.element(f"{PANEL}_recommend").is_visible() == state
    keyboard.press("Tab")
    for state in (False, True):
        keyboard.press("Space")
        assert box.is_checked() == state
        assert page.element(f"{PANEL}_recommend").is_visible()
    for _ in range(80):
        keyboard.press("Tab")
        if page.page.evaluate(FOCUSED, PANEL)[0] == f"{PANEL}_preset_fast":
            break
    else:
        pytest.fail("Tab does not reach the preset Fast")
    keyboard.press("Enter")
    wait_value(page, f"{PANEL}_threshold", str(PRESETS["Fast"]["cache_threshold"]))
    wait_lit(page, ["Fast"])
    page.element(f"{PANEL}_preset_fast").and_(page.page.locator("[aria-pressed=true]")).wait_for()
    buttons = [node for node in page.accessible(f"{PANEL}_presets") if node.role == "button"]
    assert {node.name: node.properties["pressed"] for node in buttons} == {
        name: str(name == "Fast").lower() for name in PRESETS
    }
    keyboard.press("Shift+Tab")
    keyboard.press("Space")
    wait_lit(page, ["Balanced"])
    assert facts(page, 1, "Empty")
