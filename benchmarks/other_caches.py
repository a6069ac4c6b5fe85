"""Other libraries' caches around a pipeline, at settings that mean what this project's mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

Counts = dict[str, int]
"""``computed`` counts the runs of the last block, for a library that does not report its own."""


@contextmanager
def diffusers_cache(pipeline: Any, threshold: float) -> Iterator[Counts]:
    """diffusers' First Block Cache hook."""
    from diffusers.hooks import FirstBlockCacheConfig

    transformer = pipeline.transformer
    with _counted(transformer) as counts:
        transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
        try:
            with transformer.cache_context("cond"):
                yield counts
        finally:
            transformer.disable_cache()


@contextmanager
def cache_dit_cache(pipeline: Any, threshold: float, taylor: bool = False) -> Iterator[Counts]:
    """cache-dit's DBCache: one block in front, one warm-up step and no limits, as in First Block Cache.

    Args:
        pipeline: diffusers'. What cache-dit leaves on it does not go with other caches.
        threshold: of the residual's relative change.
        taylor: with its TaylorSeer of first order.
    """
    import cache_dit

    config = cache_dit.DBCacheConfig(
        Fn_compute_blocks=1,
        Bn_compute_blocks=0,
        residual_diff_threshold=threshold,
        max_warmup_steps=1,
        max_cached_steps=-1,
        max_continuous_cached_steps=-1,
    )
    calibrator = cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=1) if taylor else None
    with _counted(pipeline.transformer) as counts:
        cache_dit.enable_cache(pipeline, cache_config=config, calibrator_config=calibrator)
        try:
            yield counts
        finally:
            cache_dit.disable_cache(pipeline)


@contextmanager
def _counted(transformer: Any) -> Iterator[Counts]:
    counts = {"computed": 0}

    def count(*_: object) -> None:
        counts["computed"] += 1

    handle = transformer.single_transformer_blocks[-1].attn.register_forward_hook(count)
    try:
        yield counts
    finally:
        handle.remove()
