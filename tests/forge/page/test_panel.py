"""The panel on a real Forge's page: drop two photographs, generate, read the report."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lib_fluxkontext.settings import PRESETS
from tests.support.forge_page import ForgePage
from tests.support.forge_server import ForgeServer
from tests.support.panel import (
    IMG2IMG_PANEL,
    PANEL,
    check,
    drop_both,
    facts,
    is_checked,
    lit,
    paste,
    select,
    unfold,
    value,
    wait_lit,
    wait_value,
)


@pytest.mark.both_hosts
def test_two_photographs_in_one_picture_out_with_its_report(
    page: ForgePage, files: dict[str, Path], forge_page: ForgeServer
) -> None:
    drop_both(page, files)
    check(page, f"{PANEL}_half_size")
    assert "512×512 → 512×512, 1,024 tokens" in facts(page, 1, "1,024 tokens")
    assert "Nothing cropped" in facts(page, 1, "Nothing cropped")
    assert "Crops 1 px right" in facts(page, 2, "Crops")
    page.fill(f"{PANEL}_threshold", 1.0)
    page.generate()
    report = page.report()
    strip = report.locator(".fk-strip").inner_text()
    assert page.gallery_image() is not None
    assert "3 of 4" in strip
    assert "Process memory" in strip
    chart = report.locator("svg")
    assert chart.locator("rect.fk-computed").count() == 1
    assert chart.locator("rect.fk-reused").count() == 3
    assert chart.locator("g > text:not(.fk-index)").all_text_contents() == ["C", "R", "R", "R"]
    infotext = page.infotext()
    assert "Kontext cache threshold: 1" in infotext
    assert re.search(r"Kontext image 2: [0-9a-f]{12} 451×300", infotext)
    page.open(forge_page.url)
    unfold(page)
    page.element(f"{PANEL}_report").get_by_text("3 of 4").first.wait_for()
    assert page.element(f"{PANEL}_report").locator(".fk-strip").inner_text() == strip


@pytest.mark.both_hosts
def test_steps_are_shown_while_it_samples(page: ForgePage, files: dict[str, Path]) -> None:
    drop_both(page, files)
    check(page, f"{PANEL}_half_size")
    page.fill("txt2img_steps", 12)
    report = page.element(f"{PANEL}_report")
    page.start_generation()
    report.locator(".fk-live .fk-strip").get_by_text(re.compile(r"^([2-9]|1[0-2]) of 12$")).wait_for()
    strip = report.locator(".fk-strip").inner_text()
    assert re.search(r"Step\s+\d+ of 12\s+Step time\s.+s\s+Reused\s+\d+ of \d+\s+Time left\s.+s\s+Process", strip), (
        strip
    )
    assert 1 <= report.locator("svg g rect").count() <= 12
    page.wait_generation_done()
    assert page.report().locator(".fk-live").count() == 0


def test_a_full_card_is_reported_while_it_samples(page: ForgePage, files: dict[str, Path]) -> None:
    drop_both(page, files)
    check(page, f"{PANEL}_half_size")
    page.fill("txt2img_steps", 12)
    page.element("txt2img_prompt").locator("textarea").fill("a full card")
    page.start_generation()
    live = page.element(f"{PANEL}_report").locator(".fk-live")
    live.get_by_text("The card was full").wait_for()
    assert "12.00 GB of 12.00 GB" in live.locator(".fk-strip").inner_text()
    assert "Lower GPU Weights" in live.inner_text()
    page.wait_generation_done()
    page.report()


def test_swap_use_size_mute_and_clear_do_what_they_say(page: ForgePage, files: dict[str, Path]) -> None:
    drop_both(page, files)
    page.click(f"{PANEL}_swap")
    assert "451×300" in facts(page, 1, "451×300")
    assert "512×512" in facts(page, 2, "512×512")
    page.click(f"{PANEL}_use_size1")
    wait_value(page, "txt2img_width", "1248")
    wait_value(page, "txt2img_height", "832")
    check(page, f"{PANEL}_mute1")
    assert "Muted" in facts(page, 1, "Muted")
    assert page.element(f"{PANEL}_image1").locator("img").count() == 1
    page.click(f"{PANEL}_clear")
    facts(page, 2, "Empty")
    assert page.element(f"{PANEL}_image2").locator("img").count() == 0


@pytest.mark.both_hosts
def test_an_unusable_reference_is_refused_in_slot_and_log(page: ForgePage, files: dict[str, Path]) -> None:
    page.drop_image(f"{PANEL}_image1", files["narrow"])
    assert "at most 20" in facts(page, 1, "at most 20")
    page.generate(refused=True)
    assert "image1: 900×40 is 22 times longer than wide" in page.log()
    page.click(f"{PANEL}_clear")
    facts(page, 1, "Empty")
    page.generate()
    assert "Error" not in page.log()
    assert "image1" not in page.log()


def test_the_crop_is_shown_before_it_happens(page: ForgePage, files: dict[str, Path]) -> None:
    page.drop_image(f"{PANEL}_image2", files["cat"])
    select(page, f"{PANEL}_sizing", "to output")
    assert "256×256" in facts(page, 2, "256×256")
    assert "Crops 33%" in facts(page, 2, "Crops 33%")
    page.fill("txt2img_width", 512)
    assert "512×256" in facts(page, 2, "512×256")
    select(page, f"{PANEL}_sizing", "fit inside output")
    assert "padded with white" in facts(page, 2, "padded with white")


@pytest.mark.both_hosts
def test_pasted_parameters_restore_the_panel_and_name_what_is_missing(
    page: ForgePage, files: dict[str, Path], forge_page: ForgeServer
) -> None:
    infotext = (
        "a red lighthouse\nSteps: 4, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Seed: 5, Size: 256x256, "
        "Kontext: True, Kontext sizing: no change, Kontext half size: True, Kontext cache: False, "
        "Kontext cache threshold: 0.33, Kontext cache warm-up: 3, Kontext cache longest run: 2, "
        "Kontext cache compute last: True, Kontext reference refresh: 5, "
        "Kontext cache forecast: False, Kontext mute 2: True, Kontext image 1: 0123456789ab 640×480"
    )
    paste(page, infotext)
    missing = page.element(f"{PANEL}_missing")
    missing.get_by_text("Reference 1 of the pasted parameters is missing").wait_for()
    assert "640×480" in missing.inner_text()
    assert "0123456789ab" in missing.inner_text()
    wait_value(page, f"{PANEL}_threshold", "0.33")
    wait_value(page, f"{PANEL}_warmup", "3")
    wait_value(page, f"{PANEL}_max_consecutive", "2")
    wait_value(page, f"{PANEL}_reference_refresh", "5")
    assert value(page, f"{PANEL}_sizing") == "no change"
    for name, checked in {
        "half_size": True,
        "cache": False,
        "compute_last": True,
        "forecast": False,
        "correct": False,
        "mute1": False,
        "mute2": True,
    }.items():
        assert is_checked(page, f"{PANEL}_{name}") == checked, name


def test_a_preset_sets_its_controls_and_lights_up(page: ForgePage) -> None:
    assert lit(page) == ["Balanced"]
    page.click(f"{PANEL}_preset_fast")
    wait_value(page, f"{PANEL}_threshold", str(PRESETS["Fast"]["cache_threshold"]))
    wait_value(page, f"{PANEL}_reference_refresh", str(PRESETS["Fast"]["reference_refresh"]))
    wait_lit(page, ["Fast"])
    page.fill(f"{PANEL}_threshold", 0.33)
    wait_lit(page, [])
    page.click(f"{PANEL}_preset_off")
    wait_lit(page, ["Off"])
    assert not is_checked(page, f"{PANEL}_cache")
    page.click(f"{PANEL}_preset_balanced")
    wait_lit(page, ["Balanced"])
    assert is_checked(page, f"{PANEL}_cache")


def test_recommended_settings_are_set_and_undone(page: ForgePage, files: dict[str, Path]) -> None:
    page.fill("txt2img_steps", 7)
    page.fill("txt2img_cfg_scale", 2)
    page.drop_image(f"{PANEL}_image1", files["cat"])
    facts(page, 1, "451×300")
    page.click(f"{PANEL}_recommend")
    wait_value(page, "txt2img_steps", "20")
    wait_value(page, "txt2img_cfg_scale", "1")
    wait_value(page, "txt2img_width", "1248")
    wait_value(page, "txt2img_height", "832")
    assert value(page, "txt2img_sampling") == "Euler"
    page.click(f"{PANEL}_undo")
    wait_value(page, "txt2img_steps", "7")
    wait_value(page, "txt2img_cfg_scale", "2")
    wait_value(page, "txt2img_width", "256")


def test_the_checkpoint_line_says_model_and_memory(page: ForgePage, files: dict[str, Path]) -> None:
    line = page.element(f"{PANEL}_checkpoint")
    page.fill("txt2img_width", 512)
    line.get_by_text("FLUX.1 dev or Kontext").wait_for()
    assert "billion parameters" in line.inner_text()
    assert "references" not in line.inner_text().split("estimated")[1]
    page.drop_image(f"{PANEL}_image1", files["woman"])
    line.get_by_text("references").wait_for()
    page.fill(f"{PANEL}_reference_refresh", 4)
    line.get_by_text("keys and values").wait_for()


def test_the_missing_note_goes_when_the_reference_is_dropped(page: ForgePage, files: dict[str, Path]) -> None:
    check(page, f"{PANEL}_half_size")
    page.drop_image(f"{PANEL}_image1", files["woman"])
    page.generate()
    infotext = page.infotext()
    page.click(f"{PANEL}_clear")
    facts(page, 1, "Empty")
    paste(page, "x\n" + infotext[infotext.index("Steps:") :])
    missing = page.element(f"{PANEL}_missing")
    missing.get_by_text("is missing").wait_for()
    page.drop_image(f"{PANEL}_image1", files["woman"])
    missing.get_by_text("is missing").wait_for(state="detached")


def test_img2img_alone_offers_its_init_image_as_reference(page: ForgePage, files: dict[str, Path]) -> None:
    page.open_tab("img2img")
    unfold(page, IMG2IMG_PANEL)
    check(page, f"{IMG2IMG_PANEL}_init_image")
    assert "init image is reference 1" in facts(page, 1, "init image is reference 1", IMG2IMG_PANEL)
    assert not page.element(f"{IMG2IMG_PANEL}_hires_references").is_visible()
    page.open_tab("txt2img")
    assert not page.element(f"{PANEL}_init_image").is_visible()
    assert page.element(f"{PANEL}_hires_references").is_visible()
