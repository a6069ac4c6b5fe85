"""Other caches' candidates: the settings that their authors give, and a ladder around them that spans the costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from typing import Any

from benchmarks.frontier.calibration import UNCACHED_SETTINGS, Calibration
from benchmarks.frontier.conditions import Condition
from benchmarks.frontier.methods import Family, Method, Rival
from benchmarks.rivals.cache_dit_caches import Calibrator, db_cache
from benchmarks.rivals.diffusers_caches import first_block_cache, mag_cache, sea_cache, taylorseer
from benchmarks.rivals.easycache import easycache
from benchmarks.rivals.region_e import region_e
from benchmarks.rivals.region_e_schedule import RegionESettings
from benchmarks.rivals.spectrum import spectrum
from benchmarks.rivals.spectrum_forecast import AUTHORS, NEO, SpectrumSettings
from benchmarks.rivals.teacache import teacache
from benchmarks.rivals.work import Work

DIFFUSERS = "diffusers' First Block Cache"
MAG_CACHE = "MagCache"
SEA_CACHE = "SeaCache"
TAYLORSEER = "TaylorSeer"
CACHE_DIT = "cache-dit DBCache"
CACHE_DIT_CALIBRATED: dict[str, Calibrator] = {
    "cache-dit DBCache, TaylorSeer": "taylorseer",
    "cache-dit DBCache, FoCa": "foca",
    "cache-dit DBCache, DMD": "dmd",
}
TEACACHE = "TeaCache"
EASYCACHE = "EasyCache"
SPECTRUM = "Spectrum"
REGION_E = "RegionE"

OTHERS = (
    DIFFUSERS,
    MAG_CACHE,
    SEA_CACHE,
    TAYLORSEER,
    CACHE_DIT,
    *CACHE_DIT_CALIBRATED,
    TEACACHE,
    EASYCACHE,
    SPECTRUM,
    REGION_E,
)

BEST_KNOWN = (MAG_CACHE, "cache-dit DBCache, TaylorSeer", TEACACHE, SPECTRUM)
"""Compared under every sampler."""

THRESHOLDS = (0.05, 0.08, 0.12, 0.2, 0.3, 0.45, 0.7)
"""Of relative change of first blocks."""

ACCUMULATED = (0.03, 0.06, 0.12, 0.24, 0.4, 0.7, 1.2)
"""Of change that is summed over steps."""


TAYLOR_SETTINGS = ((2, 3), (3, 3), (4, 3), (5, 3), (5, 2), (6, 2), (8, 2))
"""Interval, and first steps that are computed: diffusers' 3, or 2 so that it gets below 6 of 20."""


def rival_families(condition: Condition) -> list[Family]:
    """All that can run: RegionE needs a reference and Euler's steps."""
    found = [
        Family(DIFFUSERS, tuple(_first_block(t) for t in THRESHOLDS)),
        Family(MAG_CACHE, tuple(_mag_cache(*one) for one in product(ACCUMULATED, ((3, 0.2), (8, 0.1))))),
        Family(SEA_CACHE, tuple(_sea_cache(t) for t in ACCUMULATED)),
        Family(TAYLORSEER, tuple(_taylorseer(*one) for one in product((1, 2), TAYLOR_SETTINGS))),
        Family(CACHE_DIT, tuple(_db_cache(CACHE_DIT, t, None) for t in THRESHOLDS)),
        *(
            Family(name, tuple(_db_cache(name, t, calibrator) for t in THRESHOLDS))
            for name, calibrator in CACHE_DIT_CALIBRATED.items()
        ),
        Family(TEACACHE, tuple(_teacache(t) for t in ACCUMULATED)),
        Family(EASYCACHE, tuple(_easycache(t) for t in ACCUMULATED)),
        Family(SPECTRUM, _spectrum_ladder(), (_spectrum("authors'", AUTHORS), _spectrum("Forge Neo's", NEO))),
    ]
    if condition.references and condition.sampler == "euler":
        found.append(Family(REGION_E, _region_e_ladder(condition.steps), (_region_e_authors(condition.steps),)))
    return found


