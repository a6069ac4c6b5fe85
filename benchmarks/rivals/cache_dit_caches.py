"""cache-dit 1.5.3: DBCache, alone or with one of its calibrators.

It hooks the pipeline, too: a context is for one call of it. It decides for a batch as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from benchmarks.rivals.counting import counted, restored
from benchmarks.rivals.work import Work

Calibrator = Literal["taylorseer", "foca", "dmd"]


@contextmanager
def db_cache(
    pipeline: Any,
    *,
    threshold: float,
    calibrator: Calibrator | None = None,
    order: int = 1,
    front_blocks: int = 1,
    back_blocks: int = 0,
    warmup_steps: int = 1,
    max_consecutive: int = -1,
) -> Iterator[Work]:
    """DBCache; the defaults are those of First Block Cache: one block in front, one warm-up step and no limits.

    Args:
        pipeline: diffusers'.
        threshold: of the front blocks' relative residual change; 0 computes everything.
        calibrator: forecasts residuals instead of repeating the last: ``"taylorseer"`` (arXiv:2503.06923), ``"foca"``
            (Forecast then Calibrate, arXiv:2508.16211) or ``"dmd"`` (dynamic mode decomposition); as cache-dit ships
            them.
        order: of TaylorSeer's expansion.
        front_blocks: computed in every step; cache-dit's own default is 8. ``Work.evaluations`` leaves them out.
        back_blocks: likewise, at the end. With one or more, ``Work.evaluations`` counts every step.
        warmup_steps: first steps, always computed.
        max_consecutive: longest run of reused steps; −1 sets no limit.
    """
    import cache_dit

    config = cache_dit.DBCacheConfig(
        Fn_compute_blocks=front_blocks,
        Bn_compute_blocks=back_blocks,
        residual_diff_threshold=threshold,
        max_warmup_steps=warmup_steps,
        max_cached_steps=-1,
        max_continuous_cached_steps=max_consecutive,
    )
    transformer = pipeline.transformer
    with restored(transformer):
        cache_dit.enable_cache(pipeline, cache_config=config, calibrator_config=_calibrator_config(calibrator, order))
        try:
            with counted(transformer) as work:
                yield work
        finally:
            cache_dit.disable_cache(pipeline)


def _calibrator_config(calibrator: Calibrator | None, order: int) -> Any:
    import cache_dit

    match calibrator:
        case None:
            return None
        case "taylorseer":
            return cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=order)
        case "foca":
            return cache_dit.FoCaCalibratorConfig()
        case "dmd":
            return cache_dit.DMDCalibratorConfig()
