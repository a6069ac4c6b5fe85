"""The picture that a refused cell of a plot shows: its reason, whole, and as large as it fits."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFont

from lib_fluxkontext.hosts.forge.lifecycle.reason_picture import INK, SMALLEST, reason_picture
from lib_fluxkontext.images.wrapped_text import wrapped

REASON = "Flux Kontext: image1: 3300×2500 is more than 8,000,000 pixels; choose another size"


def font_of(pixels: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(pixels)


def test_lines_break_between_words_and_keep_them_all() -> None:
    lines = wrapped(REASON, 20, len)
    assert " ".join(lines) == REASON
    assert max(map(len, lines)) <= 20


def test_a_word_that_is_too_long_is_broken() -> None:
    assert wrapped("a Hyper-FLUX.1-dev b", 6, len) == ["a", "Hyper-", "FLUX.1", "-dev b"]
    assert wrapped("abc", 0, len) == ["a", "b", "c"]
    assert wrapped("", 6, len) == []


@pytest.mark.parametrize("size", [(64, 64), (256, 192), (1024, 1024), (200, 900)])
def test_the_reason_is_written_inside_the_picture(size: tuple[int, int]) -> None:
    picture = reason_picture(REASON, size, font_of)
    assert picture.size == size
    colours = np.asarray(picture).reshape(-1, 3)
    inked = (colours != 255).any(axis=1).reshape(size[::-1])
    assert inked.mean() > 0.01
    assert not inked[:, -1].any()
    if min(size) > 64:  # so much text has no room on less
        assert not inked[-2:].any()
    if min(size) > 200:  # small letters are all edges, which are paler
        assert (colours == Image.new("RGB", (1, 1), INK).getpixel((0, 0))).all(axis=1).any()


def test_the_font_shrinks_where_the_text_would_not_fit() -> None:
    asked: list[int] = []

    def noted(pixels: int) -> ImageFont.FreeTypeFont:
        asked.append(pixels)
        return font_of(pixels)

    reason_picture(REASON * 4, (256, 128), noted)
    assert asked[0] > asked[-1] >= SMALLEST
