"""Requests with Forge Neo's own references, by its built-in extension ImageStitch."""

from __future__ import annotations

from typing import Any

from tests.support.forge_server import ForgeServer, Result
from tests.support.images import encode_image
from tests.support.payloads import TITLE
from tests.support.photos import cat, woman

TITLES = ("ImageStitch Integrated", "多图参考")
"""What the extension is called; the second in a tree with Chinese texts."""


def stitched(
    neo: ForgeServer, settings: dict[str, Any] | None, init_image: bool = False, side: int | None = None, **payload: Any
) -> Result:
    """Generate with two pictures in ImageStitch, which must succeed.

    Args:
        neo: with a checkpoint that Neo takes for Kontext.
        settings: of the extension; None leaves it out of the request.
        init_image: with one picture, and an init image.
        side: make the pictures square, of so many pixels.
        payload: more of the request.
    """
    _, scripts = neo.get("/sdapi/v1/scripts")
    known = [script.lower() for script in scripts["img2img"]]
    title = next(name for name in TITLES if name.lower() in known)
    pictures = [cat()] if init_image else [cat(), woman()]
    if side is not None:
        pictures = [picture.resize((side, side)) for picture in pictures]
    arguments = {title: {"args": [True, [encode_image(picture) for picture in pictures], 0]}}
    if settings is not None:
        arguments[TITLE] = {"args": [{"enabled": True, **settings}]}
    request = {"alwayson_scripts": arguments, **payload}
    result = neo.img2img(woman(), denoising_strength=1.0, **request) if init_image else neo.txt2img(**request)
    assert result.status == 200, result.reply
    return result
