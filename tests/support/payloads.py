"""Requests to the extension, and the parts of their results that tests compare."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.support.forge_server import ForgeServer, Result
from tests.support.photos import cat_base64, woman_base64

TITLE = "Flux Kontext"
HOOKS = "Small Flux Test Hooks"
"""The test-only script that fails, interrupts and counts on request."""

WITHIN = 1.0
"""Mean difference in 1/255 up to which pictures are the same: in a batch, arithmetic may round differently."""


def two_references(**more: Any) -> dict[str, Any]:
    """Return settings with both photographs at the output's size, the cache off unless asked for."""
    base = {"enabled": True, "image1": woman_base64(), "image2": cat_base64(), "sizing": "to output", "cache": False}
    return base | more


def script_args(**by_title: Any) -> dict[str, Any]:
    """Return the part of a request that gives scripts, by title, an argument each."""
    return {"alwayson_scripts": {title: {"args": [argument]} for title, argument in by_title.items()}}


def kontext(*arguments: Any, **scripts: Any) -> dict[str, Any]:
    """Return the part of a request that gives the extension its arguments and other scripts, by title, one each."""
    return {"alwayson_scripts": {TITLE: {"args": list(arguments)}, **script_args(**scripts)["alwayson_scripts"]}}


def made(server: ForgeServer, settings: dict[str, Any] | None = None, **payload: Any) -> Result:
    """Generate by txt2img, which must succeed; with ``settings`` None the extension is not in the request."""
    result = server.txt2img(**(kontext(settings) if settings is not None else {}), **payload)
    assert result.status == 200, result.reply
    return result


def pixels(result: Result, index: int = 0) -> np.ndarray:
    """Return a picture as (H, W, 3) int."""
    assert result.status == 200, result.reply
    return np.asarray(result.images[index]).astype(int)


def difference(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean absolute difference in 1/255."""
    assert first.shape == second.shape
    return float(np.abs(first - second).mean())


def report(result: Result) -> dict[str, Any]:
    """Return the report in the API's ``info``."""
    return result.info["extra_generation_params"]["Kontext report"]


def first_pass(result: Result) -> dict[str, Any]:
    """Return the report of the first sampling."""
    return report(result)["passes"][0]


def step_kinds(result: Result) -> list[str]:
    """Return the kind of each step of the first sampling: computed, kept, reused or mixed."""
    return [step["kind"] for step in first_pass(result)["steps"]]
