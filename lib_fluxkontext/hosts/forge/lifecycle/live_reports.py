"""The last report of each tab, and the sampling under way, for the panel to fetch."""

from __future__ import annotations

import weakref

from lib_fluxkontext.sampling.session import SamplingSession
from lib_fluxkontext.telemetry.records import GenerationReport

_last: dict[str, GenerationReport] = {}
_running: dict[str, tuple[weakref.ref[SamplingSession], ...]] = {}
"""Innermost last: another extension may run a generation inside one. Weak, so that none outlives its generation."""


def tab_of(p: object) -> str:
    """``"img2img"`` if ``p`` starts from an image, else ``"txt2img"``."""
    return "img2img" if hasattr(p, "init_images") else "txt2img"


def publish(tab: str, report: GenerationReport) -> None:
    """Make this the tab's last report."""
    _last[tab] = report


def watch(tab: str, session: SamplingSession) -> None:
    """Let this session tell how the tab's generation goes, until it is closed."""
    _running[tab] = (*_open_sessions(tab), weakref.ref(session))


def live_report(tab: str) -> tuple[GenerationReport, int] | None:
    """Return how the tab's sampling goes and how many steps it will have, or None between generations."""
    for reference in reversed(_running.get(tab, ())):
        session = reference()
        if session is not None and not session.closed:
            snapshot = session.snapshot()
            return GenerationReport((snapshot.report,), snapshot.memory), snapshot.total_steps
    return None


def last_report(tab: str) -> GenerationReport | None:
    """Return the tab's last report, or None before the first."""
    return _last.get(tab)


def _open_sessions(tab: str) -> tuple[weakref.ref[SamplingSession], ...]:
    references = _running.get(tab, ())
    return tuple(found for found in references if (session := found()) is not None and not session.closed)
