"""What lies outside a mask stays bit for bit; the feather lies inside it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from lib_fluxkontext.images.composite import keep_outside, keep_overlay, result_weights

NOISE = np.random.default_rng(3)
MASKS = arrays.arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24)))


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(NOISE.integers(0, 256, (height, width, 3), dtype=np.uint8))


def rectangle(size: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    left, top, right, bottom = box
    inside = np.zeros(size[::-1], bool)
    inside[top:bottom, left:right] = True
    return inside


def mask_of(inside: np.ndarray) -> Image.Image:
    return Image.fromarray(inside.astype(np.uint8) * 255)


def distance_by_definition(inside: np.ndarray) -> np.ndarray:
    """Measure from every pixel to every pixel outside."""
    outside = np.argwhere(~inside)
    every = np.argwhere(np.ones_like(inside))
    return np.sqrt(((every[:, None] - outside[None]) ** 2).sum(-1)).min(1).reshape(inside.shape)


@given(MASKS, st.integers(0, 12))
def test_every_pixel_outside_is_the_original_and_the_deepest_inside_is_the_result(
    grey: np.ndarray, feather: int
) -> None:
    original, result = noise(*grey.shape[::-1]), noise(*grey.shape[::-1])
    kept = np.asarray(keep_outside(original, result, Image.fromarray(grey), feather))
    outside = grey <= 128
    assert np.array_equal(kept[outside], np.asarray(original)[outside])
    deepest = result_weights(~outside, feather) == 1
    assert deepest.any() == (~outside).any()
    assert np.array_equal(kept[deepest], np.asarray(result)[deepest])


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_all_values_of_a_channel_survive_compositing(mode: str) -> None:
    values = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    original = Image.fromarray(values)
    for below in (0, 1, 127, 255):
        result = Image.new("RGB", original.size, (below,) * 3).convert(mode)
        nothing = keep_outside(original, result, Image.new("L", original.size, 0), 4)
        assert np.array_equal(np.asarray(nothing), values)
        everything = keep_outside(result.convert("RGB"), original, Image.new("L", original.size, 255), 4)
        assert np.array_equal(np.asarray(everything), values)


def test_without_feather_the_edge_is_hard() -> None:
    inside = rectangle((40, 30), (10, 5, 30, 20))
    original, result = noise(40, 30), noise(40, 30)
    kept = np.asarray(keep_outside(original, result, mask_of(inside), 0))
    assert np.array_equal(kept, np.where(inside[..., None], np.asarray(result), np.asarray(original)))


@pytest.mark.parametrize("feather", [1, 4, 9])
def test_the_feather_is_as_wide_as_asked_for_and_inside(feather: int) -> None:
    weights = result_weights(rectangle((120, 90), (20, 15, 100, 75)), feather)
    across = weights[45, 20:60]
    steps = np.minimum(np.arange(1, 41) / (feather + 1), 1)
    assert np.allclose(across, steps)
    assert np.allclose(weights[45, 100 - 40 : 100][::-1], steps)
    assert not weights[45, :20].any()
    assert not weights[45, 100:].any()


def test_weights_follow_the_euclidean_distance() -> None:
    inside = NOISE.random((33, 41)) > 0.02
    inside[8:24, 10:30] = True
    weights = result_weights(inside, 3)
    expected = np.minimum(distance_by_definition(inside), 4)
    wide = np.zeros_like(inside)
    wide[12:20, 14:26] = True  # the depth of 4 is near, so nothing counts as thin
    assert np.allclose(weights[wide], expected[wide] / 4)


def test_a_thin_stroke_shows_the_result_in_its_middle() -> None:
    weights = result_weights(rectangle((80, 40), (5, 18, 75, 21)), 16)  # three pixels
    assert np.allclose(weights[19, 25:55], 1)
    assert np.allclose(weights[18, 25:55], 0.5)


def test_the_pictures_border_is_no_edge_of_the_mask() -> None:
    weights = result_weights(rectangle((50, 40), (0, 0, 25, 40)), 5)
    assert np.allclose(weights[:, :19], 1)
    assert (result_weights(np.ones((12, 9), bool), 5) == 1).all()


def test_grey_counts_as_inside_from_129() -> None:
    original, result = noise(2, 1), noise(2, 1)
    kept = np.asarray(keep_outside(original, result, Image.fromarray(np.array([[128, 129]], np.uint8)), 0))
    assert np.array_equal(kept[0, 0], np.asarray(original)[0, 0])
    assert np.array_equal(kept[0, 1], np.asarray(result)[0, 1])


def test_other_sizes_are_an_error_and_the_arguments_stay_as_they_were() -> None:
    original, mask = noise(8, 8), mask_of(rectangle((8, 8), (2, 2, 6, 6)))
    before = original.tobytes()
    assert keep_overlay(original, mask, 2).mode == "RGBA"
    assert (original.mode, original.tobytes()) == ("RGB", before)
    with pytest.raises(ValueError, match="8, 8"):
        keep_overlay(original, mask.resize((4, 4)), 2)
    with pytest.raises(ValueError, match=r"match|size"):
        keep_outside(original, noise(4, 4), mask, 2)
