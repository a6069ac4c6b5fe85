"""Decode whatever a user drops or posts to 8-bit RGB: nothing is clipped, no hidden colour shows."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
from dataclasses import dataclass
from functools import cache
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError

from lib_fluxkontext.errors import KontextError, first_line
from lib_fluxkontext.geometry import TOKEN_SIDE
from lib_fluxkontext.images.colour_profile import to_srgb
from lib_fluxkontext.settings import KontextSettings, describe

MIN_SIDE = TOKEN_SIDE
"""Pixels: a smaller image makes no whole token."""

MAX_PIXELS = 64_000_000
"""Decoded pixels, a 64-megapixel photograph. More is a decompression bomb rather than a reference."""

MAX_RATIO = 20.0
"""Longer side over shorter. Beyond it every sizing mode crops almost everything or shrinks it to nothing."""

WHITE = "#ffffff"
"""Default background of transparent images."""

MAX_REASON = 80
"""Characters of a decoder's own message that are quoted."""

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "ICO", "PPM", "TGA")
"""What people use for photographs, in Pillow's names; of several frames the first. Nothing else is opened: EPS would
start Ghostscript, and a new plugin of Pillow's would widen what a stranger's request can reach."""

_TIFF_WIDTH, _TIFF_HEIGHT, _ORIENTATION = 256, 257, 274
"""Tags of TIFF, of which EXIF is one."""

_QUARTER_TURNS = (5, 6, 7, 8)
"""Orientations that swap width and height."""

_DATA_URI = re.compile(r"^data:[^,]*,", re.IGNORECASE)


@dataclass(frozen=True)
class Reference:
    """One decoded reference.

    Attributes:
        image: 8-bit RGB, upright.
        digest: first 12 hex digits of SHA-256 over size and pixels: the same picture has the same digest
            whatever file it came in.
        name: the setting it came from, for messages (``"image1"``).
        background: ``"#rrggbb"`` that transparency was flattened on; padding has the same colour.
    """

    image: Image.Image
    digest: str
    name: str
    background: str = WHITE

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.size


def decode_reference(source: object, name: str, background: str = WHITE) -> Reference:
    """Decode one reference.

    Args:
        source: a Pillow image, a numpy array (H×W, H×W×3 or H×W×4, uint8), encoded bytes, base64 or a data URI.
        name: the setting it came from.
        background: ``"#rrggbb"`` that transparency is flattened on.

    Raises:
        KontextError: undecodable or truncated data, a side under ``MIN_SIDE``, a ratio over ``MAX_RATIO``, more
            than ``MAX_PIXELS`` pixels, or a type that holds no image.
    """
    image = _open(source, name)
    _check_size(image, name)
    try:
        image.load()
        rgb = to_rgb(image, background)
    except MemoryError:
        raise
    except Exception as error:  # on damaged input Pillow's decoders raise exceptions of any type
        raise KontextError(f"the image is truncated or damaged ({first_line(error, MAX_REASON)})", name) from None
    return Reference(rgb, content_digest(rgb), name, background)


def read_size(file: BinaryIO, name: str) -> tuple[int, int]:
    """Read width and height from an image file's header: those that the decoded reference will have.

    The pixels are not decoded, so a file that ends too early, or is damaged behind its header, is not noticed.

    Args:
        file: opened for reading, at its start.
        name: the setting it came from.

    Raises:
        KontextError: no image that can be opened, or one beyond the limits of ``decode_reference``.
    """
    image = _open_file(file, name)
    _check_size(image, name)
    try:
        return _upright_size(image)
    except MemoryError:
        raise
    except Exception as error:  # as in ``decode_reference``
        raise KontextError(f"the image is truncated or damaged ({first_line(error, MAX_REASON)})", name) from None


def content_digest(rgb: Image.Image) -> str:
    """Return the first 12 hex digits of SHA-256 over ``b"WxH"`` and the RGB bytes."""
    return hashlib.sha256(b"%dx%d" % rgb.size + rgb.tobytes()).hexdigest()[:12]


def colour(value: object) -> str:
    """Normalise a colour to ``"#rrggbb"``; takes what Pillow takes: ``"#FFF"``, ``"red"``, ``"rgb(255, 0, 0)"``.

    Raises:
        ValueError: not a colour.
    """
    if not isinstance(value, str):
        raise ValueError(f"not a colour: {value!r}")
    return "#" + "".join(f"{min(part, 255):02x}" for part in ImageColor.getrgb(value)[:3])


