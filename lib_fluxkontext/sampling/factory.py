"""Settings → caches."""

from __future__ import annotations

from lib_fluxkontext.caching.caches import Caches
from lib_fluxkontext.caching.correction import Correction
from lib_fluxkontext.caching.first_block import FirstBlockCache, FirstBlockConfig
from lib_fluxkontext.caching.kv_store import KVStore, Place
from lib_fluxkontext.caching.reference_kv import ReferenceKVCache, ReferenceKVConfig
from lib_fluxkontext.settings import KontextSettings


def build_caches(settings: KontextSettings, has_references: bool, place: Place = "device") -> Caches:
    """Build fresh caches for one sampling; what is off is None, and nothing is hooked for it.

    Args:
        settings: what the user asked for.
        has_references: whether the sampling has any.
        place: where the references' keys and values are stored.
    """
    first_block = reference_kv = None
    if settings.cache_active:
        first_block = FirstBlockCache(
            FirstBlockConfig(
                threshold=settings.cache_threshold,
                warmup_steps=settings.cache_warmup_steps,
                max_consecutive=settings.cache_max_consecutive,
                compute_last=settings.cache_compute_last,
                forecast=settings.cache_forecast,
            )
        )
    if settings.reuse_active and has_references:
        reference_kv = ReferenceKVCache(reference_kv_config(settings), KVStore(place))
    corrects = settings.cache_correct and (first_block is not None or reference_kv is not None)
    return Caches(first_block, reference_kv, Correction() if corrects else None)


def reference_kv_config(settings: KontextSettings) -> ReferenceKVConfig:
    """When the references run, where ``settings.reuse_active``."""
    return ReferenceKVConfig(settings.reference_refresh, settings.cache_compute_last)
