"""A distilled LoRA in the prompt, on a real Forge's page: what suits it is suggested, nothing is set.

The names are those of well-known files. They need not be there: Forge says that it does not find them, and goes on.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Locator

from lib_fluxkontext.settings import DEFAULT_THRESHOLD
from tests.support.forge_page import ForgePage
from tests.support.panel import IMG2IMG_PANEL, PANEL, is_checked, lit, value, wait_lit

HYPER = "<lora:Hyper-FLUX.1-dev-8steps-lora:0.125>"
TURBO = "<lora:FLUX.1-Turbo-Alpha:1>"


def type_prompt(page: ForgePage, text: str, tab: str = "txt2img") -> None:
    """Write a prompt."""
    page.element(f"{tab}_prompt").locator("textarea").fill(text)


def hint(page: ForgePage, contains: str, panel: str = PANEL) -> Locator:
    """Wait until the suggestion contains a text, and return its paragraph."""
    found = page.element(f"{panel}_lora_hint").locator("p").filter(has_text=contains)
    found.wait_for()
    return found


def wait_no_hint(page: ForgePage) -> None:
    """Wait until nothing is suggested."""
    page.element(f"{PANEL}_lora_hint").locator("p").wait_for(state="detached")


@pytest.mark.both_hosts
def test_what_suits_a_distilled_lora_is_suggested_until_it_is_so(page: ForgePage, files: dict[str, Path]) -> None:
    page.drop_image(f"{PANEL}_image1", files["woman"])
    type_prompt(page, f"the woman hugs the cat {HYPER}")
    suggested = hint(page, "Suggested: First Block Cache off, references refreshed every 2 steps, 8 to 10 steps;")
    assert suggested.inner_text().startswith("Hyper-FLUX.1-dev-8steps-lora is distilled for few steps")
    assert "fk-warning" not in (suggested.get_attribute("class") or "").split()
    # It set nothing.
    assert lit(page) == ["Balanced"]
    assert is_checked(page, f"{PANEL}_cache")
    assert value(page, f"{PANEL}_threshold") == f"{DEFAULT_THRESHOLD:g}"
    assert value(page, "txt2img_steps") == "4"

    page.click(f"{PANEL}_preset_off")
    wait_lit(page, ["Off"])
    hint(page, "Suggested: references refreshed every 2 steps, 8 to 10 steps;")
    page.fill(f"{PANEL}_reference_refresh", 2)
    hint(page, "Suggested: 8 to 10 steps;")
    page.fill("txt2img_steps", 8)
    wait_no_hint(page)
    page.fill("txt2img_steps", 20)
    hint(page, "Suggested: 8 to 10 steps;")


def test_it_goes_with_the_lora_and_never_comes_for_others(page: ForgePage) -> None:
    type_prompt(page, f"a cat {TURBO}")
    hint(page, "FLUX.1-Turbo-Alpha is distilled")
    with page.answered():
        type_prompt(page, "a hyperrealistic, turbocharged car <lora:porsche-911-turbo:1>")
        wait_no_hint(page)
    counted = page.element(f"{PANEL}_prompt_tokens")
    before = counted.inner_text()
    with page.answered():  # the tokens are asked for together with the hint
        type_prompt(page, f"a cat\n# {TURBO}\nby the sea")  # a comment, which Forge leaves out
        page.wait_until(lambda: counted.inner_text() != before, lambda: f"other tokens than {before}")
    assert page.element(f"{PANEL}_lora_hint").locator("p").count() == 0


def test_img2img_looks_at_its_own_prompt(page: ForgePage) -> None:
    page.open_tab("img2img")
    page.open_accordion(IMG2IMG_PANEL)
    type_prompt(page, f"a cat {TURBO}", "img2img")
    hint(page, "FLUX.1-Turbo-Alpha is distilled", IMG2IMG_PANEL)
    assert page.element(f"{PANEL}_lora_hint").locator("p").count() == 0
