"""Pictures as text, in the form that Forge's API takes and returns."""

from __future__ import annotations

import base64
import io

from PIL import Image


def encode_image(image: Image.Image) -> str:
    """Encode a picture as base64 PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def decode_image(text: str) -> Image.Image:
    """Decode base64, with or without a data URI's head."""
    image = Image.open(io.BytesIO(base64.b64decode(text.split(",", 1)[-1])))
    image.load()
    return image
