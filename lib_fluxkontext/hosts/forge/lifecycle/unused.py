"""References that come with a request while the extension is off: Forge would drop them without a word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lib_fluxkontext.settings import IMAGE_FIELDS, by_name

NOTE = 'Flux Kontext is off: its references were not used. Tick the panel\'s box (API: "enabled": true) to use them.'
LABEL = "Kontext note"
"""In the API's ``info`` alone."""


def has_unused_references(p: object, arguments: Sequence[Any]) -> bool:
    """Whether the extension is off while the request has a reference that is not muted.

    Args:
        p: Forge's processing object.
        arguments: the script's.
    """
    given = by_name(arguments)
    if given.get("enabled"):
        return False
    if given.get("init_image_as_reference") and getattr(p, "init_images", None):
        return True
    return any(not _is_empty(given.get(name)) and not given.get(f"mute_{name}") for name in IMAGE_FIELDS)


def _is_empty(image: object) -> bool:
    return image is None or (isinstance(image, str) and not image.strip())
