"""What tests do with the panel in the page."""

from __future__ import annotations

from pathlib import Path

from lib_fluxkontext.settings import PRESETS
from tests.support.browser import ForgePage

PANEL = "flux_kontext"


def facts(page: ForgePage, slot: int, contains: str, tab: str = "txt2img") -> str:
    """The facts under a slot, once they contain a text."""
    element = page.element(f"{tab}_{PANEL}_facts{slot}")
    element.get_by_text(contains).first.wait_for(timeout=15000)
    return element.inner_text()


def drop_both(page: ForgePage, files: dict[str, Path], tab: str = "txt2img") -> None:
    """Drop the two photographs into the slots."""
    page.drop_image(f"{tab}_{PANEL}_image1", files["woman"])
    page.drop_image(f"{tab}_{PANEL}_image2", files["cat"])
    facts(page, 2, "451×300", tab)


def value(page: ForgePage, elem_id: str) -> str:
    """The value of an input."""
    return page.element(elem_id).locator('input[type="number"], input').first.input_value()


def wait_value(page: ForgePage, elem_id: str, wanted: str) -> None:
    """Wait until an input has this value."""
    page.wait_until(
        lambda: value(page, elem_id) == wanted, lambda: f"{elem_id} is {value(page, elem_id)}, not {wanted}"
    )


def lit(page: ForgePage) -> list[str]:
    """Presets whose button is highlighted."""
    buttons = {name: page.element(f"txt2img_{PANEL}_preset_{name.lower()}") for name in PRESETS}
    return [name for name, button in buttons.items() if "primary" in (button.get_attribute("class") or "").split()]


def wait_lit(page: ForgePage, wanted: list[str]) -> None:
    """Wait until these presets are highlighted."""
    page.wait_until(lambda: lit(page) == wanted, lambda: f"{lit(page)} highlighted, not {wanted}")


def show_runs(page: ForgePage, text: str) -> str:
    """Open the run log, wait for a text in its table, and return the table."""
    page.open_accordion(f"txt2img_{PANEL}_runs")
    page.click(f"txt2img_{PANEL}_runs_show")
    table = page.element(f"txt2img_{PANEL}_runs_table")
    table.get_by_text(text).first.wait_for(timeout=15000)
    return table.inner_text()
