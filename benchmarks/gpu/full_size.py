"""FLUX.1's real size: seconds and peak memory of steps of each kind, on the whole card and within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.frontier.steps import FULL, TEXT_TOKENS, Cost, build, median_of_present, sample
from benchmarks.gpu.device import collect, describe, free_bytes, memory_limit
from benchmarks.gpu.results import Constants, Part, Run
from lib_fluxkontext.caching.kv_store import Place
from lib_fluxkontext.errors import first_line, is_out_of_memory
from lib_fluxkontext.geometry import TOKEN_SIDE
from lib_fluxkontext.sampling.vram import GIB, HOST_MARGIN, ModelSize, SamplingLoad, VramEstimate, estimate_vram
from lib_fluxkontext.settings import KontextSettings

SIDE = 1024
STEPS = 8
ROUNDS = 3
BUDGETS = (12, 8)
"""GB of the cards that people have."""

CUDA_CONTEXT = GIB // 2
"""What CUDA itself takes of any card, and torch's limit does not count."""

UNCACHED = "uncached"
COMPARED = "First Block Cache, nothing reused"
RESIDENT = "reference reuse, resident"
STREAMED = "reference reuse, streamed"
REUSED = "First Block Cache and reference reuse, all reused"
RUNS: dict[str, tuple[KontextSettings, Place]] = {
    UNCACHED: (KontextSettings(cache=False), "device"),
    COMPARED: (KontextSettings(cache_threshold=1e-6), "device"),
    RESIDENT: (KontextSettings(cache=False, reference_refresh=4), "device"),
    STREAMED: (KontextSettings(cache=False, reference_refresh=4), "host"),
    REUSED: (KontextSettings(cache_threshold=1.0, reference_refresh=4), "device"),
}
"""Random weights have no pictures to spoil, so the caches reuse whatever they can: only the cost is asked."""

KEYS = [
    (references, name) for references in (2, 1, 0) for name in RUNS if references or name not in (RESIDENT, STREAMED)
]


def full_size(
    device: torch.device,
    config: dict[str, Any] = FULL,
    side: int = SIDE,
    dtype: torch.dtype = torch.bfloat16,
    rounds: int = ROUNDS,
) -> Part:
    """Measure a transformer of a size on the whole card; skip it where its weights and one picture do not fit."""
    needed = _estimate(config, dtype, side, 0, UNCACHED)
    bytes_needed, free = needed.weights + needed.activations, free_bytes(device)
    if free < bytes_needed:
        reason = f"it needs {bytes_needed / GIB:.1f} GiB at least, and {free / GIB:.1f} GiB are free"
        return Part(describe(device), skipped=reason)
    with memory_limit(device, free):  # or Windows' driver would move to main memory what does not fit
        return _measure(device, config, side, dtype, rounds)


