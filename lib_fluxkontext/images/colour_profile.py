"""Embedded colour profiles → sRGB, which the model was trained on: phones save photographs in Display P3."""

from __future__ import annotations

import io

from PIL import Image

MAX_PROFILE_BYTES = 4 * 2**20
"""A larger profile is not read. RGB profiles have some hundred bytes, those of printing presses up to 3 MB."""

_SPACES = {"RGB": "RGB ", "CMYK": "CMYK", "L": "GRAY"}
"""Mode → the colour space that its profile has to have (ICC.1, table 19)."""


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert an image with a colour profile to sRGB, by LittleCMS through Pillow, relative colorimetric.

    An image that is sRGB already comes back as it is, bit for bit; so does one with 16 bits, without a profile, with
    one that is damaged, too large or for another mode, or where Pillow was built without LittleCMS.

    Args:
        image: upright, of any mode; transparency is kept.
    """
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not 0 < len(profile) <= MAX_PROFILE_BYTES:
        return image
    try:
        from PIL import ImageCms
    except ImportError:
        return image
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    alpha = image.getchannel("A") if image.mode in ("RGBA", "LA") else None
    colours = image.convert(image.mode.removesuffix("A")) if alpha is not None else image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != _SPACES.get(colours.mode) or _is_srgb(source.profile.profile_description):
            return image
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        srgb = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(colours, source, srgb, renderingIntent=intent, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    if converted is None:  # only where asked to convert in place
        return image
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def _is_srgb(description: str | None) -> bool:
    return (description or "").lower().startswith("srgb")
