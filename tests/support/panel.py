"""Work the panel on Forge's page."""

from __future__ import annotations

from pathlib import Path

from lib_fluxkontext.settings import PRESETS
from tests.support.forge_page import ForgePage
from tests.support.photos import cat, woman

PANEL = "txt2img_flux_kontext"
IMG2IMG_PANEL = "img2img_flux_kontext"


def unfold(page: ForgePage, panel: str = PANEL) -> None:
    """Unfold a panel and what is under *Advanced*."""
    page.open_accordion(panel)
    page.open_accordion(f"{panel}_advanced")


def unfold_report(page: ForgePage, panel: str = PANEL) -> None:
    """Unfold what was measured, in the report."""
    steps = page.element(f"{panel}_report").locator("details[data-fk-fold=steps]")
    if steps.get_attribute("open") is None:
        steps.locator("> summary").click()


def facts(page: ForgePage, slot: int, contains: str, panel: str = PANEL) -> str:
    """Wait until the facts under a slot contain a text, and return them."""
    element = page.element(f"{panel}_facts{slot}")
    element.get_by_text(contains).first.wait_for()
    return element.inner_text()


def drop_both(page: ForgePage, files: dict[str, Path]) -> None:
    """Drop the two photographs into the slots."""
    page.drop_image(f"{PANEL}_image1", files["woman"])
    page.drop_image(f"{PANEL}_image2", files["cat"])
    facts(page, 2, "451×300")


def check(page: ForgePage, elem_id: str) -> None:
    """Check a checkbox."""
    page.element(elem_id).locator("input").check()


def is_checked(page: ForgePage, elem_id: str) -> bool:
    """Return whether a checkbox is checked."""
    return page.element(elem_id).locator("input").is_checked()


def select(page: ForgePage, elem_id: str, option: str) -> None:
    """Select an option of a dropdown."""
    page.element(elem_id).locator("input").click()
    page.page.get_by_role("option", name=option).click()


def value(page: ForgePage, elem_id: str) -> str:
    """Return the value of an input."""
    return page.element(elem_id).locator('input[type="number"], input').first.input_value()


def wait_value(page: ForgePage, elem_id: str, expected: str) -> None:
    """Wait until an input has a value."""
    page.wait_until(lambda: value(page, elem_id) == expected, lambda: f"{elem_id}: {value(page, elem_id)} → {expected}")


def lit(page: ForgePage) -> list[str]:
    """Return the presets whose button is highlighted."""
    buttons = {name: page.element(f"{PANEL}_preset_{name.lower()}") for name in PRESETS}
    return [name for name, button in buttons.items() if "primary" in (button.get_attribute("class") or "").split()]


def wait_lit(page: ForgePage, expected: list[str]) -> None:
    """Wait until these presets and no others are highlighted."""
    page.wait_until(lambda: lit(page) == expected, lambda: f"highlighted presets: {lit(page)} → {expected}")


def paste(page: ForgePage, infotext: str) -> None:
    """Put an infotext into the prompt and click "paste parameters"."""
    page.element("txt2img_prompt").locator("textarea").fill(infotext)
    page.page.locator("#txt2img_tools #paste").click()


def show_runs(page: ForgePage, contains: str) -> str:
    """Open the run log, wait for a text in its table, and return the table."""
    page.open_accordion(f"{PANEL}_advanced")
    page.open_accordion(f"{PANEL}_runs")
    page.click(f"{PANEL}_runs_show")
    table = page.element(f"{PANEL}_runs_table")
    table.get_by_text(contains).first.wait_for()
    return table.inner_text()


def lay_out(page: ForgePage, width: int) -> None:
    """Give the page another width, and wait until Forge's own script has laid its columns out anew."""
    height = (page.page.viewport_size or {"height": 1600})["height"]
    page.page.set_viewport_size({"width": width, "height": height})
    panel = page.element(PANEL)
    seen: list[float] = []

    def settled() -> bool:
        seen.append(panel.evaluate("element => element.getBoundingClientRect().width"))
        return len(seen) > 5 and len(set(seen[-5:])) == 1 and seen[-1] < width

    page.wait_until(settled, lambda: f"the panel to keep its width: {seen[-5:]}")


def save_photos(folder: Path) -> dict[str, Path]:
    """Save the two photographs, and return their paths by name."""
    paths = {"woman": folder / "woman.png", "cat": folder / "cat.jpg"}
    woman().save(paths["woman"])
    cat().save(paths["cat"])
    return paths


def set_scene(page: ForgePage, folder: Path, steps: int = 12) -> None:
    """Fill the panel for a picture of it: two references, a generation with steps of several kinds, and the run log.

    Args:
        page: with the txt2img tab open.
        folder: for the photographs.
        steps: of the generation.
    """
    unfold(page)
    drop_both(page, save_photos(folder))
    check(page, f"{PANEL}_half_size")
    page.fill("txt2img_steps", steps)
    page.fill(f"{PANEL}_threshold", 0.6)
    page.fill(f"{PANEL}_reference_refresh", 4)
    page.element(f"{PANEL}_facts2").get_by_text("624×416").wait_for()
    page.generate()
    page.report()
    unfold_report(page)
    page.open_accordion(f"{PANEL}_runs")
    page.click(f"{PANEL}_runs_show")
    page.element(f"{PANEL}_runs_table").locator("tbody tr").first.wait_for()
    page.page.evaluate("document.activeElement.blur()")
