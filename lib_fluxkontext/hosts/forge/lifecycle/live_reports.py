"""The latest report of each tab, and the generation that runs, for the panel to fetch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakMethod

from lib_fluxkontext.telemetry.records import GenerationReport

SoFar = Callable[[], tuple[GenerationReport, int] | None]

_latest: dict[str, GenerationReport] = {}
_running: dict[str, tuple[WeakMethod[SoFar], ...]] = {}
"""Innermost last: another extension may run a generation inside one. Weak, since one that fails says no goodbye."""


def tab_of(p: Any) -> str:
    """``"img2img"`` if ``p`` starts from a picture, else ``"txt2img"``."""
    return "img2img" if hasattr(p, "init_images") else "txt2img"


def keep(p: Any, report: GenerationReport) -> None:
    """Make this the tab's latest."""
    _latest[tab_of(p)] = report


def watch(p: Any, so_far: SoFar) -> None:
    """From now on this bound method tells how the tab's generation goes."""
    unwatch(p, so_far)
    _running[tab_of(p)] += (WeakMethod(so_far),)


def unwatch(p: Any, so_far: SoFar) -> None:
    """It tells no more; the generation that it ran inside of, if any, tells again."""
    tab = tab_of(p)
    _running[tab] = tuple(one for one in _running.get(tab, ()) if one() not in (None, so_far))


def running(tab: str) -> tuple[GenerationReport, int] | None:
    """How the tab's generation goes and how many steps it has, or None between generations."""
    for one in reversed(_running.get(tab, ())):
        so_far = one()
        if so_far is not None:
            return so_far()
    return None


def get(tab: str) -> GenerationReport | None:
    """The tab's latest report, or None before the first."""
    return _latest.get(tab)
