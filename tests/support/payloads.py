"""Requests to the extension, and what came back, as tests want to compare them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.support.forge_server import ForgeServer, Result
from tests.support.photos import cat_base64, woman_base64

TITLE = "Flux Kontext"
HOOKS = "Small Flux Test Hooks"
"""The test-only script that fails, interrupts and counts on request."""

WITHIN = 1.0
"""Mean difference in 1/255 that counts as the same picture where a batch's arithmetic may round differently."""


def two_references(**more: Any) -> dict[str, Any]:
    """Both photographs at the output's size; cache off unless asked."""
    base = {"enabled": True, "image1": woman_base64(), "image2": cat_base64(), "sizing": "to output", "cache": False}
    return base | more


def kontext(*arguments: Any, **others: dict) -> dict[str, Any]:
    """``alwayson_scripts`` with the extension's arguments, and other scripts' by title."""
    scripts = {TITLE: {"args": list(arguments)}}
    return {"alwayson_scripts": scripts | {title: {"args": [args]} for title, args in others.items()}}


def made(server: ForgeServer, settings: dict[str, Any] | None = None, **payload: Any) -> Result:
    """A txt2img that must succeed; ``settings`` None leaves the extension out of the request."""
    result = server.txt2img(**(kontext(settings) if settings is not None else {}), **payload)
    assert result.status == 200, result.reply
    return result


def pixels(result: Result, index: int = 0) -> np.ndarray:
    """One picture as H×W×3 int."""
    assert result.status == 200, result.reply
    return np.asarray(result.images[index]).astype(int)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference in 1/255."""
    assert one.shape == other.shape
    return float(np.abs(one - other).mean())


def report(result: Result) -> dict[str, Any]:
    """The report in the API's ``info``."""
    return result.info["extra_generation_params"]["Kontext report"]
