"""The cache that the settings ask for."""

from __future__ import annotations

from lib_fluxkontext.cache.first_block import CacheConfig, FirstBlockCache
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
        )
    )
