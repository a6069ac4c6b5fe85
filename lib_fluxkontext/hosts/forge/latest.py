"""The latest report of each tab, and the generation that runs, for the panel to fetch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lib_fluxkontext.report.generation import GenerationReport

SoFar = Callable[[], tuple[GenerationReport, int] | None]

_latest: dict[str, GenerationReport] = {}
_running: dict[str, SoFar] = {}


def tab_of(p: Any) -> str:
    """``"img2img"`` if ``p`` starts from a picture, else ``"txt2img"``."""
    return "img2img" if hasattr(p, "init_images") else "txt2img"


def keep(p: Any, report: GenerationReport) -> None:
    """Make this the tab's latest."""
    _latest[tab_of(p)] = report


def watch(p: Any, so_far: SoFar | None) -> None:
    """From now on ``so_far`` tells how the tab's generation goes; None: nothing runs."""
    if so_far is None:
        _running.pop(tab_of(p), None)
    else:
        _running[tab_of(p)] = so_far


def running(tab: str) -> tuple[GenerationReport, int] | None:
    """How the tab's generation goes and how many steps it has, or None between generations."""
    so_far = _running.get(tab)
    return so_far() if so_far is not None else None


def get(tab: str) -> GenerationReport | None:
    """The tab's latest report, or None before the first."""
    return _latest.get(tab)
