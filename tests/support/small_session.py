"""Sampling sessions over the small Flux-shaped stack, and steps run in them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lib_fluxkontext.caching.caches import Caches
from lib_fluxkontext.caching.sample_key import SampleKey, Step
from lib_fluxkontext.hooks.adapter import TransformerAdapter
from lib_fluxkontext.hooks.model_call import ModelCall
from lib_fluxkontext.hosts.forge.runtime.adapter import ForgeFluxAdapter
from lib_fluxkontext.references.encode import EncodedReferences
from lib_fluxkontext.references.tokens import ReferenceTokens
from lib_fluxkontext.sampling.session import SamplingSession
from lib_fluxkontext.sampling.vram import VramEstimate
from lib_fluxkontext.telemetry.memory import MemoryMeter
from tests.support.small_flux import SmallFluxTransformer

CPU = torch.device("cpu")


def small_references(tokens: int = 5) -> ReferenceTokens:
    """Random reference tokens of the stack's width, the same every time."""
    generator = torch.Generator().manual_seed(7)
    return ReferenceTokens(torch.randn(1, tokens, 8, generator=generator), torch.ones(1, tokens, 3), (tokens,))


def small_session(
    model: SmallFluxTransformer,
    caches: Caches | None = None,
    references: bool = True,
    image_tokens: int = 6,
    total_steps: int = 1,
    memory: MemoryMeter | None = None,
    vram: VramEstimate | None = None,
    adapter: TransformerAdapter | None = None,
) -> SamplingSession:
    """Open a session over the stack."""
    return SamplingSession(
        model,
        adapter or ForgeFluxAdapter(),
        image_tokens,
        memory or MemoryMeter(CPU, reset_peaks=False),
        caches or Caches(),
        EncodedReferences(small_references(), 0.25, encoded=1, cached=0) if references else None,
        total_steps=lambda: total_steps,
        vram=vram,
    )


def run_step(
    session: SamplingSession,
    model: SmallFluxTransformer,
    arguments: dict[str, Tensor],
    step: int = 0,
    last: bool = False,
    samples: Sequence[SampleKey] | None = None,
) -> tuple[Tensor, ModelCall]:
    """Run one model call in a session, on copies of the arguments; return its output and the call."""
    copies = {name: value.clone() for name, value in arguments.items()}
    rows = range(arguments["img"].shape[0])
    with session.call(samples or list(rows), Step(step, last), arguments["timesteps"]) as call:
        return model.inner_forward(**copies), call
