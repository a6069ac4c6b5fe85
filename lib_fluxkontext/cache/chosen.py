"""The caches that the settings ask for."""

from __future__ import annotations

from lib_fluxkontext.cache.first_block import CacheConfig, FirstBlockCache
from lib_fluxkontext.cache.kept_layers import KeptLayers, Place
from lib_fluxkontext.cache.reference_reuse import ReferenceReuse, ReuseConfig
from lib_fluxkontext.settings import KontextSettings


def cache_for(settings: KontextSettings) -> FirstBlockCache | None:
    """A fresh cache for one sampling pass, or None where no step could be reused: then nothing is hooked."""
    if not settings.cache_active:
        return None
    return FirstBlockCache(
        CacheConfig(
            threshold=settings.cache_threshold,
            warmup_steps=settings.cache_warmup_steps,
            max_consecutive=settings.cache_max_consecutive,
            compute_last=settings.cache_compute_last,
            forecast=settings.cache_forecast,
        )
    )


def reuse_for(settings: KontextSettings, place: Place = "device", float8: bool = False) -> ReferenceReuse | None:
    """A fresh reference reuse for one sampling pass with references, or None where it is off.

    Args:
        settings: how often to refresh.
        place: where keys and values are kept.
        float8: whether in 8 bits.
    """
    if not settings.reference_refresh:
        return None
    config = ReuseConfig(settings.reference_refresh, settings.cache_compute_last)
    return ReferenceReuse(config, KeptLayers(place, float8))
