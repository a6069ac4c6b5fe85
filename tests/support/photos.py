"""Two real photographs, a woman and a cat, as scikit-image ships them."""

from __future__ import annotations

from functools import cache

from PIL import Image
from skimage import data

from tests.support.images import encode_image


@cache
def woman() -> Image.Image:
    """``data.astronaut()``: 512×512."""
    return Image.fromarray(data.astronaut())


@cache
def cat() -> Image.Image:
    """``data.chelsea()``: 451×300."""
    return Image.fromarray(data.chelsea())


@cache
def woman_base64() -> str:
    """The woman as the API takes her."""
    return encode_image(woman())


@cache
def cat_base64() -> str:
    """The cat as the API takes it."""
    return encode_image(cat())
