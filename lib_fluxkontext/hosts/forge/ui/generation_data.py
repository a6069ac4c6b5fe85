"""The generation data in a picture's file."""

from __future__ import annotations

from PIL import Image

_EXIF, _USER_COMMENT = 0x8769, 0x9286
_ENCODINGS = {b"UNICODE\0": "utf-16-be", b"ASCII\0\0\0": "ascii"}
"""First eight bytes of EXIF's UserComment → how the others are encoded, as Forge writes it."""


def generation_data(image: object) -> str:
    """Return the generation data, or an empty text where there is none or it is damaged.

    Not by Forge's own reader: where it finds none it looks for some hidden in the pixels, one by one, which takes
    minutes for a photograph.

    Args:
        image: Pillow's, with what its file said beside the pixels; anything else has none.
    """
    if not isinstance(image, Image.Image):
        return ""
    data = image.info.get("parameters")
    if isinstance(data, str):
        return data
    try:
        comment = image.getexif().get_ifd(_EXIF).get(_USER_COMMENT)
        if isinstance(comment, bytes):
            return comment[8:].decode(_ENCODINGS[comment[:8]])
    except Exception:  # whatever a stranger's file holds must not keep it from being a reference
        return ""
    return comment if isinstance(comment, str) else ""
