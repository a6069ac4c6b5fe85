"""How a result lies against its reference: photographs moved by known amounts, edited, and others altogether."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from skimage import data

from lib_fluxkontext.images.decode import decode_reference
from lib_fluxkontext.images.match import Match, align, estimate_match
from lib_fluxkontext.images.pair import LONGEST_SIDE, picture_pair
from lib_fluxkontext.images.sizing import apply_size, plan_size
from lib_fluxkontext.presentation.comparison import match_line, match_words
from lib_fluxkontext.settings import KontextSettings
from tests.support.photos import cat, square, woman

WITHIN_PIXELS, WITHIN_SCALE = 0.5, 0.002


def coffee() -> Image.Image:
    return Image.fromarray(data.coffee())


def cameraman() -> Image.Image:
    return Image.fromarray(data.camera()).convert("RGB")


PHOTOS = {"woman": woman, "cat": cat, "coffee": coffee, "cameraman": cameraman}


def moved(image: Image.Image, right: float, down: float, scale: float) -> Image.Image:
    """Draw a picture larger around its centre, and further right and down; what lies beyond it is black."""
    width, height = image.size
    left, top = (width - (width + 2 * right) / scale) / 2, (height - (height + 2 * down) / scale) / 2
    affine = (1 / scale, 0, left, 0, 1 / scale, top)
    return image.transform(image.size, Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)


def with_a_third_replaced(image: Image.Image) -> Image.Image:
    width, height = image.size
    edited = image.copy()
    edited.paste(Image.fromarray(data.rocket()).resize((width // 3, height)), (width - width // 3, 0))
    return edited


def recoloured(image: Image.Image) -> Image.Image:
    red, green, blue = image.split()
    return ImageEnhance.Brightness(Image.merge("RGB", (blue, red, green))).enhance(0.6)


def noisy_jpeg(image: Image.Image) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, 12, (image.height, image.width, 3))
    buffer = io.BytesIO()
    Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=60)
    return Image.open(buffer).convert("RGB")


def everything(image: Image.Image) -> Image.Image:
    return noisy_jpeg(recoloured(with_a_third_replaced(image)))


def difference(first: Image.Image, second: Image.Image) -> float:
    """Return the mean absolute difference in 1/255, away from the border."""
    values = [np.asarray(image.convert("RGB"), dtype=float)[40:-40, 40:-40] for image in (first, second)]
    return float(np.abs(values[0] - values[1]).mean())


@pytest.mark.parametrize("photo", PHOTOS)
@pytest.mark.parametrize(
    "edited",
    [lambda image: image, with_a_third_replaced, recoloured, noisy_jpeg, everything],
    ids=["as it is", "a third replaced", "recoloured", "noise and JPEG", "everything"],
)
@pytest.mark.parametrize(("right", "down", "scale"), [(2, 0, 1.006), (-12, 9, 0.97)])
def test_shift_and_scale_are_found(
    photo: str, edited: Callable[[Image.Image], Image.Image], right: float, down: float, scale: float
) -> None:
    reference = PHOTOS[photo]()
    match = estimate_match(reference, edited(moved(reference, right, down, scale)))
    assert match is not None
    assert match.right == pytest.approx(right, abs=WITHIN_PIXELS)
    assert match.down == pytest.approx(down, abs=WITHIN_PIXELS)
    assert match.scale == pytest.approx(scale, abs=WITHIN_SCALE)


@pytest.mark.parametrize(("right", "down", "scale"), [(0.4, -0.7, 1.0), (10, 20, 0.92), (-40, 30, 1.08)])
def test_small_and_large_movements_are_found(right: float, down: float, scale: float) -> None:
    match = estimate_match(woman(), moved(woman(), right, down, scale))
    assert match is not None
    assert (match.right, match.down) == pytest.approx((right, down), abs=WITHIN_PIXELS)
    assert match.scale == pytest.approx(scale, abs=WITHIN_SCALE)


@pytest.mark.parametrize("side", [1536, 200, 96])
def test_pixels_are_those_of_the_result_whatever_its_size(side: int) -> None:
    reference = woman().resize((side, side), Image.Resampling.LANCZOS)
    match = estimate_match(woman(), moved(reference, 3, -2, 1.01))
    assert match is not None
    assert (match.right, match.down) == pytest.approx((3, -2), abs=WITHIN_PIXELS)
    assert match.scale == pytest.approx(1.01, abs=WITHIN_SCALE)


@pytest.mark.parametrize("photo", PHOTOS)
def test_the_same_picture_is_aligned(photo: str) -> None:
    match = estimate_match(PHOTOS[photo](), recoloured(PHOTOS[photo]()))
    assert match is not None
    assert match.is_aligned
    assert match.confidence > 0.9


@pytest.mark.parametrize("side", [512, 96])
def test_different_photographs_have_no_match(side: int) -> None:
    pictures = [square(photo(), side) for photo in PHOTOS.values()]
    claims = [
        (one, other)
        for one, first in enumerate(pictures)
        for other, second in enumerate(pictures)
        if one != other and estimate_match(first, second) is not None
    ]
    assert claims == []


def test_a_picture_of_another_shape_a_flat_one_and_a_tiny_one_have_no_match() -> None:
    flat = Image.new("RGB", (512, 512), "red")
    tiny = woman().resize((64, 64))
    assert estimate_match(woman(), cat()) is None
    assert estimate_match(woman(), woman().crop((0, 0, 512, 470))) is None
    assert estimate_match(flat, flat) is None
    assert estimate_match(woman(), flat) is None
    assert estimate_match(flat, woman()) is None
    assert estimate_match(tiny, tiny) is None


def test_a_mirrored_or_turned_picture_has_no_match() -> None:
    assert estimate_match(woman(), woman().transpose(Image.Transpose.FLIP_LEFT_RIGHT)) is None
    assert estimate_match(woman(), woman().rotate(90)) is None


def test_without_scikit_image_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.registration", None)
    assert estimate_match(woman(), woman()) is None


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_an_aligned_picture_lies_on_the_reference(mode: str) -> None:
    result = moved(woman(), 7, -4, 1.02).convert(mode)
    match = estimate_match(woman(), result)
    assert match is not None
    assert not match.is_aligned
    aligned = align(result, match)
    assert (aligned.size, aligned.mode) == (result.size, "RGB" if mode == "L" else mode)
    again = estimate_match(woman(), aligned)
    assert again is not None
    assert again.is_aligned
    reference = woman().convert(mode)
    assert difference(aligned, reference) < 0.2 * difference(result, reference)


def test_the_empty_border_repeats_the_outermost_pixels() -> None:
    columns = np.zeros((100, 200, 3), np.uint8)
    columns[:, :] = [0, 0, 200]
    columns[:, -1] = [200, 0, 0]
    aligned = align(Image.fromarray(columns), Match(right=30, down=0, scale=1.0, confidence=1.0))
    assert np.array_equal(np.asarray(aligned)[:, 169:], np.broadcast_to([200, 0, 0], (100, 31, 3)))
    assert np.array_equal(np.asarray(aligned)[:, :168], np.broadcast_to([0, 0, 200], (100, 168, 3)))


@pytest.mark.parametrize(
    ("match", "words"),
    [
        (Match(2.04, 0.3, 1.0061, 1.0), "2 px right, 0.6 % larger"),
        (Match(-1.5, 3.0, 0.98, 1.0), "1.5 px left, 3 px down, 2 % smaller"),
        (Match(0.0, -12.0, 1.0, 1.0), "12 px up"),
        (Match(0.49, -0.49, 1.0009, 1.0), "aligned to half a pixel"),
    ],
)
def test_it_is_told_in_words(match: Match, words: str) -> None:
    assert match_words(match) == words
    assert f"Result against Reference 1: {words}" in match_line(match, "Reference 1")
    assert match.is_aligned == words.startswith("aligned")


def test_no_match_is_not_told() -> None:
    assert match_line(None, "Reference 1") == ""


@pytest.mark.parametrize("sizing", ["to output", "to BFL recommended", "fit inside output"])
def test_a_pair_is_small_and_its_reference_sized_as_for_the_generation(sizing: str) -> None:
    reference = decode_reference(cat().resize((1804, 1200)), "image1")
    plan = plan_size(reference.size, sizing, False, (2048, 2048), "image1")
    result = moved(apply_size(reference.image, plan), 8, 0, 1.0)
    pair = picture_pair(reference, KontextSettings(sizing=sizing, half_size=True), result)
    assert max(pair.result.size) == max(pair.reference.size) == LONGEST_SIDE
    assert (pair.result_size, pair.label) == (result.size, "Reference 1")
    match = pair.estimate()
    assert match is not None
    padding = 1.0 if sizing == "fit inside output" else 0.0  # in whole pixels of the smaller picture
    assert match.right == pytest.approx(8, abs=WITHIN_PIXELS)
    assert match.down == pytest.approx(0, abs=WITHIN_PIXELS + padding)
    assert match.scale == pytest.approx(1.0, abs=WITHIN_SCALE)
