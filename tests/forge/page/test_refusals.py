"""What cannot be used is said on the page, where it is and when it is: in the slot, on Generate, in the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.forge_page import ForgePage
from tests.support.panel import IMG2IMG_PANEL, PANEL, check, drop_both, facts, unfold
from tests.support.photos import cat, woman

REASON = "the image is truncated or damaged"


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A photograph that ends too early."""
    path = tmp_path / "damaged.jpg"
    cat().save(path)
    path.write_bytes(path.read_bytes()[:8000])
    return path


def drop(page: ForgePage, slot: int, path: Path) -> None:
    """Drop a file that a browser may not be able to show."""
    page.element(f"{PANEL}_image{slot}").locator("input[type=file]").first.set_input_files(str(path))


@pytest.mark.both_hosts
def test_a_damaged_file_is_refused_in_its_slot_and_on_generate(
    page: ForgePage, files: dict[str, Path], damaged: Path
) -> None:
    drop(page, 1, damaged)
    facts(page, 1, REASON)
    assert page.element(f"{PANEL}_facts1").locator(".fk-error").count() == 1
    page.generate(refused=True)
    assert f"image1: {REASON}" in page.log()
    report = page.element(f"{PANEL}_report")
    report.get_by_text(f"No picture was made: image1: {REASON}").wait_for()

    page.drop_image(f"{PANEL}_image2", files["woman"])
    page.click(f"{PANEL}_swap")
    facts(page, 2, REASON)
    facts(page, 1, "512×512")
    page.generate(refused=True)
    assert f"image2: {REASON}" in page.log()

    check(page, f"{PANEL}_mute2")
    page.fill("txt2img_steps", 1)
    page.generate()
    assert "Kontext image 1" in page.infotext()
    assert "Kontext image 2" not in page.infotext()
    page.report()
    assert "No picture was made" not in report.inner_text()


def test_a_file_that_is_no_picture_is_refused_with_what_can_be_opened(page: ForgePage, tmp_path: Path) -> None:
    path = tmp_path / "letter.png"
    path.write_text("Dear Sir,", encoding="utf-8")
    drop(page, 2, path)
    assert "none of PNG, JPEG" in facts(page, 2, "not an image that Pillow can open")


@pytest.mark.both_hosts
def test_a_refused_generation_takes_the_last_reports_place(page: ForgePage, files: dict[str, Path]) -> None:
    drop_both(page, files)
    check(page, f"{PANEL}_half_size")
    page.fill("txt2img_steps", 1)
    page.generate()
    report = page.report()
    page.drop_image(f"{PANEL}_image3", files["narrow"])
    facts(page, 3, "at most 20")
    page.generate(refused=True)
    report.get_by_text("No picture was made: image3: 900×40 is 22 times longer than wide").wait_for()
    assert report.locator(".fk-strip").count() == 0
    spoken = page.element(f"{PANEL}_spoken").text_content() or ""
    assert "No picture was made: image3" in spoken


@pytest.mark.both_hosts
def test_a_file_that_ends_a_batch_is_named(page: ForgePage, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    woman().resize((128, 128)).save(folder / "a good.png")
    Image.fromarray(np.zeros((64, 1408, 3), np.uint8)).save(folder / "b narrow.png")  # Neo rounds other sizes
    page.open_tab("img2img")
    unfold(page, IMG2IMG_PANEL)
    check(page, f"{IMG2IMG_PANEL}_init_image")
    page.fill("img2img_steps", 1)
    for tabs, name in (("mode_img2img", "Batch"), ("img2img_batch_source", "From directory")):
        with page.answered():
            page.page.locator(f"#{tabs} > .tab-nav > button", has_text=name).click()
    page.element("img2img_batch_input_dir").locator("textarea, input").first.fill(str(folder))
    page.settle()
    page.generate("img2img", refused=True)
    assert "init_image_as_reference: b narrow.png: 1408×64 is 22 times longer than wide" in page.log("img2img")


def test_a_plots_damaged_picture_is_named_before_the_first_cell(
    page: ForgePage, files: dict[str, Path], damaged: Path
) -> None:
    choose(page, "#txt2img_script_container #script_list", "X/Y/Z plot")
    with page.answered():
        choose(page, "#script_txt2img_xyz_plot_x_type", "[Kontext] image 1")
    page.settle()
    values = page.element("script_txt2img_xyz_plot_x_values").locator("textarea, input").first
    values.fill(f'{files["woman"]}, "{damaged}"')
    page.generate(refused=True)
    assert f"{damaged}: {REASON}" in page.log()


def choose(page: ForgePage, dropdown: str, name: str) -> None:
    """Choose an option of a dropdown by its visible name."""
    page.page.locator(f"{dropdown} input").first.fill(name)
    page.page.get_by_role("option", name=name, exact=True).first.click()
