"""Other caches around a pipeline: exact where they skip nothing, counted where they do, gone afterwards."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from diffusers import FluxKontextPipeline

from benchmarks.rivals.cache_dit_caches import db_cache
from benchmarks.rivals.counting import attention_share, counted, restored
from benchmarks.rivals.diffusers_caches import (
    calibrated_ratios,
    first_block_cache,
    mag_cache,
    sea_cache,
    taylorseer,
    unpacked,
)
from benchmarks.rivals.easycache import easycache
from benchmarks.rivals.spectrum import spectrum
from benchmarks.rivals.spectrum_forecast import AUTHORS, NEO
from benchmarks.rivals.teacache import teacache
from benchmarks.rivals.work import Work
from tests.support.tiny_pipeline import GRID, STEPS, TOKENS, call_arguments, sampled, tiny_pipeline

Rival = Callable[[Any], AbstractContextManager[Work]]

STEADY = (1.0,) * STEPS
LINEAR = (1.0, 0.0)
"""TeaCache's polynomial f(x) = x."""

NEVER: dict[str, Rival] = {
    "First Block Cache": partial(first_block_cache, threshold=0.0),
    "MagCache": partial(mag_cache, steps=STEPS, threshold=9.0, ratios=STEADY, max_skip_steps=0),
    "SeaCache": partial(sea_cache, picture_tokens=GRID, steps=STEPS, threshold=0.0),
    "TaylorSeer lite": partial(taylorseer, interval=1),
    "TaylorSeer": partial(taylorseer, interval=1, lite=False),
    "DBCache": partial(db_cache, threshold=0.0),
    "DBCache TaylorSeer": partial(db_cache, threshold=0.0, calibrator="taylorseer"),
    "DBCache FoCa": partial(db_cache, threshold=0.0, calibrator="foca"),
    "DBCache DMD": partial(db_cache, threshold=0.0, calibrator="dmd"),
    "TeaCache": partial(teacache, picture_tokens=GRID, steps=STEPS, threshold=0.0, coefficients=LINEAR),
    "EasyCache": partial(easycache, picture_tokens=GRID, steps=STEPS, threshold=0.0),
    "Spectrum": partial(spectrum, picture_tokens=GRID, steps=STEPS, settings=replace(AUTHORS, window=1, growth=0.0)),
    "Spectrum Neo": partial(spectrum, picture_tokens=GRID, steps=STEPS, settings=replace(NEO, stop=0.0)),
}

OFTEN: dict[str, tuple[Rival, float]] = {
    "First Block Cache": (partial(first_block_cache, threshold=9.0), 1),
    # Retained: the first round(0.2 · 12) = 2. Then three skipped to one computed: 2–4, 6–8, 10–11 are skipped.
    "MagCache": (partial(mag_cache, steps=STEPS, threshold=9.0, ratios=STEADY), 4),
    # First and last, and one after two skipped: 0, 3, 6, 9, 11.
    "SeaCache": (partial(sea_cache, picture_tokens=GRID, steps=STEPS, threshold=99.0), 5),
    # 0–2, then where (step − 4) is a multiple of 4: 4, 8.
    "TaylorSeer lite": (partial(taylorseer, interval=4), 5),
    "DBCache": (partial(db_cache, threshold=9.0), 1),
    "DBCache TaylorSeer": (partial(db_cache, threshold=9.0, calibrator="taylorseer", warmup_steps=4), 4),
    "DBCache FoCa": (partial(db_cache, threshold=9.0, calibrator="foca", warmup_steps=4), 4),
    "DBCache DMD": (partial(db_cache, threshold=9.0, calibrator="dmd", warmup_steps=4), 4),
    "TeaCache": (partial(teacache, picture_tokens=GRID, steps=STEPS, threshold=99.0, coefficients=LINEAR), 2),
    "EasyCache": (partial(easycache, picture_tokens=GRID, steps=STEPS, threshold=99.0), 3),
    "Spectrum": (partial(spectrum, picture_tokens=GRID, steps=STEPS), 8),  # 0–4, 6, 8, 11
    "Spectrum Neo": (partial(spectrum, picture_tokens=GRID, steps=STEPS, settings=NEO), 10),  # 0–5, 7, 9, 10, 11
}


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def uncached(pipeline: Any) -> torch.Tensor:
    return sampled(pipeline)


def attributes(pipeline: Any) -> list[tuple[str, str, int]]:
    """What is set on the transformer and its children, in their order, and the pipeline's call."""
    modules = pipeline.transformer.named_modules()
    found = [(name, key, id(value)) for name, module in modules for key, value in vars(module).items()]
    return [*found, ("pipeline", "__call__", id(type(pipeline).__call__))]


def torch_hooks(pipeline: Any) -> int:
    modules = pipeline.transformer.modules()
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)


