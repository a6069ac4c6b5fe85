"""The last report of each tab, and the sampling under way, for the panel to fetch."""

from __future__ import annotations

import weakref

from lib_fluxkontext.sampling.session import SamplingSession
from lib_fluxkontext.telemetry.records import GenerationReport
from lib_fluxkontext.telemetry.working_memory import WorkingMemory

_last: dict[str, GenerationReport] = {}
_refusals: dict[str, str] = {}
_last_working_memory: WorkingMemory | None = None

_Running = tuple[weakref.ref[object], weakref.ref[SamplingSession]]

_running: dict[str, tuple[_Running, ...]] = {}
"""Generation and session of each tab, innermost last: another extension may run a generation inside one. Weak, so that
one that failed before its sampler ran is forgotten with its generation; Forge holds the session longer."""


def tab_of(p: object) -> str:
    """``"img2img"`` if ``p`` starts from an image, else ``"txt2img"``."""
    return "img2img" if hasattr(p, "init_images") else "txt2img"


def publish(tab: str, report: GenerationReport) -> None:
    """Make this the tab's last report."""
    global _last_working_memory
    _last[tab] = report
    _refusals.pop(tab, None)
    on_card = [
        one.working_memory for one in report.passes if one.working_memory and one.working_memory.free is not None
    ]
    known = [measured for measured in on_card if measured.used is not None]
    if known or on_card:
        _last_working_memory = (known or on_card)[-1]


def publish_refusal(tab: str, reason: str) -> None:
    """Make it the tab's last report that no picture was made, and why: what the one before measured is over."""
    publish(tab, GenerationReport(notes=(reason,)))
    _refusals[tab] = reason


def watch(tab: str, generation: object, session: SamplingSession) -> None:
    """Follow this session as the tab's running one, until it is closed or its generation is gone."""
    still_running = tuple(running for running in _running.get(tab, ()) if _session_of(running) is not None)
    _running[tab] = (*still_running, (weakref.ref(generation), weakref.ref(session)))


def live_report(tab: str) -> tuple[GenerationReport, int] | None:
    """Return how the tab's sampling goes and how many steps it will have, or None between generations."""
    for running in reversed(_running.get(tab, ())):
        session = _session_of(running)
        if session is not None:
            snapshot = session.snapshot()
            return GenerationReport((snapshot.report,), snapshot.memory), snapshot.total_steps
    return None


def last_working_memory() -> WorkingMemory | None:
    """Return the memory of the last sampling on a card, in whatever tab, or None before the first."""
    return _last_working_memory


def last_report(tab: str) -> GenerationReport | None:
    """Return the tab's last report, or None before the first."""
    return _last.get(tab)


def last_refusal(tab: str) -> str | None:
    """Return why the tab's last generation was refused, or None where it was not."""
    return _refusals.get(tab)


def _session_of(running: _Running) -> SamplingSession | None:
    """Return the session, or None if it is closed or its generation is gone."""
    generation, session = (reference() for reference in running)
    if generation is None or not isinstance(session, SamplingSession) or session.closed:
        return None
    return session
