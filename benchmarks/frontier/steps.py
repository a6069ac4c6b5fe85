"""What a step of each kind costs, on a Flux of any size with random weights: seconds and memory, no pictures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from lib_fluxkontext.caching.kv_store import Place
from lib_fluxkontext.caching.sample_key import Step
from lib_fluxkontext.geometry import TOKEN_CHANNELS, TOKEN_SIDE
from lib_fluxkontext.hosts.diffusers.adapter import DiffusersFluxAdapter
from lib_fluxkontext.references.encode import EncodedReferences
from lib_fluxkontext.references.tokens import ReferenceTokens, offset_ids
from lib_fluxkontext.sampling.factory import build_caches
from lib_fluxkontext.sampling.session import SamplingSession
from lib_fluxkontext.settings import KontextSettings
from lib_fluxkontext.telemetry.memory import MemoryMeter

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
    """

    seconds: float
    computed: float | None
    kept: float | None
    reused: float | None
    peak_bytes: int | None


def build(config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> Any:
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
    transformer: Any, side: int, references: int, settings: KontextSettings, steps: int, place: Place = "device"
) -> Cost:
    """Run Euler steps on noise.

    Args:
        transformer: of ``build``.
        side: of the picture and of each reference, in pixels.
        references: how many.
        settings: which caches.
        steps: how many.
        place: where keys and values of references are kept.
    """
    weight = next(transformer.parameters())
    device, dtype, config = weight.device, weight.dtype, transformer.config
    rows = side // TOKEN_SIDE
    tokens = rows * rows
    generator = torch.Generator().manual_seed(1)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    image, text = noise(1, tokens, TOKEN_CHANNELS), noise(1, TEXT_TOKENS, config.joint_attention_dim)
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
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    session = SamplingSession(
        transformer,
        DiffusersFluxAdapter(),
        tokens,
        MemoryMeter(device, reset_peaks=False),
        build_caches(settings, references > 0, place),
        encoded,
    )
    sigmas = torch.linspace(1, 0, steps + 1)
    start = time.perf_counter()
    with torch.inference_mode():
        for index in range(steps):
            timestep = sigmas[index : index + 1].to(device)
            with session.call([0], Step(index, index == steps - 1), timestep):
                (velocity,) = transformer(hidden_states=image, timestep=timestep.to(dtype), **fixed)
            image = image + (sigmas[index + 1] - sigmas[index]).item() * velocity
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    seconds = time.perf_counter() - start
    done = session.close()
    if done.notes:
        print(f"  note: {done.notes[0]}")
    peak = torch.cuda.max_memory_allocated(device) - before if device.type == "cuda" else None
    kinds: dict[str, list[float]] = {"computed": [], "kept": [], "reused": []}
    for step in done.steps:
        kinds[step.kind].append(step.seconds)
    first, *later = kinds["computed"]
    kinds["computed"] = later or [first]
    computed, kept, reused = (median(times) if times else None for times in kinds.values())
    return Cost(seconds, computed, kept, reused, peak)


def median_of_present(values: Sequence[float | None]) -> float | None:
    """Return the median of the values that are not None."""
    present = [value for value in values if value is not None]
    return median(present) if present else None
