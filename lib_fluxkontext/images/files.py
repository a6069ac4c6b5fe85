"""References as files: reading them, and the pictures of a folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.images.decode import Reference, decode_reference

CHANGED = "the file is another one than when the manifest was read; start again to make what it is now"

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"})
"""In lower case; what is taken of a folder. A file that is named can have any other."""


def read_reference(path: Path, name: str) -> Reference:
    """Read and decode one reference.

    Args:
        path: of the file.
        name: the setting it came from.

    Raises:
        KontextError: the file cannot be read, or as ``decode_reference``.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(error, name) from None
    return decode_reference(data, name)


def read_unchanged(path: Path, digest: str, name: str) -> bytes:
    """Read a file that was read before.

    Args:
        path: of the file.
        digest: SHA-256 of what it was, in hexadecimal.
        name: the setting it came from.

    Raises:
        KontextError: the file cannot be read, or is another one now.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(error, name) from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise KontextError(CHANGED, name)
    return data


def unreadable(error: OSError, name: str) -> KontextError:
    """Return the error for a file that the system does not let us read."""
    return KontextError((error.strerror or "cannot be read").lower(), name)


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures in a folder, not in those below it, in ``file_order``; hidden files are none.

    Raises:
        OSError: the folder cannot be read.
    """
    return sorted((file for file in folder.iterdir() if is_picture(file.name)), key=file_order)


def file_order(path: Path | str) -> str:
    """Return what files are sorted by: the path as it is written, or a folder and a glob would pair other pictures on
    Windows, whose ``Path`` objects are compared without regard to case."""
    return str(path)


def is_picture(name: str) -> bool:
    """Whether a file's name says that it is a picture, and not what macOS leaves beside one (``._a.jpg``)."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
