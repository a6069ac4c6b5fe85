"""Pictures inside of HTML."""

from __future__ import annotations

import base64
import io

from PIL import Image


def jpeg_uri(image: Image.Image, quality: int) -> str:
    """Encode an RGB image as a data URI.

    Args:
        image: 8-bit RGB.
        quality: of the JPEG, 1 to 95.
    """
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return data_uri(buffer.getvalue(), "jpeg")


def data_uri(content: bytes, kind: str) -> str:
    """Return an encoded image as a data URI.

    Args:
        content: of the file.
        kind: ``"jpeg"`` or ``"png"``.
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
