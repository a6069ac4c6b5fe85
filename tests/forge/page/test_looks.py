"""In light and dark, wide and narrow, the panel can be read, and nothing on it is cut off or covered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.browser import OpenPage
from tests.support.forge_server import ForgeServer
from tests.support.panel import PANEL, select, set_scene, unfold
from tools.panel_pictures import GAP, PICTURE

LOOKS = (Path(__file__).resolve().parents[2] / "support" / "looks.js").read_text(encoding="utf-8")
FAULTLESS: dict[str, list[str]] = {"contrast": [], "clipped": [], "overlapping": []}
LEAST_CONTRAST = 4.5
"""Contrast of text with its background that WCAG's level AA asks for."""


def brightness(picture: Image.Image) -> float:
    """Return the median brightness of a picture, 0 to 255."""
    return float(np.median(np.asarray(picture.convert("L"))))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_panel_can_be_read_and_nothing_is_cut_off(
    open_page: OpenPage, forge_page: ForgeServer, tmp_path: Path, dark: bool
) -> None:
    with open_page(1280, 1600) as page:
        page.open(forge_page.url, dark=dark)
        unfold(page)
        empty = page.page.evaluate(LOOKS, [[f"#{PANEL}"], LEAST_CONTRAST])
        assert empty["contrast"] == []  # an empty slot has its label inside its button, which is no fault
        set_scene(page, tmp_path, steps=4)
        page.click(f"{PANEL}_preset_balanced")
        page.element(f"{PANEL}_preset_balanced").and_(page.page.locator(".primary")).wait_for()
        for summary in page.element(f"{PANEL}_report").locator("summary:visible").all():
            if summary.locator("..").get_attribute("open") is None:
                summary.click()
        select(page, f"{PANEL}_sizing", "to output")
        page.element(f"{PANEL}_facts2").get_by_text("Crops 33%").wait_for()
        page.click(f"{PANEL}_runs_csv")
        page.element(f"{PANEL}_runs_file").locator("a").first.wait_for()
        for width in (1280, 800):
            page.page.set_viewport_size({"width": width, "height": 1600})
            faults = page.page.evaluate(LOOKS, [[f"#{PANEL}", "#image_buttons_txt2img"], LEAST_CONTRAST])
            assert faults == FAULTLESS, width
            path = tmp_path / f"{width}.png"
            page.element(PANEL).screenshot(path=str(path))
            picture = Image.open(path)
            assert (brightness(picture) < 60) == dark
            assert (brightness(picture) > 200) == (not dark)


def test_the_readmes_picture_shows_the_panel_light_and_dark() -> None:
    picture = Image.open(PICTURE)
    middle = picture.width // 2
    assert brightness(picture.crop((0, 0, middle - GAP, picture.height // 2))) > 200
    assert brightness(picture.crop((middle + GAP, 0, picture.width, picture.height // 2))) < 60