def to_rgb(image: Image.Image, background: str = WHITE) -> Image.Image:
    """Convert to 8-bit RGB: apply orientation and colour profile, flatten transparency, scale 16-bit and float values.

    Alpha is flattened rather than dropped: editors leave colour under transparent pixels, and a plain conversion would
    show it to the model.
    """
    image = to_srgb(ImageOps.exif_transpose(image))
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _grey_to_8_bit(image).convert("RGB")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA") if image.mode != "La" else image.convert("LA").convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, background), rgba).convert("RGB")
    # A copy, so that no file handle or lazy decoder stays alive.
    return image.convert("RGB").copy()


def _grey_to_8_bit(image: Image.Image) -> Image.Image:
    """Scale a 16-bit, 32-bit or float grey image to 8 bits by the range of its type."""
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("pixel values that are not finite")
    maximum = float(values.max())
    if image.mode == "F" and maximum <= 1.0:
        white = 1.0
    elif image.mode == "F" and maximum <= 255.0:
        white = 255.0
    else:
        white = max(65535.0, maximum)
    return Image.fromarray(np.rint(values.clip(0, white) * (255.0 / white)).astype(np.uint8), "L")


def _open(source: object, name: str) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        try:
            return Image.fromarray(source)
        except (TypeError, ValueError, KeyError) as error:
            raise KontextError(f"the array is not an image ({first_line(error, MAX_REASON)})", name) from None
    if isinstance(source, str):
        source = _decode_base64(source, name)
    if not isinstance(source, (bytes, bytearray)):
        allowed = KontextSettings.model_fields["image1"].description
        raise KontextError(f"got {describe(source)}; allowed: {allowed}", name)
    return _open_file(io.BytesIO(source), name)


def _open_file(file: BinaryIO, name: str) -> Image.Image:
    try:
        return Image.open(file, formats=_available_formats())
    except Image.DecompressionBombError:
        raise KontextError(f"more than {MAX_PIXELS:,} pixels", name) from None
    except MemoryError:
        raise
    except Exception as error:
        # Pillow's own sentence names a BytesIO object, which tells a user nothing.
        unknown = isinstance(error, UnidentifiedImageError)
        reason = f"none of {', '.join(_available_formats())}" if unknown else first_line(error, MAX_REASON)
        length = file.seek(0, io.SEEK_END)
        raise KontextError(f"not an image that Pillow can open ({length} bytes; {reason})", name) from None


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height after EXIF orientation, of an image whose pixels are not loaded."""
    tags = getattr(image, "tag_v2", None)
    if tags is not None:  # TIFF: ``size`` is upright already or not, by the version of Pillow
        width, height, orientation = tags[_TIFF_WIDTH], tags[_TIFF_HEIGHT], tags.get(_ORIENTATION)
    else:
        width, height = image.size
        orientation = Image.Image.getexif(image).get(_ORIENTATION)  # PNG's own ``getexif`` would decode the pixels
    return (height, width) if orientation in _QUARTER_TURNS else (width, height)


@cache
def _available_formats() -> tuple[str, ...]:
    """Return those of ``FORMATS`` that this Pillow can open; AVIF is not in every one."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _decode_base64(text: str, name: str) -> bytes:
    if not text.strip():
        raise KontextError("got an empty text; send null where there is no image", name)
    payload = "".join(_DATA_URI.sub("", text.strip(), count=1).split())
    payload += "=" * (-len(payload) % 4)  # many encoders leave the padding out
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise KontextError(f"got {describe(text, 24)}, which is neither base64 nor a data URI", name) from None


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise KontextError(f"{width}×{height} is more than {MAX_PIXELS:,} pixels", name)
    if min(width, height) < MIN_SIDE:
        raise KontextError(f"{width}×{height} has a side under {MIN_SIDE} pixels", name)
    if max(width, height) > MAX_RATIO * min(width, height):
        ratio = max(width, height) / min(width, height)
        raise KontextError(f"{width}×{height} is {ratio:.0f} times longer than wide; at most {MAX_RATIO:.0f}", name)
