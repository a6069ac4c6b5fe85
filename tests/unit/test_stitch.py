"""Stitching: what the plan says is what is made, with no more tokens than the first reference alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.images.decode import Reference, content_digest, decode_reference
from lib_fluxkontext.images.sizing import SizePlan, apply_size, plan_size
from lib_fluxkontext.images.stitch import (
    apply_stitch,
    plan_sizes,
    plan_stitch,
    reference_token_count,
    stitch_references,
)
from lib_fluxkontext.settings import SIZINGS, KontextSettings
from tests.support.photos import cat, woman

WOMAN, CAT = (512, 512), (451, 300)


def plans_of(*sources: tuple[int, int], sizing: str = "to BFL recommended", output: tuple = (1024, 1024)) -> list:
    return [plan_size(source, sizing, False, output, f"image{n}") for n, source in enumerate(sources, 1)]


def plain(size: tuple[int, int], colour: str, number: int = 1, background: str = "#ffffff") -> Reference:
    image = Image.new("RGB", size, colour)
    return Reference(image, content_digest(image), f"image{number}", background)


@pytest.mark.parametrize(
    ("stitch", "size", "cells"),
    [
        # Ratios 1 and 1.5: √(1024² / 2.5) = 647.6 → 640 high, 1600 wide, 640 and 960 of it.
        ("row", (1600, 640), ((0, 0, 640, 640), (640, 0, 1600, 640))),
        # 1 and 1/1.5 high: √(1024² / 1.6667) = 793.2 → 784 wide, 1306.7 → 1312 high, three and two fifths of it.
        ("column", (784, 1312), ((0, 0, 784, 787), (0, 787, 784, 1312))),
        ("auto", (784, 1312), ((0, 0, 784, 787), (0, 787, 784, 1312))),  # 1 to 1.67 is nearer to square than 2.5 to 1
    ],
)
def test_a_square_and_one_of_three_to_two(stitch: str, size: tuple, cells: tuple) -> None:
    plan = plan_stitch(plans_of(WOMAN, CAT), stitch)
    assert plan is not None
    assert plan.size == size
    assert plan.cells == cells
    assert plan.tokens == size[0] * size[1] // 256
    assert plan.layout == ("row" if stitch == "row" else "column")


@pytest.mark.parametrize(
    ("sources", "layout"),
    [
        ([(512, 512)] * 2, "row"),  # 2 to 1 and 1 to 2 are as near
        ([(512, 512)] * 4, "row"),
        ([(300, 451)] * 2, "row"),
        ([(451, 300)] * 2, "column"),
        ([(300, 451)] * 4, "row"),
    ],
)
def test_auto_takes_the_layout_nearer_to_square(sources: list, layout: str) -> None:
    plan = plan_stitch(plans_of(*sources), "auto")
    assert plan is not None
    assert plan.layout == layout


def test_tokens_of_two_photographs_apart_and_stitched() -> None:
    plans = plans_of(WOMAN, CAT)
    assert reference_token_count(plans, "off") == 4096 + 4056
    assert reference_token_count(plans, "row") == 4000
    assert reference_token_count(plans, "auto") == 4018
    assert reference_token_count(plans[:1], "auto") == 4096
    assert reference_token_count([], "row") == 0


def test_nothing_is_stitched_where_it_is_off_or_alone() -> None:
    references = [decode_reference(woman(), "image1"), decode_reference(cat(), "image2")]
    plans = plans_of(WOMAN, CAT)
    assert plan_stitch(plans, "off") is None
    assert plan_stitch(plans[:1], "row") is None
    assert apply_stitch(references, plans, "off") == (references, plans)
    assert apply_stitch(references[1:], plans[1:], "auto") == (references[1:], plans[1:])


def test_each_picture_is_resampled_once_from_its_own_pixels() -> None:
    references = [decode_reference(woman(), "image1"), decode_reference(cat(), "image2")]
    sized = plan_sizes(references, KontextSettings(), (1024, 1024))
    [stitched], [plan] = apply_stitch(references, sized, "row")
    assert stitched.size == plan.target == plan.resized == (1600, 640)
    assert plan.crop == (0, 0, 1600, 640)
    cat_cell = cat().resize((960, 640), Image.Resampling.LANCZOS, box=sized[1].crop)
    assert stitched.image.crop((640, 0, 1600, 640)).tobytes() == cat_cell.tobytes()
    woman_cell = woman().resize((640, 640), Image.Resampling.LANCZOS)
    assert stitched.image.crop((0, 0, 640, 640)).tobytes() == woman_cell.tobytes()


def test_it_is_a_reference_of_its_own() -> None:
    references = [plain(WOMAN, "red", 3, "#808080"), plain(CAT, "blue", 4, "#808080")]
    plans = plans_of(WOMAN, CAT)
    [stitched], _ = apply_stitch(references, plans, "row")
    [swapped], _ = apply_stitch(references[::-1], plans[::-1], "row")
    assert (stitched.name, stitched.background) == ("image3", "#808080")
    assert stitched.digest == content_digest(stitched.image)
    assert stitched.digest != swapped.digest
    assert stitched.image.getpixel((639, 320)) == (255, 0, 0)
    assert stitched.image.getpixel((640, 320)) == (0, 0, 255)


def test_fit_inside_output_keeps_its_padding() -> None:
    references = [plain((512, 512), "red"), plain((512, 256), "blue", 2, "#ff8000")]
    plans = plans_of((512, 512), (512, 256), sizing="fit inside output", output=(512, 512))
    plan = plan_stitch(plans, "row")
    assert plan is not None
    assert plan.size == (704, 352)
    picture = np.asarray(stitch_references(references, plans, plan).image)
    assert (picture[:, :352] == (255, 0, 0)).all()
    assert (picture[:88, 352:] == (255, 128, 0)).all()
    assert (picture[88:264, 352:] == (0, 0, 255)).all()
    assert (picture[264:, 352:] == (255, 128, 0)).all()


@pytest.mark.parametrize(
    ("sources", "stitch", "words"),
    [
        ([(32, 16)] * 2, "row", ["in a row", "under 16 pixels", "column"]),
        ([(1600, 160)] * 3, "row", ["in a row", "more than 20 times"]),
        ([(160, 1600)] * 3, "column", ["in a column", "more than 20 times", "a row"]),
        ([(400, 20), (20, 400)], "row", ["picture 2", "under 16"]),
        ([(16, 16)] * 4, "auto", ["under 16"]),
    ],
)
def test_what_cannot_be_stitched_is_refused(sources: list, stitch: str, words: list) -> None:
    plans = plans_of(*sources, sizing="no change")
    with pytest.raises(KontextError) as refused:
        plan_stitch(plans, stitch)
    assert refused.value.field == "stitch"
    for word in words:
        assert word in str(refused.value)


SOURCES = st.lists(st.tuples(st.integers(16, 900), st.integers(16, 900)), min_size=2, max_size=4)


@settings(max_examples=120, deadline=None)
@given(SOURCES, st.sampled_from(SIZINGS), st.sampled_from(["row", "column", "auto"]), st.integers(4, 80))
def test_the_plan_is_what_happens_and_within_bounds(sources: list, sizing: str, stitch: str, side: int) -> None:
    output = (side * 16, 512)
    try:
        plans: list[SizePlan] = plans_of(*sources, sizing=sizing, output=output)
        plan = plan_stitch(plans, stitch)
    except KontextError:
        return
    assert plan is not None
    width, height = plan.size
    assert width % 16 == height % 16 == 0
    assert 16 * 16 <= width * height <= plans[0].target[0] * plans[0].target[1]
    assert max(width, height) <= 20 * min(width, height)
    assert reference_token_count(plans, stitch) == plan.tokens == width * height // 256
    assert sum((right - left) * (bottom - top) for left, top, right, bottom in plan.cells) == width * height
    references = [plain(source, "red", number) for number, source in enumerate(sources, 1)]
    stitched = stitch_references(references, plans, plan)
    assert stitched.size == plan.size
    assert apply_size(stitched.image, plan.size_plan) is stitched.image
    for one, (left, top, right, bottom) in zip(plans, plan.cells, strict=True):
        stretch = (right - left) / (bottom - top) / (one.target[0] / one.target[1])
        # A token's side at most in the longer side of the whole, and a pixel where two cells meet.
        along = right - left if plan.layout == "row" else bottom - top
        assert abs(np.log(stretch)) <= -np.log(1 - min(0.99, 1 / along + 16 / max(plan.size)))