def _method(family: str, label: str, rival: Rival) -> Method:
    return Method(family, label, UNCACHED_SETTINGS, rival)


def _first_block(threshold: float) -> Method:
    return _method(DIFFUSERS, f"{threshold:g}", lambda pipeline, run: first_block_cache(pipeline, threshold=threshold))


def _mag_cache(threshold: float, limits: tuple[int, float]) -> Method:
    skips, retained = limits

    def rival(pipeline: Any, run: Calibration) -> Any:
        options: dict[str, Any] = {"threshold": threshold, "max_skip_steps": skips, "retention_ratio": retained}
        return mag_cache(pipeline, run.calls, ratios=run.ratios, **options)

    return _method(MAG_CACHE, f"{threshold:g}, skips ≤ {skips}, first {retained:.0%}", rival)


def _sea_cache(threshold: float) -> Method:
    """Without a longest run: diffusers' 2 would keep it above 7 evaluations of 20."""

    def rival(pipeline: Any, run: Calibration) -> Any:
        return sea_cache(pipeline, run.grid, run.calls, threshold=threshold, max_consecutive=0)

    return _method(SEA_CACHE, f"{threshold:g}", rival)


def _taylorseer(order: int, setting: tuple[int, int]) -> Method:
    interval, warmup = setting
    label = f"order {order}, interval {interval}, warm-up {warmup}"
    options: dict[str, Any] = {"order": order, "interval": interval, "warmup_steps": warmup}
    return _method(TAYLORSEER, label, lambda pipeline, run: taylorseer(pipeline, **options))


def _db_cache(family: str, threshold: float, calibrator: Calibrator | None) -> Method:
    return _method(
        family,
        f"{threshold:g}",
        lambda pipeline, run: db_cache(pipeline, threshold=threshold, calibrator=calibrator),
    )


def _teacache(threshold: float) -> Method:
    def rival(pipeline: Any, run: Calibration) -> Any:
        return teacache(pipeline, run.grid, run.calls, threshold=threshold, coefficients=run.coefficients)

    return _method(TEACACHE, f"{threshold:g}", rival)


def _easycache(threshold: float) -> Method:
    """With the shortest warm-up that it can have."""

    def rival(pipeline: Any, run: Calibration) -> Any:
        return easycache(pipeline, run.grid, run.calls, threshold=threshold, warmup_steps=2)

    return _method(EASYCACHE, f"{threshold:g}", rival)


def _spectrum(label: str, settings: SpectrumSettings) -> Method:
    return _method(SPECTRUM, label, lambda pipeline, run: spectrum(pipeline, run.grid, run.calls, settings=settings))


def _spectrum_ladder() -> tuple[Method, ...]:
    """Both forecasts with shorter warm-ups and longer windows than their authors'."""
    made = []
    for (name, base), window, warmup in product((("authors'", AUTHORS), ("Neo's", NEO)), (2, 4, 7), (2, 3)):
        settings = replace(base, window=window, warmup_steps=warmup, stop=1.0)
        made.append(_spectrum(f"{name}, window {window}, warm-up {warmup}", settings))
    return tuple(made)


def _region_e_authors(steps: int) -> Method:
    return _region_e("authors'", RegionESettings.scaled(steps))


def _region_e_ladder(steps: int) -> tuple[Method, ...]:
    made = []
    for first, threshold, decay in product((2, 3, 5), (0.9, 0.97), (0.04, 0.12)):
        full = ((first + steps) // 2,) if first > 2 else ()
        settings = RegionESettings(first, 1, full, threshold, decay_threshold=decay)
        label = f"{threshold:g}, first {first}, refreshed {len(full)}×, decay ≤ {decay:g}"
        made.append(_region_e(label, settings))
    return tuple(made)


def _region_e(label: str, settings: RegionESettings) -> Method:
    """With the velocity decay that was fitted to the model at hand."""

    @contextmanager
    def rival(pipeline: Any, run: Calibration) -> Iterator[Work]:
        with region_e(pipeline, run.grid, run.steps, replace(settings, decay=run.decay)) as work:
            yield work

    return _method(REGION_E, label, rival)
