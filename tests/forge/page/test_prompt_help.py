"""The prompt help on a real Forge's page: instruction patterns at the cursor, and T5's tokens."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator

from lib_fluxkontext.hosts.forge.ui.prompt_patterns import PATTERNS
from tests.support.forge_install import Host
from tests.support.forge_page import ForgePage
from tests.support.host_tokenizer import count
from tests.support.panel import IMG2IMG_PANEL, PANEL, paste

STYLE, FACE = PATTERNS[0], PATTERNS[1]
TOO_LONG = "a very long story " * 200

NOTE_CLICK = "button => button.addEventListener('click', () => { window.testAsked = true; })"
"""Notes that the page asks for the tokens: the answer might be late."""

SELECTED = "area => area.value.slice(area.selectionStart, area.selectionEnd)"


def prompt_of(page: ForgePage, tab: str = "txt2img") -> Locator:
    """Return the prompt's text area."""
    return page.element(f"{tab}_prompt").locator("textarea")


def type_prompt(page: ForgePage, text: str, cursor: int | None = None) -> None:
    """Write a prompt and put the cursor somewhere, by default at its end."""
    prompt_of(page).fill(text)
    prompt_of(page).evaluate("(area, at) => area.setSelectionRange(at, at)", len(text) if cursor is None else cursor)


def menu_of(page: ForgePage, panel: str = PANEL) -> Locator:
    """Return the menu of patterns."""
    return page.element(f"{panel}_prompt_ideas").locator("details")


def choose(page: ForgePage, title: str, panel: str = PANEL) -> None:
    """Choose a pattern by mouse."""
    menu_of(page, panel).locator("summary").click()
    menu_of(page, panel).get_by_role("button", name=title).click()


def tokens(page: ForgePage, contains: str, panel: str = PANEL) -> Locator:
    """Wait until the line on tokens contains a text, and return its paragraph."""
    found = page.element(f"{panel}_prompt_tokens").locator("p").filter(has_text=contains)
    found.wait_for()
    return found


@pytest.mark.both_hosts
def test_an_idea_goes_into_the_prompt_at_its_cursor_and_into_the_picture(page: ForgePage) -> None:
    type_prompt(page, "a house by the sea", len("a house"))
    choose(page, STYLE.title)
    assert prompt_of(page).input_value() == f"a house {STYLE.text} by the sea"
    assert prompt_of(page).evaluate(SELECTED) == "[style]"
    assert menu_of(page).get_attribute("open") is None
    page.page.keyboard.type("an ink drawing")
    written = f"a house {STYLE.text} by the sea".replace("[style]", "an ink drawing")
    assert prompt_of(page).input_value() == written
    page.generate()
    assert page.infotext().split("\n")[0] == written


@pytest.mark.both_hosts
def test_the_keyboard_chooses_an_idea_and_leaves_the_menu(page: ForgePage) -> None:
    keyboard = page.page.keyboard
    type_prompt(page, "")
    summary = menu_of(page).locator("summary")
    summary.focus()
    keyboard.press("Enter")
    assert menu_of(page).get_attribute("open") is not None
    keyboard.press("Escape")
    assert menu_of(page).get_attribute("open") is None
    assert summary.evaluate("summary => summary === document.activeElement")
    keyboard.press("Space")
    for _ in range(PATTERNS.index(FACE) + 1):
        keyboard.press("Tab")
    keyboard.press("Enter")
    assert prompt_of(page).input_value() == FACE.text
    assert prompt_of(page).evaluate(SELECTED) == "[what]"
    keyboard.type("the coat to a red one")
    assert prompt_of(page).input_value() == FACE.text.replace("[what]", "the coat to a red one")

    summary.focus()
    keyboard.press("Enter")
    for _ in range(len(PATTERNS) + 1):
        keyboard.press("Tab")
    assert menu_of(page).get_attribute("open") is None  # it does not lie over what Tab has reached


def test_the_same_idea_twice_stands_there_twice(page: ForgePage) -> None:
    type_prompt(page, "")
    choose(page, STYLE.title)
    choose(page, STYLE.title)
    assert prompt_of(page).input_value() == f"{STYLE.text} {STYLE.text}"
    page.page.keyboard.type("clay")
    assert prompt_of(page).input_value() == f"{STYLE.text} {STYLE.text.replace('[style]', 'clay')}"
    page.page.keyboard.press("Control+a")
    choose(page, FACE.title)  # what is selected stays: nobody sees the selection of a prompt that is not in focus
    assert prompt_of(page).input_value().endswith(f" {FACE.text}")
    assert prompt_of(page).input_value().startswith(STYLE.text)


