"""What a step of each kind costs, on a Flux of any size with random weights: seconds and memory, no pictures."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.frontier.scripted import KINDS, Schedule, scripted
from lib_fluxkontext.caching.caches import Caches
from lib_fluxkontext.caching.kv_store import Place
from lib_fluxkontext.caching.sample_key import Step
from lib_fluxkontext.geometry import TOKEN_CHANNELS, TOKEN_SIDE
from lib_fluxkontext.hosts.diffusers.adapter import DiffusersFluxAdapter
from lib_fluxkontext.references.encode import EncodedReferences
from lib_fluxkontext.references.placement import offset_ids
from lib_fluxkontext.references.tokens import ReferenceTokens
from lib_fluxkontext.sampling.factory import build_caches
from lib_fluxkontext.sampling.session import SamplingSession
from lib_fluxkontext.settings import KontextSettings
from lib_fluxkontext.telemetry.memory import MemoryMeter
from lib_fluxkontext.telemetry.records import PassReport

TEXT_TOKENS = 256
"""As Forge pads T5's."""

MEDIUM: dict[str, Any] = {
    "num_layers": 8,
    "num_single_layers": 16,
    "attention_head_dim": 64,
    "num_attention_heads": 8,
    "joint_attention_dim": 256,
    "pooled_projection_dim": 256,
    "axes_dims_rope": (8, 28, 28),
    "guidance_embeds": True,
}
"""About 140 million parameters: hidden 512, 8 + 16 blocks."""

DEEP: dict[str, Any] = MEDIUM | {
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 56,
    "num_attention_heads": 6,
    "axes_dims_rope": (8, 24, 24),
}
"""143 million parameters at FLUX.1's own depth: hidden 336, 19 + 38 blocks. A first block is one of 57, as there."""

FULL: dict[str, Any] = {
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "axes_dims_rope": (16, 56, 56),
    "guidance_embeds": True,
}
"""FLUX.1's real size: hidden 3072, 19 + 38 blocks, 11.9 billion parameters."""


@dataclass(frozen=True)
class Cost:
    """One sampling.

    Attributes:
        seconds: of the whole, from the first call to the end of the last.
        computed: median seconds of a step with all tokens, the first left out if there are others; None if none.
        kept: median of a step on kept references, or None.
        reused: median of a reused step, or None.
        peak_bytes: peak of the tensors on the device by torch, beyond what lay there before; None without CUDA.
        computed_peak: the same of the computed steps alone.
        kept_peak: of the steps on kept references.
        reused_peak: of the reused steps.
        note: what the sampling had to say, such as that memory did not suffice for a cache.
    """

    seconds: float
    computed: float | None
    kept: float | None
    reused: float | None
    peak_bytes: int | None
    computed_peak: int | None = None
    kept_peak: int | None = None
    reused_peak: int | None = None
    note: str | None = None


@dataclass(frozen=True)
class Sampled:
    """One sampling's result and what was seen on the way.

    Attributes:
        change: what all steps together added to the noise, (1, tokens, channels) in float32 on the CPU.
        seconds: of the whole, from the first call to the end of the last.
        report: of its model calls.
        peaks: by step, the peak of the tensors on the device beyond what lay there before; empty without CUDA.
    """

    change: Tensor
    seconds: float
    report: PassReport
    peaks: Sequence[int]


