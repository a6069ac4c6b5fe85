"""The latest report of each tab, for the panel to fetch."""

from __future__ import annotations

from typing import Any

from lib_fluxkontext.report.generation import GenerationReport

_latest: dict[str, GenerationReport] = {}


def tab_of(p: Any) -> str:
    """``"img2img"`` if ``p`` starts from a picture, else ``"txt2img"``."""
    return "img2img" if hasattr(p, "init_images") else "txt2img"


def keep(p: Any, report: GenerationReport) -> None:
    """Make this the tab's latest."""
    _latest[tab_of(p)] = report


def get(tab: str) -> GenerationReport | None:
    """The tab's latest report, or None before the first."""
    return _latest.get(tab)
