"""URLs, as far as Forge's own settings allow them; everything else is the core's to decode."""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException

from lib_fluxkontext.errors import KontextError


def open_source(source: Any, name: str) -> Any:
    """Fetch ``source`` if it is a URL, else hand it on.

    Raises:
        KontextError: Forge forbids requests (or requests to this address), or what came is no image. Forge's own
            decoder answers both with status 500, though it is the request that is wrong.
    """
    if isinstance(source, str) and source.lower().endswith(".svg"):  # what gradio hands on for an SVG is its path
        raise KontextError("an SVG is a drawing, not pixels; save it as PNG first", name)
    if not isinstance(source, str) or not source.lower().startswith(("http://", "https://")):
        return source
    from modules.api.api import decode_base64_to_image

    try:
        return decode_base64_to_image(source)
    except HTTPException as error:
        raise KontextError(f"{error.detail} ({source[:80]})", name) from None
    except Exception as error:
        raise KontextError(f"could not be fetched: {type(error).__name__} ({source[:80]})", name) from None
