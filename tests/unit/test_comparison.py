"""The slider between reference and result, in a browser: mouse, keyboard, what a screen reader says, light and dark."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_fluxkontext.images.pair import PicturePair
from lib_fluxkontext.presentation.comparison import comparison_html
from lib_fluxkontext.presentation.page import report_page
from lib_fluxkontext.telemetry.records import GenerationReport
from tests.support.browser import browser_path, open_browser
from tests.support.forge_page import ForgePage

RED, BLUE = (200, 0, 0), (0, 0, 200)
SLIDER = "#comparison input"


@pytest.fixture(scope="module")
def browser() -> Iterator[ForgePage]:
    if browser_path() is None:
        pytest.skip("no Chromium was found; install chromium to run the tests of the page")
    with open_browser(700, 900) as page:
        yield page
        assert page.errors == []


@pytest.fixture
def page(browser: ForgePage, tmp_path: Path) -> ForgePage:
    """The command line's page: the reference is red, the result blue."""
    pair = PicturePair(Image.new("RGB", (300, 200), RED), Image.new("RGB", (600, 400), BLUE), (600, 400), "Reference 1")
    file = tmp_path / "page.html"
    file.write_text(report_page("x", pair.result, [], GenerationReport((), None), {}, pair), encoding="utf-8")
    browser.page.set_viewport_size({"width": 700, "height": 900})
    browser.page.emulate_media(color_scheme="light")
    browser.page.goto(file.as_uri())
    return browser


def red_share(page: ForgePage) -> float:
    """Return the share of the comparison's width, in a line without name or handle, that shows the reference."""
    picture = Image.open(io.BytesIO(page.page.locator("#comparison").screenshot())).convert("RGB")
    line = np.asarray(picture)[picture.height // 4].astype(int)
    red = np.abs(line - RED).sum(1) < 60
    blue = np.abs(line - BLUE).sum(1) < 60
    assert (red | blue).mean() > 0.95
    assert not red[np.argmax(blue) :].any() or not blue.any()  # the reference is on the left
    return float(red.mean())


def value_text(page: ForgePage) -> str | None:
    return page.page.locator(SLIDER).get_attribute("aria-valuetext")


def test_the_keyboard_moves_it(page: ForgePage) -> None:
    assert red_share(page) == pytest.approx(0.5, abs=0.02)
    page.page.keyboard.press("Tab")
    assert page.page.evaluate("document.activeElement.matches('#comparison input')")
    for _ in range(5):
        page.page.keyboard.press("ArrowRight")
    assert red_share(page) == pytest.approx(0.55, abs=0.02)
    assert value_text(page) == "55 % Reference 1"
    page.page.keyboard.press("Home")
    assert red_share(page) == pytest.approx(0, abs=0.02)
    page.page.keyboard.press("End")
    assert red_share(page) == pytest.approx(1, abs=0.02)
    assert value_text(page) == "100 % Reference 1"


@pytest.mark.parametrize("width", [700, 390])
def test_the_mouse_drags_it_anywhere_on_the_picture(page: ForgePage, width: int) -> None:
    page.page.set_viewport_size({"width": width, "height": 900})
    box = page.page.locator("#comparison").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    assert box["width"] / box["height"] == pytest.approx(1.5, abs=0.01)
    assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    mouse = page.page.mouse
    mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.9 * box["height"])
    mouse.down()
    assert red_share(page) == pytest.approx(0.2, abs=0.02)
    mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 0.1 * box["height"], steps=4)
    mouse.up()
    assert red_share(page) == pytest.approx(0.8, abs=0.02)
    assert page.page.locator(SLIDER).input_value() == "80"


def test_a_screen_reader_hears_pictures_and_slider_by_name(page: ForgePage) -> None:
    nodes = page.accessible("comparison")
    assert [node.name for node in nodes if node.role in ("img", "image")] == ["Result", "Reference 1"]
    sliders = [node for node in nodes if node.role == "slider"]
    assert [node.name for node in sliders] == ["Before and after: Reference 1 on the left, Result on the right"]
    assert value_text(page) == "50 % Reference 1"
    assert [node.name for node in nodes if node.role == "StaticText"] == []  # the names are not said twice


def test_focus_is_seen(page: ForgePage) -> None:
    shot = {"clip": {"x": 0, "y": 0, "width": 700, "height": 900}}
    before = page.page.screenshot(**shot)
    page.page.keyboard.press("Tab")
    assert page.page.locator(SLIDER).evaluate("input => getComputedStyle(input).outlineStyle") == "solid"
    first, second = (
        np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in (before, page.page.screenshot())
    )
    assert (first != second).any(2).sum() > 1000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_names_are_white_on_dark_whatever_the_page(page: ForgePage, scheme: str) -> None:
    page.page.emulate_media(color_scheme=scheme)
    names = page.page.locator("#comparison .fk-compare-name")
    styles = names.evaluate_all("all => all.map(one => [getComputedStyle(one).color, one.innerText])")
    assert styles == [["rgb(255, 255, 255)", "Result"], ["rgb(255, 255, 255)", "Reference 1"]]
    for index in range(2):
        box = names.nth(index).bounding_box()
        picture = page.page.locator("#comparison").bounding_box()
        assert box is not None
        assert picture is not None
        assert picture["x"] < box["x"]
        assert box["x"] + box["width"] < picture["x"] + picture["width"]


def test_a_reference_of_another_shape_is_shown_whole() -> None:
    pair = PicturePair(Image.new("RGB", (100, 400), RED), Image.new("RGB", (400, 400), BLUE), (400, 400), "Reference 2")
    html = comparison_html(pair, "comparison")
    assert 'alt="Reference 2"' in html
    assert html.count("data:image/jpeg;base64,") == 2
    assert "<script" not in html


def test_text_is_escaped() -> None:
    picture = Image.new("RGB", (32, 32))
    assert '<b id="x">' not in comparison_html(PicturePair(picture, picture, (32, 32), '<b id="x">'), "comparison")