@pytest.mark.parametrize("name", NEVER)
def test_what_skips_nothing_changes_no_bit(pipeline: Any, uncached: torch.Tensor, name: str) -> None:
    with NEVER[name](pipeline) as work:
        latents = sampled(pipeline)
    assert torch.equal(latents, uncached)
    assert work == Work(evaluations=STEPS, calls=STEPS)


@pytest.mark.parametrize("name", OFTEN)
def test_what_skips_is_counted_and_leaves_nothing(pipeline: Any, uncached: torch.Tensor, name: str) -> None:
    rival, computed = OFTEN[name]
    before = attributes(pipeline)
    with rival(pipeline) as work:
        latents = sampled(pipeline)
        assert attributes(pipeline) != before
    assert work == Work(evaluations=computed, calls=STEPS)
    assert latents.isfinite().all()
    assert not torch.equal(latents, uncached)
    assert attributes(pipeline) == before
    assert torch_hooks(pipeline) == 0
    assert torch.equal(sampled(pipeline), uncached)


@pytest.mark.parametrize("name", OFTEN)
def test_a_failed_run_leaves_nothing(pipeline: Any, uncached: torch.Tensor, name: str) -> None:
    before = attributes(pipeline)

    runs = 0

    def fail_in_the_second_call(*_: object) -> None:
        nonlocal runs
        runs += 1
        if runs == 2:
            raise RuntimeError("out of memory")

    handle = pipeline.transformer.norm_out.register_forward_pre_hook(fail_in_the_second_call)
    try:
        with pytest.raises(RuntimeError, match="out of memory"), OFTEN[name][0](pipeline) as work:
            sampled(pipeline)
    finally:
        handle.remove()
    assert work.calls == 1
    assert attributes(pipeline) == before
    assert torch_hooks(pipeline) == 0
    assert torch.equal(sampled(pipeline), uncached)


def test_a_context_starts_without_a_state(pipeline: Any) -> None:
    results = []
    for _ in range(2):
        with taylorseer(pipeline, interval=4):
            results.append(sampled(pipeline))
    assert torch.equal(*results)


def test_forecast_attention_counts_the_rest_of_the_blocks(pipeline: Any) -> None:
    with taylorseer(pipeline, interval=4, lite=False) as work:
        sampled(pipeline)
    share = attention_share(64, TOKENS)
    assert share == pytest.approx((3 + 112 / 64) / (12 + 112 / 64))  # 8 + 48 tokens of width 64
    assert work.evaluations == pytest.approx(5 + 7 * (1 - share))


def test_fewer_tokens_count_as_a_fraction(pipeline: Any) -> None:
    transformer = pipeline.transformer
    with torch.inference_mode(), counted(transformer, tokens=TOKENS) as work:
        transformer(**call_arguments())
        transformer(**call_arguments(tokens=TOKENS // 2))
    assert work == Work(evaluations=1.5, calls=2)


def test_a_call_that_fails_is_not_counted(pipeline: Any) -> None:
    transformer = pipeline.transformer
    with counted(transformer) as work, pytest.raises(RuntimeError):
        transformer(**{**call_arguments(), "img_ids": torch.zeros(3, 3)})
    assert work == Work()


def test_what_was_there_is_put_back(pipeline: Any) -> None:
    block = pipeline.transformer.transformer_blocks[0]
    block.kept = 1
    before = attributes(pipeline)
    try:
        with restored(pipeline.transformer):
            block.kept, block.forward, block.left = 2, len, 3
        assert attributes(pipeline) == before
    finally:
        del block.kept


def test_mag_ratios_are_means_over_the_runs(pipeline: Any) -> None:
    before = attributes(pipeline)
    once = calibrated_ratios(pipeline, STEPS, [partial(sampled, pipeline)])
    twice = calibrated_ratios(pipeline, STEPS, [partial(sampled, pipeline)] * 2)
    assert len(once) == STEPS
    assert once[0] == 1.0
    assert all(ratio != 1.0 for ratio in once[1:])
    assert twice == pytest.approx(once)
    assert attributes(pipeline) == before
    with pytest.raises(ValueError, match="3 times, not 12"):
        calibrated_ratios(pipeline, STEPS, [partial(sampled, pipeline, 3)])
    with pytest.raises(ValueError, match="no calibration run"):
        calibrated_ratios(pipeline, STEPS, [])


def test_sea_cache_gets_the_latent_as_it_was_packed() -> None:
    latent = torch.randn(2, 16, 2 * GRID[0], 2 * GRID[1])
    packed = FluxKontextPipeline._pack_latents(latent, 2, 16, 2 * GRID[0], 2 * GRID[1])
    assert torch.equal(unpacked(packed, GRID), latent)
