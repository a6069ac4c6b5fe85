"""Two real photographs, a woman and a cat, as scikit-image ships them. The small model was never trained on them."""

from __future__ import annotations

from functools import cache

from PIL import Image
from skimage import data

from tests.support.images import encode_image


@cache
def woman() -> Image.Image:
    """Return ``data.astronaut()``, 512×512."""
    return Image.fromarray(data.astronaut())


@cache
def cat() -> Image.Image:
    """Return ``data.chelsea()``, 451×300."""
    return Image.fromarray(data.chelsea())


@cache
def woman_base64() -> str:
    """Return the woman in the API's form."""
    return encode_image(woman())


@cache
def cat_base64() -> str:
    """Return the cat in the API's form."""
    return encode_image(cat())


def square(image: Image.Image, side: int | None = None) -> Image.Image:
    """Crop the centre square of a picture, and resize it to ``side`` pixels if given."""
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    cropped = image.crop((left, top, left + edge, top + edge))
    return cropped if side is None else cropped.resize((side, side), Image.Resampling.LANCZOS)


def cut_out() -> Image.Image:
    """Return the cat with its left half transparent."""
    image = cat().convert("RGBA")
    image.paste((0, 0, 255, 0), (0, 0, image.width // 2, image.height))
    return image
