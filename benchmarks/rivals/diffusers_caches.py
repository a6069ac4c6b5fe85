"""The caches of diffusers 0.42.1 (``diffusers.hooks``) that make a Flux transformer compute less.

A state lives as long as its hook, and some outlive a run (TaylorSeer counts steps on): enter a context anew for each
batch of pictures. All decide for a batch as one.

Four others are left out, because they skip no block of ``FluxTransformer2DModel``:

* TextKV (``text_kv_cache``) hooks ``NucleusMoEImageTransformerBlock`` alone. In Flux the text is changed by every block
  and by the timestep, so its keys and values differ from step to step.
* FasterCache (``faster_cache``) drops the unconditional half of a batch, which guidance-distilled Flux does not have;
  what is left, like
* Pyramid Attention Broadcast (``pyramid_attention_broadcast``), repeats outputs of attention, while MLPs, norms and
  output projections run on. ``taylorseer`` without its lite mode is that with a better forecast.
* ``layer_skip`` leaves layers out in all steps: it is for guidance, and keeps nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

import numpy as np
import torch
from diffusers.hooks.first_block_cache import FirstBlockCacheConfig
from diffusers.hooks.hooks import HookRegistry
from diffusers.hooks.mag_cache import _MAG_CACHE_LEADER_BLOCK_HOOK, MagCacheConfig
from diffusers.hooks.sea_cache import SeaCacheConfig
from diffusers.hooks.taylorseer_cache import TaylorSeerCacheConfig
from torch import Tensor

from benchmarks.rivals.counting import counted, restored
from benchmarks.rivals.flux_parts import Grid, token_count
from benchmarks.rivals.work import Work
from lib_fluxkontext.hooks.adapter import named_arguments
from lib_fluxkontext.hooks.patch import patched_attr

CONTEXT = "cond"
"""Name under which the hooks keep their state; there is one conditioning stream."""


@contextmanager
def first_block_cache(pipeline: Any, *, threshold: float) -> Iterator[Work]:
    """First Block Cache.

    Args:
        pipeline: diffusers'.
        threshold: of the first block's relative residual change, over picture and references.
    """
    with _enabled(pipeline, FirstBlockCacheConfig(threshold=threshold)) as work:
        yield work


@contextmanager
def mag_cache(
    pipeline: Any,
    steps: int,
    *,
    threshold: float,
    ratios: Sequence[float],
    max_skip_steps: int = 3,
    retention_ratio: float = 0.2,
) -> Iterator[Work]:
    """MagCache (arXiv:2506.09045).

    Args:
        pipeline: diffusers'.
        steps: calls of the transformer in the run.
        threshold: of the accumulated error.
        ratios: of the residual's magnitude from step to step, of this model: ``calibrated_ratios``.
        max_skip_steps: longest run of skipped steps; 0 skips none.
        retention_ratio: share of first steps that are always computed.
    """
    config = MagCacheConfig(
        threshold=threshold,
        max_skip_steps=max_skip_steps,
        retention_ratio=retention_ratio,
        num_inference_steps=steps,
        mag_ratios=torch.tensor(list(ratios)),
    )
    with _enabled(pipeline, config) as work:
        yield work


def calibrated_ratios(pipeline: Any, steps: int, runs: Iterable[Callable[[], object]]) -> tuple[float, ...]:
    """Measure MagCache's ratios on this very model, with diffusers' own ``calibrate=True``.

    Args:
        pipeline: diffusers'.
        steps: calls of the transformer in each run.
        runs: each samples one batch on ``pipeline`` without a cache.

    Returns:
        One ratio for each step, means over the runs.

    Raises:
        ValueError: there is no run, or one had another number of steps.
    """
    measured = []
    for run in runs:
        # At the last step the hook prints its ratios and forgets them; one step more is never reached.
        config = MagCacheConfig(calibrate=True, num_inference_steps=steps + 1)
        with _enabled(pipeline, config), _read_ratios(pipeline.transformer) as ratios:
            run()
        if len(ratios) != steps:
            raise ValueError(f"a calibration run called the transformer {len(ratios)} times, not {steps}")
        measured.append(ratios)
    if not measured:
        raise ValueError("no calibration run")
    return tuple(float(ratio) for ratio in np.mean(measured, axis=0))


@contextmanager
def _read_ratios(transformer: Any) -> Iterator[list[float]]:
    """Read the calibration's ratios after each call: at its end, a pipeline resets the hooks' states."""
    original = transformer.forward
    registry = HookRegistry.check_if_exists_or_initialize(transformer.transformer_blocks[0])
    hook: Any = registry.get_hook(_MAG_CACHE_LEADER_BLOCK_HOOK)
    ratios: list[float] = []

    @wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        ratios[:] = hook.state_manager.get_state().calibration_ratios
        return output

    with patched_attr(transformer, "forward", forward):
        yield ratios


@contextmanager
def taylorseer(
    pipeline: Any,
    *,
    interval: int,
    order: int = 1,
    lite: bool = True,
    warmup_steps: int = 3,
    compute_from: int | None = None,
) -> Iterator[Work]:
    """TaylorSeer (arXiv:2503.06923).

    Args:
        pipeline: diffusers'.
        interval: computed is one step of so many; 1 computes all.
        order: of the expansion.
        lite: skip all blocks and forecast the transformer's output; else forecast the attention of each block, and run
            the rest.
        warmup_steps: first steps, always computed.
        compute_from: first of the last steps that are all computed; None forecasts to the end.
    """
    config = TaylorSeerCacheConfig(
        cache_interval=interval,
        disable_cache_before_step=warmup_steps,
        disable_cache_after_step=compute_from,
        max_order=order,
        taylor_factors_dtype=pipeline.transformer.dtype,  # the default, bfloat16, would cost a small model digits
        use_lite_mode=lite,
    )
    with _enabled(pipeline, config) as work:
        yield work


@contextmanager
def sea_cache(
    pipeline: Any,
    picture_tokens: Grid,
    steps: int,
    *,
    threshold: float,
    residual_order: int = 1,
    max_consecutive: int = 2,
    power: float = 3.0,
) -> Iterator[Work]:
    """SeaCache (arXiv:2602.18993), given the picture's latent as a video of one frame.

    Args:
        pipeline: diffusers'.
        picture_tokens: rows and columns of the picture in tokens.
        steps: calls of the transformer in the run; first and last are computed.
        threshold: of the accumulated change of the filtered latent; 0 computes everything.
        residual_order: 0 reuses the last residual, 1 extrapolates from the last two.
        max_consecutive: longest run of reused steps; 0 sets no limit.
        power: exponent of the clean signal's spectrum; diffusers' is 3 for video.
    """
    tokens = token_count(picture_tokens)

    def latents(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        packed = named_arguments(type(module).forward, (module, *args), kwargs)["hidden_states"][:, :tokens]
        return list(unpacked(packed, picture_tokens)[:, :, None].unbind(0))

    config = SeaCacheConfig(
        threshold=threshold,
        residual_order=residual_order,
        max_consecutive_cached=max_consecutive,
        power_exp=power,
        raw_vision_callback=latents,
    )
    transformer = pipeline.transformer
    with _hooked(transformer, config), _step_contexts(transformer, steps), counted(transformer) as work:
        yield work


def unpacked(packed: Tensor, grid: Grid) -> Tensor:
    """Undo Flux's packing of 2×2 latent pixels to a token: (B, rows · columns, 4C) → (B, C, 2 rows, 2 columns)."""
    pixels = packed.unflatten(1, grid).unflatten(-1, (-1, 2, 2))  # B, rows, columns, C, 2, 2
    latent: Tensor = pixels.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
    return latent


@contextmanager
def _step_contexts(transformer: Any, steps: int) -> Iterator[None]:
    """Tell hooks the step and its sigma in each call, as ``FluxKontextPipeline`` does not."""
    original = transformer.forward
    calls = 0

    @wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        sigma = float(named_arguments(original, args, kwargs)["timestep"].flatten()[0])
        step, calls = calls, calls + 1
        with transformer.cache_context(CONTEXT, step_index=step, sigma=sigma, num_inference_steps=steps):
            return original(*args, **kwargs)

    with patched_attr(transformer, "forward", forward):
        yield


@contextmanager
def _enabled(pipeline: Any, config: Any) -> Iterator[Work]:
    transformer = pipeline.transformer
    with _hooked(transformer, config), transformer.cache_context(CONTEXT), counted(transformer) as work:
        yield work


@contextmanager
def _hooked(transformer: Any, config: Any) -> Iterator[None]:
    """Enable a cache; afterwards nothing of it is left on the transformer, which diffusers itself does not see to."""
    with restored(transformer):
        transformer.enable_cache(config)
        try:
            yield
        finally:
            transformer.disable_cache()
