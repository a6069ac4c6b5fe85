"""Reference and result under the panel's slider, how they lie against each other, and the result aligned."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.forge_page import ForgePage
from tests.support.forge_server import ForgeServer
from tests.support.panel import PANEL, check
from tests.support.photos import woman

pytestmark = pytest.mark.both_hosts

MATCH = f"#{PANEL}_report .fk-match"
COMPARISON = f"#{PANEL}_comparison"
THUMBNAILS = "#txt2img_gallery .thumbnail-item.thumbnail-small"
SHOWN = "#txt2img_gallery .preview img[data-testid=detailed-image]"


@pytest.fixture
def saving(forge_page: ForgeServer) -> Iterator[None]:
    """Let Forge save results, which the tests' settings turn off."""
    forge_page.post("/sdapi/v1/options", {"samples_save": True})
    yield
    forge_page.post("/sdapi/v1/options", {"samples_save": False})


def generate(page: ForgePage, files: dict[str, Path], prompt: str) -> None:
    """Generate from the woman, and wait for the report."""
    check(page, f"{PANEL}_half_size")
    page.drop_image(f"{PANEL}_image1", files["woman"])
    page.element("txt2img_prompt").locator("textarea").fill(prompt)
    page.fill("txt2img_steps", 2)
    page.generate()
    page.report()


def press_align(page: ForgePage) -> None:
    """Press the hidden button, as the report's own does."""
    page.element(f"{PANEL}_align").evaluate("button => button.click()")


def numbers(text: str) -> tuple[float, float]:
    """Return the pixels to the right and the percent larger that a text tells."""
    found = re.search(r"([\d.]+) px right, ([\d.]+) % larger", text)
    assert found is not None, text
    return float(found[1]), float(found[2])


def difference(image: Image.Image) -> float:
    """Return the mean difference from the woman in 1/255, away from the border."""
    reference = woman().resize(image.size, Image.Resampling.LANCZOS)
    values = [np.asarray(one.convert("RGB"), dtype=float)[20:-20, 20:-20] for one in (image, reference)]
    return float(np.abs(values[0] - values[1]).mean())


@pytest.mark.usefixtures("saving")
def test_a_moved_result_is_told_compared_and_aligned(
    page: ForgePage, forge_page: ForgeServer, files: dict[str, Path]
) -> None:
    log = len(forge_page.log_text())
    generate(page, files, "moved reference")
    assert numbers(page.page.locator(MATCH).inner_text()) == pytest.approx((6, 2), abs=0.25)

    page.element(f"{PANEL}_report").locator("details[data-fk-fold=comparison] > summary").click()
    slider = page.page.locator(f"{COMPARISON} input")
    slider.focus()
    page.page.keyboard.press("Home")
    assert slider.get_attribute("aria-valuetext") == "0 % Reference 1"
    clip = page.page.locator(f"{COMPARISON} .fk-compare-before").evaluate("one => getComputedStyle(one).clipPath")
    assert clip == "inset(0px 100% 0px 0px)"
    size, shown = (page.page.locator(selector).first.bounding_box() for selector in (COMPARISON, f"{COMPARISON} img"))
    assert size is not None
    assert size == shown
    assert size["width"] == pytest.approx(size["height"], abs=1)
    names = page.page.locator(f"{COMPARISON} .fk-compare-name")
    assert names.evaluate_all("all => all.map(one => getComputedStyle(one).color)") == ["rgb(255, 255, 255)"] * 2

    page.element(f"{PANEL}_report").get_by_role("button", name="Align").click()
    page.wait_until(lambda: page.page.locator(THUMBNAILS).count() == 2, lambda: "the aligned picture in the gallery")
    page.page.locator(f"{THUMBNAILS}.selected").nth(0).wait_for()
    page.wait_until(lambda: "Kontext aligned: " in page.infotext(), lambda: page.infotext())
    assert numbers(page.infotext()) == pytest.approx((6, 2), abs=0.25)
    before, after = (
        Image.open(io.BytesIO(page.page.request.get(source).body()))
        for source in page.page.locator(f"{THUMBNAILS} img").evaluate_all("all => all.map(one => one.src)")
    )
    assert "Kontext aligned: " not in before.info["parameters"]
    assert numbers(after.info["parameters"]) == pytest.approx((6, 2), abs=0.25)
    assert after.info["parameters"].startswith(before.info["parameters"])
    assert difference(after) < 0.2 * difference(before)
    saved = list(forge_page.data.rglob("*-aligned.png"))
    assert len(saved) == 1
    assert after.info["parameters"] == Image.open(saved[0]).info["parameters"]
    assert np.array_equal(np.asarray(Image.open(saved[0])), np.asarray(after))

    press_align(page)  # the aligned picture is selected now
    page.page.locator(".toast-body").get_by_text("lies on the reference already").wait_for()
    assert page.page.locator(THUMBNAILS).count() == 2
    assert "Traceback" not in forge_page.log_text()[log:]


def test_a_result_that_shows_something_else_is_compared_and_nothing_is_claimed(
    page: ForgePage, files: dict[str, Path]
) -> None:
    generate(page, files, "a lighthouse")
    assert page.page.locator(COMPARISON).count() == 1
    assert page.page.locator(MATCH).count() == 0
    press_align(page)
    page.page.locator(".toast-body").get_by_text("shares too little with the reference").wait_for()


def test_without_a_reference_there_is_nothing_to_compare(page: ForgePage, files: dict[str, Path]) -> None:
    generate(page, files, "moved reference")
    page.clear_image(f"{PANEL}_image1")
    page.element("txt2img_prompt").locator("textarea").fill("a lighthouse")
    page.element("txt2img_prompt").locator("textarea").press("Tab")
    page.generate()
    page.report()
    assert page.page.locator(COMPARISON).count() == 0
    press_align(page)
    page.page.locator(".toast-body").get_by_text("no reference to align to").wait_for()
