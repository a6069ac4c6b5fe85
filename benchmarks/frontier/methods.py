"""What is compared: every method is a context around one call of ``generate``, with settings of ours."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.other_caches import Counts, cache_dit_cache, diffusers_cache
from lib_fluxkontext.settings import KontextSettings

UNCACHED = "uncached"
PLAIN = "First Block Cache"
FORECAST = "First Block Cache, forecast"
CORRECTED = "First Block Cache, forecast, correction"
REUSE = "reference reuse"
REUSE_CORRECTED = "reference reuse, correction"
BOTH = "both"
BOTH_CORRECTED = "both, correction"
DIFFUSERS = "diffusers' First Block Cache"
CACHE_DIT = "cache-dit DBCache"
CACHE_DIT_TAYLOR = "cache-dit DBCache, TaylorSeer"

OURS = (PLAIN, FORECAST, CORRECTED, REUSE, REUSE_CORRECTED, BOTH, BOTH_CORRECTED)
LIBRARIES = ("this project", "diffusers", "cache-dit")
OTHERS = (DIFFUSERS, CACHE_DIT, CACHE_DIT_TAYLOR)


@dataclass(frozen=True)
class Method:
    """One setting of one family.

    Attributes:
        family: a curve of the plot.
        label: the setting.
        settings: of this project's host; other caches run under it with ours off.
        library: whose pipeline it needs; what a library leaves on one must not meet another.
        around: hooks another cache on the pipeline, for one picture, and counts.
    """

    family: str
    label: str
    settings: KontextSettings
    library: str
    around: Callable[[Any], AbstractContextManager[Counts | None]]


THRESHOLDS = (0.08, 0.14, 0.2, 0.3)


def methods(references: int) -> list[Method]:
    """All that are compared; reference reuse only where there are references."""
    found = [_ours(UNCACHED, "–", cache=False)]
    found += [_ours(PLAIN, f"{t:g}", cache_threshold=t, cache_forecast=False) for t in (0.05, *THRESHOLDS)]
    found += [_ours(FORECAST, f"{t:g}", cache_threshold=t) for t in THRESHOLDS]
    found += [_ours(CORRECTED, f"{t:g}", cache_threshold=t, cache_correct=True) for t in THRESHOLDS]
    if references:
        found += [_ours(REUSE, f"every {n}", cache=False, reference_refresh=n) for n in (2, 4, 8)]
        found += [
            _ours(REUSE_CORRECTED, f"every {n}", cache=False, reference_refresh=n, cache_correct=True) for n in (2, 4)
        ]
        found += [_both(BOTH, *setting) for setting in BOTH_SETTINGS]
        found += [_both(BOTH_CORRECTED, *setting, cache_correct=True) for setting in BOTH_CORRECTED_SETTINGS]
    off = KontextSettings(sizing="no change", cache=False)
    found += [Method(DIFFUSERS, f"{t:g}", off, "diffusers", partial(diffusers_cache, threshold=t)) for t in THRESHOLDS]
    found += [Method(CACHE_DIT, f"{t:g}", off, "cache-dit", partial(cache_dit_cache, threshold=t)) for t in THRESHOLDS]
    found += [
        Method(CACHE_DIT_TAYLOR, f"{t:g}", off, "cache-dit", partial(cache_dit_cache, threshold=t, taylor=True))
        for t in THRESHOLDS
    ]
    return found


BOTH_SETTINGS = ((0.08, 2, 0), (0.14, 2, 0), (0.14, 4, 0), (0.2, 1, 0), (0.2, 3, 0), (0.25, 4, 6))
"""Threshold, refresh, longest run of reused steps."""

BOTH_CORRECTED_SETTINGS = (
    (0.08, 1, 0),
    (0.14, 1, 0),
    (0.14, 2, 0),
    (0.2, 1, 0),
    (0.25, 1, 0),
    (0.25, 4, 6),
    (0.3, 1, 0),
    (0.3, 4, 6),
)


def _both(family: str, threshold: float, refresh: int, run: int, **settings: Any) -> Method:
    label = f"{threshold:g}, every {refresh}" + (f", run ≤ {run}" if run else "")
    caches = {"cache_threshold": threshold, "reference_refresh": refresh, "cache_max_consecutive": run}
    return _ours(family, label, **caches, **settings)


def _ours(family: str, label: str, **settings: Any) -> Method:
    asked = KontextSettings(sizing="no change", **settings)
    return Method(family, label, asked, "this project", lambda pipeline: nullcontext())