def test_an_idea_can_be_taken_back_and_words_stay_apart(page: ForgePage) -> None:
    type_prompt(page, "ab, c", 2)
    choose(page, FACE.title)
    assert prompt_of(page).input_value() == f"ab {FACE.text}, c"
    page.page.keyboard.press("Control+z")
    assert prompt_of(page).input_value() == "ab, c"
    type_prompt(page, "abc", 0)
    choose(page, FACE.title)
    assert prompt_of(page).input_value() == f"{FACE.text} abc"


def test_img2img_has_the_menu_for_its_own_prompt(page: ForgePage) -> None:
    type_prompt(page, "left alone")
    page.open_tab("img2img")
    page.open_accordion(IMG2IMG_PANEL)
    choose(page, STYLE.title, IMG2IMG_PANEL)
    assert prompt_of(page, "img2img").input_value() == STYLE.text
    tokens(page, "T5:", IMG2IMG_PANEL)
    assert prompt_of(page).input_value() == "left alone"


def test_the_menu_stays_within_the_page(page: ForgePage) -> None:
    page.page.set_viewport_size({"width": 390, "height": 800})
    menu_of(page).locator("summary").press("Enter")
    box = menu_of(page).locator("div").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390


def test_the_menu_has_names_for_a_screen_reader(page: ForgePage) -> None:
    def told() -> list[tuple[str, str]]:
        tree = page.accessible(f"{PANEL}_prompt_ideas")
        return [(node.role, node.name) for node in tree if node.role in {"DisclosureTriangle", "button"}]

    assert told() == [("DisclosureTriangle", "Prompt ideas")]
    menu_of(page).locator("summary").click()
    assert told()[1:] == [("button", f"{pattern.title} {pattern.text}") for pattern in PATTERNS]


@pytest.mark.both_hosts
def test_the_tokens_are_those_that_the_hosts_tokenizer_makes(page: ForgePage, host: Host) -> None:
    type_prompt(page, "Make the (naïve:1.2) cat's façade café-brown <lora:none:0.5>")
    expected = count(host, "Make the ", "naïve", " cat's façade café-brown")
    tokens(page, f"T5: {expected} of 512")
    assert expected > 12
    type_prompt(page, "")
    page.element(f"{PANEL}_prompt_tokens").locator("p").wait_for(state="detached")


def test_a_prompt_that_no_key_wrote_is_counted(page: ForgePage, host: Host) -> None:
    settings = "Steps: 4, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Seed: 5, Size: 256x256, Kontext: True"
    paste(page, f"a red lighthouse on a cliff\n{settings}")
    tokens(page, f"T5: {count(host, 'a red lighthouse on a cliff')} of 512")


@pytest.mark.both_hosts
def test_a_prompt_that_is_too_long_is_warned_of(page: ForgePage, host: Host) -> None:
    type_prompt(page, TOO_LONG)
    warning = tokens(page, f"T5: {count(host, TOO_LONG.strip())} of 512. Forge cuts nothing off")
    assert "fk-warning" in (warning.get_attribute("class") or "").split()
    type_prompt(page, "a short story")
    line = tokens(page, f"T5: {count(host, 'a short story')} of 512")
    assert "fk-warning" not in (line.get_attribute("class") or "").split()


def test_the_tokens_wait_until_the_panel_is_opened(folded_page: ForgePage) -> None:
    page = folded_page
    page.element(f"{PANEL}_count_tokens").evaluate(NOTE_CLICK)
    type_prompt(page, "a cat")
    page.page.wait_for_timeout(2500)  # the prompt is looked at three times
    assert not page.page.evaluate("window.testAsked")
    page.open_accordion(PANEL)
    tokens(page, "T5: 4 of 512")
    assert page.page.evaluate("window.testAsked")


def test_the_menu_is_in_the_pages_language_and_inserts_english(in_russian: None, page: ForgePage) -> None:
    menu_of(page).locator("summary").click()
    shown = menu_of(page).inner_text()
    for pattern in PATTERNS:
        assert pattern.title not in shown
        assert pattern.text not in shown
    assert menu_of(page).locator("p").is_visible()  # says that it is inserted in English
    menu_of(page).get_by_role("button").first.click()
    assert prompt_of(page).input_value() == STYLE.text