def within_budget(
    device: torch.device,
    budget: int,
    config: dict[str, Any] = FULL,
    side: int = SIDE,
    dtype: torch.dtype = torch.bfloat16,
) -> Part:
    """Measure as many of its blocks as fill half of a smaller card, with no more memory than that card has.

    Args:
        device: where.
        budget: bytes of the smaller card.
        config: of the whole transformer.
        side: of the picture and of each reference, in pixels.
        dtype: of weights and activations.
    """
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        if total < 0.9 * budget:
            return Part(describe(device), skipped=f"the card itself has {total / GIB:.1f} GiB")
    smaller = fitting_config(config, budget // 2, dtype)
    if smaller is None:
        return Part(describe(device), skipped="not even three blocks fill half of it")
    with memory_limit(device, budget - CUDA_CONTEXT):
        return _measure(device, smaller, side, dtype, rounds=1)


def fitting_config(config: dict[str, Any], weights: int, dtype: torch.dtype) -> dict[str, Any] | None:
    """Return the same transformer with as many blocks as fit, two single ones for each double one, or None."""
    one, two = (weight_bytes(_with_blocks(config, count), dtype) for count in (1, 2))
    count = min((weights - one) // (two - one) + 1, config["num_layers"], config["num_single_layers"] // 2)
    return _with_blocks(config, count) if count > 0 else None


def weight_bytes(config: dict[str, Any], dtype: torch.dtype) -> int:
    """Return the size of a transformer's weights without making them."""
    transformer = build(config, torch.device("meta"), dtype)
    return sum(weight.nelement() * weight.element_size() for weight in transformer.parameters())


def _with_blocks(config: dict[str, Any], count: int) -> dict[str, Any]:
    return config | {"num_layers": count, "num_single_layers": 2 * count}


def _measure(device: torch.device, config: dict[str, Any], side: int, dtype: torch.dtype, rounds: int) -> Part:
    try:
        transformer = build(config, device, dtype)
        estimates = {key: _estimate(config, dtype, side, *key) for key in KEYS}
        runs = _runs(transformer, side, rounds, estimates)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return Part(describe(device), skipped=f"memory ran out: {first_line(error, 200)}")
    finally:
        transformer = None  # an exception's frames would hold it
        collect(device)
    if all(run.failure is not None for run in runs):
        return Part(describe(device), skipped=f"no run could be made: {runs[-1].failure}")
    weights = next(iter(estimates.values())).weights
    recipe = (
        f"Random weights in {str(dtype).removeprefix('torch.')}, {config['num_layers']} + "
        f"{config['num_single_layers']} blocks, {weights / GIB:.1f} GiB, {side}×{side} and references of the same "
        f"size, {STEPS} Euler steps, medians over {rounds} round{'s' if rounds > 1 else ''}."
    )
    return Part(describe(device), recipe=recipe, runs=runs, constants=_fit(runs, config, side, dtype))


def _runs(transformer: Any, side: int, rounds: int, estimates: dict[tuple[int, str], VramEstimate]) -> tuple[Run, ...]:
    """All runs, taking turns."""
    runs = {
        key: Run(*key, estimate=estimate.activations + estimate.reserved, failure=_host_memory_missing(estimate))
        for key, estimate in estimates.items()
    }
    for _ in range(rounds):
        for key, run in runs.items():
            if run.failure is None:
                runs[key] = _sampled(transformer, side, run)
                if runs[key].failure is not None:
                    collect(next(transformer.parameters()).device)
    return tuple(runs.values())


def _sampled(transformer: Any, side: int, run: Run) -> Run:
    """One more sampling of a run; a failure where memory runs out."""
    settings, place = RUNS[run.name]
    try:
        cost = sample(transformer, side, run.references, settings, STEPS, place)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return replace(run, costs=(), failure="memory ran out")
    return replace(run, costs=(*run.costs, cost))


def _host_memory_missing(estimate: VramEstimate) -> str | None:
    """Why a streamed run would take more main memory than there is."""
    available = int(psutil.virtual_memory().available)
    if estimate.host <= max(0, available - HOST_MARGIN):
        return None
    return f"needs {estimate.host / GIB:.1f} GiB of main memory, and {available / GIB:.1f} GiB are free"


def _estimate(config: dict[str, Any], dtype: torch.dtype, side: int, references: int, name: str) -> VramEstimate:
    settings, place = RUNS[name]
    model = ModelSize(
        weights=weight_bytes(config, dtype),
        hidden_size=_hidden_size(config),
        blocks=config["num_layers"] + config["num_single_layers"],
        dtype_bytes=dtype.itemsize,
    )
    load = SamplingLoad(1, _tokens(side), _tokens(side) * references)
    # A card without room for anything has keys and values streamed.
    return estimate_vram(model, load, settings, card=0 if place == "host" else None)


def _fit(runs: Sequence[Run], config: dict[str, Any], side: int, dtype: torch.dtype) -> Constants | None:
    """Activations as a line in the tokens that run, and First Block Cache's buffers without references."""
    peaks = {(run.references, run.name): _peak(run.costs) for run in runs}
    wanted = [(0, UNCACHED), (1, UNCACHED), (2, UNCACHED), (0, COMPARED)]
    present = [peak for peak in map(peaks.get, wanted) if peak is not None]
    if len(present) < len(wanted):
        return None
    *uncached, with_cache = present
    tokens = [TEXT_TOKENS + _tokens(side) * (1 + references) for references in (0, 1, 2)]
    slope, base = np.polyfit(tokens, uncached, 1)
    buffer = _tokens(side) * _hidden_size(config) * dtype.itemsize
    return Constants(float(slope), float(base), (with_cache - uncached[0]) / buffer)


def _peak(costs: Sequence[Cost]) -> float | None:
    return median_of_present([cost.computed_peak for cost in costs])


def _tokens(side: int) -> int:
    return (side // TOKEN_SIDE) ** 2


def _hidden_size(config: dict[str, Any]) -> int:
    return int(config["num_attention_heads"] * config["attention_head_dim"])
