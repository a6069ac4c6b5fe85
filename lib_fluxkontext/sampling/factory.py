"""The caches that the settings ask for."""

from __future__ import annotations

from dataclasses import dataclass

from lib_fluxkontext.caching.correction import Correction
from lib_fluxkontext.caching.first_block import CacheConfig, FirstBlockCache
from lib_fluxkontext.caching.kv_store import KeptLayers, KeptUse, Place
from lib_fluxkontext.caching.reference_kv import ReferenceReuse, ReuseConfig
from lib_fluxkontext.settings import KontextSettings


@dataclass(frozen=True)
class Caches:
    """What one sampling pass keeps between its steps.

    Attributes:
        cache: First Block Cache; None computes every step.
        reuse: keeps the references' keys and values, or None.
        correction: makes up for what the two got wrong, or None.
    """

    cache: FirstBlockCache | None = None
    reuse: ReferenceReuse | None = None
    correction: Correction | None = None

    @property
    def notes(self) -> list[str]:
        """What the user should know."""
        return self.reuse.notes if self.reuse is not None else []

    def finish(self) -> KeptUse | None:
        """Sampling is over: forget everything, and say what was kept of the references."""
        for state in (self.cache, self.correction):
            if state is not None:
                state.clear()
        return self.reuse.finish() if self.reuse is not None else None


def caches_for(settings: KontextSettings, references: bool, place: Place = "device", float8: bool = False) -> Caches:
    """Fresh ones for one sampling pass; nothing is hooked for what is off.

    Args:
        settings: what the user asked for.
        references: whether there are any.
        place: where their keys and values are kept.
        float8: whether in 8 bits.
    """
    cache = reuse = None
    if settings.cache_active:
        cache = FirstBlockCache(
            CacheConfig(
                threshold=settings.cache_threshold,
                warmup_steps=settings.cache_warmup_steps,
                max_consecutive=settings.cache_max_consecutive,
                compute_last=settings.cache_compute_last,
                forecast=settings.cache_forecast,
            )
        )
    if settings.reuse_active and references:
        config = ReuseConfig(settings.reference_refresh, settings.cache_compute_last)
        reuse = ReferenceReuse(config, KeptLayers(place, float8))
    return Caches(cache, reuse, Correction() if settings.cache_correct and (cache or reuse) else None)