def build(config: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> Any:
    """A transformer with random weights, made on its device."""
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return FluxTransformer2DModel(**config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)


def sample(
    transformer: Any,
    side: int,
    references: int,
    settings: KontextSettings,
    steps: int,
    place: Place = "device",
    schedule: Schedule | None = None,
) -> Cost:
    """Run Euler steps on noise, and return what they cost.

    Args:
        transformer: of ``build``.
        side: of the picture and of each reference, in pixels.
        references: how many.
        settings: which caches.
        steps: how many.
        place: where keys and values of references are kept.
        schedule: kind of every step, in place of the caches' own decisions.

    Raises:
        ValueError: the schedule is of another length, or the settings do not allow it.
    """
    sigmas = torch.linspace(1, 0, steps + 1)
    caches = build_caches(settings, references > 0, place)
    if schedule is not None:
        if len(schedule) != steps:
            raise ValueError(f"a schedule of {len(schedule)} steps for {steps} steps")
        caches = scripted(caches, schedule)
    done = euler(transformer, side, references, caches, sigmas)
    note = done.report.notes[0] if done.report.notes else None
    if note is not None:
        print(f"  note: {note}")
    found = tuple(step.kind for step in done.report.steps)
    if schedule is not None and found != schedule:
        raise ValueError(f"asked for {' '.join(schedule)}, got {' '.join(found)}")
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    peaks: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for step in done.report.steps:
        seconds[step.kind].append(step.seconds)
        peaks[step.kind] += done.peaks[step.index : step.index + 1]
    first, *later = seconds["computed"]
    seconds["computed"] = later or [first]
    return Cost(
        done.seconds,
        *(median(times) if times else None for times in seconds.values()),
        max(done.peaks, default=None),
        *(max(values, default=None) for values in peaks.values()),
        note,
    )


def euler(transformer: Any, side: int, references: int, caches: Caches, sigmas: Tensor) -> Sampled:
    """Run Euler steps on noise that is the same on every device.

    Args:
        transformer: of ``build``.
        side: of the picture and of each reference, in pixels.
        references: how many.
        caches: fresh ones.
        sigmas: noise levels, a step between each and the next.
    """
    weight = next(transformer.parameters())
    device, dtype, config = weight.device, weight.dtype, transformer.config
    rows = side // TOKEN_SIDE
    tokens = rows * rows
    generator = torch.Generator().manual_seed(1)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    image, text = noise(1, tokens, TOKEN_CHANNELS), noise(1, TEXT_TOKENS, config.joint_attention_dim)
    change = torch.zeros(image.shape, device=device)
    fixed = {
        "encoder_hidden_states": text,
        "pooled_projections": noise(1, config.pooled_projection_dim),
        "guidance": torch.full((1,), 3.5, device=device),
        "img_ids": offset_ids([(rows, rows)])[0].to(device) * torch.tensor([0.0, 1.0, 1.0], device=device),
        "txt_ids": torch.zeros(TEXT_TOKENS, 3, device=device),
        "return_dict": False,
    }
    encoded = None
    if references:
        ids = offset_ids([(rows, rows)] * references)
        packed = ReferenceTokens(noise(1, tokens * references, TOKEN_CHANNELS), ids, (tokens,) * references)
        encoded = EncodedReferences(packed, 0.0, encoded=references, cached=0)
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    peaks: list[int] = []
    memory = MemoryMeter(device, reset_peaks=False)
    session = SamplingSession(transformer, DiffusersFluxAdapter(), tokens, memory, caches, encoded)
    steps = len(sigmas) - 1
    start = time.perf_counter()
    try:
        with torch.inference_mode():
            for index in range(steps):
                timestep = sigmas[index : index + 1].to(device)
                if device.type == "cuda":  # the allocator counts on the host: neither call waits
                    torch.cuda.reset_peak_memory_stats(device)
                with session.call([0], Step(index, index == steps - 1), timestep):
                    (velocity,) = transformer(hidden_states=image, timestep=timestep.to(dtype), **fixed)
                if device.type == "cuda":
                    peaks.append(torch.cuda.max_memory_allocated(device) - before)
                difference = (sigmas[index + 1] - sigmas[index]).item() * velocity
                image = image + difference
                change += difference
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
    finally:
        report = session.close()
    return Sampled(change.cpu(), seconds, report, peaks)


def median_of_present(values: Sequence[float | None]) -> float | None:
    """Return the median of the values that are not None."""
    present = [value for value in values if value is not None]
    return median(present) if present else None
