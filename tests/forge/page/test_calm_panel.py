"""The panel at first sight, and the report where the eye is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forge.page.test_looks import FAULTLESS, LEAST_CONTRAST, LOOKS
from tests.support.browser import OpenPage
from tests.support.forge_page import ForgePage
from tests.support.forge_server import ForgeServer
from tests.support.panel import PANEL, check, drop_both, facts, lay_out, select, unfold_report, wait_value
from tests.support.reload import built_with

AT_FIRST_SIGHT = {
    "image1", "image2", "facts1", "facts2", "report", "presets", "cache", "threshold", "recommend", "undo",
    "prompt_ideas", "advanced",
}  # fmt: skip
FOLDED = {
    "swap", "clear", "to_img2img", "use_size1", "mute1", "sizing", "half_size", "stitch", "placement", "warmup",
    "max_consecutive", "compute_last", "forecast", "correct", "reference_refresh", "checkpoint", "runs",
}  # fmt: skip


def advanced_label(page: ForgePage) -> str:
    """Return the label of *Advanced*."""
    return page.element(f"{PANEL}_advanced").locator(".label-wrap > span").first.inner_text().strip()


@pytest.mark.both_hosts
def test_at_first_sight_there_is_what_a_first_picture_needs_in_620_pixels(
    open_page: OpenPage, forge_page: ForgeServer, files: dict[str, Path]
) -> None:
    forge_page.stop()  # until then it shows the last report
    forge_page.start()
    with open_page(1452, 1600) as page:
        page.open(forge_page.url)
        page.open_accordion(PANEL)
        drop_both(page, files)
        page.element(f"{PANEL}_more_slots").wait_for(state="visible")
        for name in AT_FIRST_SIGHT:
            assert page.element(f"{PANEL}_{name}").is_visible(), name
        for name in FOLDED:
            assert not page.element(f"{PANEL}_{name}").is_visible(), name
        box = page.element(PANEL).bounding_box()
        assert box is not None
        assert 640 <= box["width"] <= 670
        assert box["height"] <= 620
        assert "stand here" in page.element(f"{PANEL}_report").inner_text()
        lay_out(page, 390)
        faults = page.page.evaluate(LOOKS, [[f"#{PANEL}"], LEAST_CONTRAST])
        assert (faults["clipped"], faults["overlapping"]) == ([], [])
        page.open_accordion(f"{PANEL}_advanced")
        select(page, f"{PANEL}_stitch", "row")
        page.element(f"{PANEL}_stitched").locator("img").wait_for()
        assert page.page.evaluate(LOOKS, [[f"#{PANEL}"], LEAST_CONTRAST]) == FAULTLESS


@pytest.mark.both_hosts
def test_a_first_picture_takes_two_drops_a_sentence_and_generate(
    folded_page: ForgePage, files: dict[str, Path]
) -> None:
    page = folded_page
    page.open_accordion(PANEL)
    drop_both(page, files)
    page.element("txt2img_prompt").locator("textarea").fill("the woman hugs the cat")
    page.fill("txt2img_steps", 1)
    page.generate(timeout=240)
    assert page.gallery_image() is not None
    assert re.search(r"Kontext image 1: .+Kontext image 2: ", page.infotext())
    assert "0 of 1" in page.report().locator(".fk-strip").inner_text()


def test_advanced_says_what_differs_from_the_default(page: ForgePage) -> None:
    assert advanced_label(page) == "Advanced"
    check(page, f"{PANEL}_half_size")
    page.fill(f"{PANEL}_warmup", 3)
    select(page, f"{PANEL}_placement", "uxo")
    wanted = "Advanced · half size, placement uxo, warm-up 3"
    page.wait_until(lambda: advanced_label(page) == wanted, lambda: f"{advanced_label(page)} → {wanted}")
    page.element(f"{PANEL}_half_size").locator("input").uncheck()
    page.fill(f"{PANEL}_warmup", 1)
    select(page, f"{PANEL}_placement", "offset")
    page.wait_until(lambda: advanced_label(page) == "Advanced", lambda: advanced_label(page))


@pytest.mark.both_hosts
def test_the_report_stays_as_it_was_unfolded_from_picture_to_picture(page: ForgePage) -> None:
    page.generate()
    report = page.report()
    steps = report.locator("details[data-fk-fold=steps]")
    assert not report.locator("svg").first.is_visible()
    unfold_report(page)
    assert report.locator("svg").first.is_visible()
    page.generate()
    page.report()
    assert steps.get_attribute("open") is not None
    slots, speed = page.element(f"{PANEL}_slot1").bounding_box(), page.element(f"{PANEL}_presets").bounding_box()
    place = report.bounding_box()
    assert slots is not None
    assert speed is not None
    assert place is not None
    assert slots["y"] < place["y"] < speed["y"]


@pytest.mark.both_hosts
def test_one_click_takes_the_threshold_that_the_run_suggests(page: ForgePage) -> None:
    page.fill("txt2img_steps", 12)
    page.generate()
    advice = page.report().locator(".fk-advice")
    said = re.search(
        r"The smallest change was (0\.\d+): at 0\.14 nothing can be reused\. About (0\.\d+) would reuse (\d+) of 12\.",
        advice.inner_text(),
    )
    assert said is not None, advice.inner_text()
    assert 0.14 < float(said[1]) < float(said[2])
    advice.get_by_role("button", name=f"Use {said[2]}").click()
    wait_value(page, f"{PANEL}_threshold", said[2])
    page.generate()
    reused = re.search(r"Reused\s+(\d+) of 12", page.report().locator(".fk-strip").inner_text())
    assert reused is not None
    assert int(reused[1]) >= 1


@pytest.mark.both_hosts
def test_result_and_reference_are_compared_under_a_slider_by_keyboard(page: ForgePage, files: dict[str, Path]) -> None:
    drop_both(page, files)
    check(page, f"{PANEL}_half_size")
    facts(page, 2, "624×416")
    page.generate()
    comparison = page.report().locator("details[data-fk-fold=comparison]")
    comparison.locator("summary").press("Enter")
    slider = comparison.get_by_role("slider")
    assert "Reference 1 on the left" in (slider.get_attribute("aria-label") or "")
    before = comparison.locator(".fk-compare-before")
    clip = before.evaluate("element => getComputedStyle(element).clipPath")
    slider.focus()
    for _ in range(5):
        page.page.keyboard.press("ArrowRight")
    assert slider.input_value() == "55"
    assert before.evaluate("element => getComputedStyle(element).clipPath") != clip


@pytest.fixture
def under_the_gallery(forge_page: ForgeServer) -> Iterator[None]:
    """The report's place on pages that are opened after it."""
    with built_with(forge_page, "flux_kontext_report_place", "under the gallery", "under the references"):
        yield


@pytest.mark.both_hosts
def test_the_report_stands_under_the_gallery_if_the_user_says_so(under_the_gallery: None, page: ForgePage) -> None:
    report = page.element(f"{PANEL}_report")
    assert page.page.locator("#txt2img_results").locator(f"#{PANEL}_report").count() == 1
    assert page.element(PANEL).locator(f"#{PANEL}_report").count() == 0
    page.fill("txt2img_steps", 12)
    page.start_generation()
    report.locator(".fk-live .fk-strip").wait_for()
    page.wait_generation_done()
    assert "0 of 12" in page.report().locator(".fk-strip").inner_text()
    report.get_by_role("button", name="Use ").click()
    page.wait_until(
        lambda: page.element(f"{PANEL}_threshold").locator("input").first.input_value() != "0.14",
        lambda: "the suggested threshold",
    )
