"""This project's methods: each is a setting of a family, and a family is a curve of the plot.

Every family, this project's and the others' (``rival_methods``), has a ladder of candidates, and the same procedure
picks those that are compared (``tuning``).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from benchmarks.frontier.calibration import UNCACHED_SETTINGS, Calibration
from benchmarks.rivals.work import Work
from lib_fluxkontext.settings import PRESETS, KontextSettings

UNCACHED = "uncached"
PRESET = "preset"
PLAIN = "First Block Cache"
FORECAST = "First Block Cache, forecast"
CORRECTED = "First Block Cache, forecast, correction"
BOTH = "both"
BOTH_CORRECTED = "both, correction"

OURS = (PRESET, PLAIN, FORECAST, CORRECTED, BOTH, BOTH_CORRECTED)

BEST_OF_OURS = (BOTH_CORRECTED,)
"""Compared under every sampler."""

Rival = Callable[[Any, Calibration], AbstractContextManager[Work]]


@dataclass(frozen=True)
class Method:
    """One setting of one family.

    Attributes:
        family: a curve of the plot.
        label: the setting.
        settings: of this project's host; other caches run under it with ours off.
        rival: hooks another cache on a pipeline, for one picture, and counts; None for this project's own.
    """

    family: str
    label: str
    settings: KontextSettings
    rival: Rival | None = None


@dataclass(frozen=True)
class Family:
    """Settings of one kind.

    Attributes:
        name: as in ``Method.family``.
        candidates: of which those are compared that ``tuning.choose`` picks.
        fixed: compared in any case.
    """

    name: str
    candidates: tuple[Method, ...] = ()
    fixed: tuple[Method, ...] = ()


THRESHOLDS = (0.06, 0.1, 0.14, 0.2, 0.28, 0.4, 0.6)
REFRESHES = (1, 3)
"""Reference reuse of *both*: 1 runs the references in every step that is computed."""

SPREAD_THRESHOLDS, LONGEST_RUN = (0.2, 0.24, 0.28), 6
"""Thresholds that compute few steps, tried with a limit on the steps reused in a row as well, which spreads them."""

UNCACHED_METHOD = Method(UNCACHED, "–", UNCACHED_SETTINGS)


def our_families(references: int) -> list[Family]:
    """All of this project's; reference reuse only where there are references."""
    found = [
        Family(PRESET, fixed=presets()),
        _thresholds(PLAIN, cache_forecast=False),
        _thresholds(FORECAST),
        _with_spread(_thresholds(CORRECTED, cache_correct=True), cache_correct=True),
    ]
    if references:
        corrected = _both(BOTH_CORRECTED, cache_correct=True)
        found += [_both(BOTH), _with_spread(corrected, cache_correct=True, reference_refresh=1)]
    return found


def presets() -> tuple[Method, ...]:
    """Every preset that reuses anything."""
    made = [_ours(PRESET, name, **values) for name, values in PRESETS.items()]
    return tuple(method for method in made if method.settings.cache_active or method.settings.reuse_active)


def _thresholds(family: str, **settings: Any) -> Family:
    return Family(family, tuple(_ours(family, f"{t:g}", cache_threshold=t, **settings) for t in THRESHOLDS))


def _both(family: str, **settings: Any) -> Family:
    return Family(
        family,
        tuple(
            _ours(family, f"{t:g}, every {refresh}", cache_threshold=t, reference_refresh=refresh, **settings)
            for t in THRESHOLDS
            for refresh in REFRESHES
        ),
    )


def _with_spread(family: Family, **settings: Any) -> Family:
    """Add candidates with a limit on the steps reused in a row, the last step computed or not."""
    spread = tuple(
        _ours(
            family.name,
            f"{t:g}, reuses ≤ {LONGEST_RUN}{', last computed' if last else ''}",
            cache_threshold=t,
            cache_max_consecutive=LONGEST_RUN,
            cache_compute_last=last,
            **settings,
        )
        for t in SPREAD_THRESHOLDS
        for last in (False, True)
    )
    return Family(family.name, family.candidates + spread)


def _ours(family: str, label: str, **settings: Any) -> Method:
    return Method(family, label, KontextSettings(sizing="to output", **settings))
