"""Sizing: the plan is what the user is shown, so it must be what is done."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.images.sizing import BFL_SIZES, apply_size, nearest_bfl_size, plan_size
from lib_fluxkontext.settings import SIZINGS

SIDES = st.integers(16, 1200)


def test_the_table_has_seventeen_sizes_of_about_a_megapixel() -> None:
    assert len(set(BFL_SIZES)) == 17
    assert all(width % 16 == height % 16 == 0 for width, height in BFL_SIZES)
    assert all(abs(width * height / 2**20 - 1) < 0.02 for width, height in BFL_SIZES)
    assert {(height, width) for width, height in BFL_SIZES} == set(BFL_SIZES)


@pytest.mark.parametrize(
    ("source", "target"),
    [((512, 512), (1024, 1024)), ((451, 300), (1248, 832)), ((300, 451), (832, 1248)), ((4000, 100), (1568, 672))],
)
def test_the_nearest_by_aspect_ratio(source: tuple[int, int], target: tuple[int, int]) -> None:
    assert nearest_bfl_size(*source) == target


def test_the_crop_is_centred_and_counted() -> None:
    plan = plan_size((200, 100), "to output", False, (512, 512), "image1")
    assert plan.crop == (50, 0, 150, 100)
    assert plan.removed == (50, 0, 50, 0)
    assert plan.removed_share == pytest.approx(0.5)


def test_fit_inside_pads_and_never_crops() -> None:
    plan = plan_size((200, 100), "fit inside output", False, (512, 512), "image1")
    image = apply_size(Image.new("RGB", (200, 100), (0, 0, 0)), plan)
    assert plan.removed_share == 0
    assert image.size == (512, 512)
    assert image.getpixel((256, 10)) == (255, 255, 255)
    assert image.getpixel((256, 256)) == (0, 0, 0)
    assert image.getpixel((0, 256)) == (0, 0, 0)
    assert apply_size(image.resize((200, 100)), plan, "#ff8000").getpixel((256, 10)) == (255, 128, 0)


def test_no_change_keeps_every_pixel() -> None:
    image = Image.effect_noise((123, 77), 80).convert("RGB")
    plan = plan_size(image.size, "no change", False, (512, 512), "image1")
    assert apply_size(image, plan).tobytes() == image.tobytes()


def test_half_size_comes_after_sizing() -> None:
    assert plan_size((512, 512), "to BFL recommended", True, (64, 64), "image1").target == (512, 512)


@pytest.mark.parametrize(
    ("source", "sizing", "half", "output"),
    [
        ((16, 16), "no change", True, (512, 512)),
        ((300, 16), "fit inside output", False, (64, 64)),
        ((6000, 6000), "no change", False, (512, 512)),
    ],
)
def test_what_cannot_be_encoded_is_refused_by_name(source: tuple, sizing: str, half: bool, output: tuple) -> None:
    with pytest.raises(KontextError, match=r"^image2: .*" + sizing):
        plan_size(source, sizing, half, output, "image2")


@settings(max_examples=150, deadline=None)
@given(SIDES, SIDES, st.sampled_from(SIZINGS), st.booleans(), st.integers(8, 128), st.integers(8, 128))
def test_the_plan_is_what_happens(width: int, height: int, sizing: str, half: bool, w8: int, h8: int) -> None:
    try:
        plan = plan_size((width, height), sizing, half, (w8 * 8, h8 * 8), "image1")
    except KontextError:
        return
    assert apply_size(Image.new("RGB", (width, height)), plan).size == plan.target
    left, top, right, bottom = plan.crop
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert abs(plan.removed[0] - plan.removed[2]) <= 1
    assert abs(plan.removed[1] - plan.removed[3]) <= 1
    if sizing == "fit inside output":
        assert plan.removed_share == 0
        stretch = (plan.resized[0] / width) / (plan.resized[1] / height)
        assert abs(stretch - 1) <= 1 / min(plan.resized)
