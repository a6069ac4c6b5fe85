"""A picture that says why there is none: what a refused cell of a plot shows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from PIL import Image, ImageDraw

from lib_fluxkontext.images.wrapped_text import wrapped

PAPER, INK = "#ffffff", "#b91c1c"
LARGEST_SHARE = 14
"""The font is at most so many times smaller than the picture is wide."""

SMALLEST = 9
"""Size of the font in pixels, below which nobody can read it."""

FontOf = Callable[[int], Any]
"""Returns Pillow's font of a size in pixels."""


def reason_picture(reason: str, size: tuple[int, int], font_of: FontOf) -> Image.Image:
    """Write a reason on a picture, as large as it fits.

    Args:
        reason: one line.
        size: width and height in pixels.
        font_of: returns the font.
    """
    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    margin = max(2, min(size) // 24)
    width, height = size[0] - 2 * margin, size[1] - margin
    for pixels in range(max(SMALLEST, size[0] // LARGEST_SHARE), SMALLEST - 1, -1):
        font = font_of(pixels)
        text = "\n".join(wrapped(reason, width, partial(draw.textlength, font=font)))
        if draw.multiline_textbbox((margin, margin), text, font=font)[3] <= height:
            break
    draw.multiline_text((margin, margin), text, fill=INK, font=font)
    return picture
