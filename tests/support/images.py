"""Pictures in the form that Forge's API takes and gives."""

from __future__ import annotations

import base64
import io

from PIL import Image


def encode_image(image: Image.Image) -> str:
    """A picture in the form the API takes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def decode_image(text: str) -> Image.Image:
    """A picture from the form the API gives."""
    image = Image.open(io.BytesIO(base64.b64decode(text.split(",", 1)[-1])))
    image.load()
    return image
