"""Watches the model calls of one sampling pass and turns them into its report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib_fluxkontext.cache.first_block import Decision, Step
from lib_fluxkontext.meters.clock import Span, measured
from lib_fluxkontext.meters.memory import MemoryMeter
from lib_fluxkontext.references.encode import EncodedReferences
from lib_fluxkontext.report.generation import CallRecord, PassReport
from lib_fluxkontext.transformer.attach import ModelCall, attached
from lib_fluxkontext.transformer.layout import TransformerLayout


@dataclass
class _Measured:
    step: Step
    sigma: Tensor
    span: Span
    images: int
    decisions: list[Decision]


class PassRecorder:
    """Runs each model call with its hooks and its clock; holds tensors until ``report``.

    Args:
        label: the pass's name in the report.
        image_tokens: tokens of the picture.
        memory: sampled once a call.
    """

    def __init__(self, label: str, image_tokens: int, memory: MemoryMeter) -> None:
        self._label = label
        self._image_tokens = image_tokens
        self._memory = memory
        self._measured: list[_Measured] = []
        self._start = time.perf_counter()

    def begin(self) -> None:
        """Sampling starts now."""
        self._start = time.perf_counter()

    @contextmanager
    def call(self, transformer: nn.Module, layout: TransformerLayout, call: ModelCall) -> Iterator[None]:
        """Hooks on, clock running; a call that raises is not counted."""
        with measured(torch.device(call.sigmas.device)) as span, attached(transformer, layout, call):
            yield
        self._measured.append(_Measured(call.step, call.sigmas[0], span, len(call.streams), call.decisions))
        self._memory.sample()

    def report(self, encoded: EncodedReferences | None, notes: list[str]) -> PassReport:
        """Add up and let go. Waits for the GPU."""
        calls = [_record(one) for one in self._measured]
        self._measured.clear()
        return PassReport(
            label=self._label,
            calls=calls,
            seconds=time.perf_counter() - self._start,
            encode_seconds=encoded.seconds if encoded else 0.0,
            encoded=encoded.encoded if encoded else 0,
            kept=encoded.kept if encoded else 0,
            reference_tokens=encoded.tokens.counts if encoded else (),
            image_tokens=self._image_tokens,
            notes=tuple(notes),
        )


def _record(one: _Measured) -> CallRecord:
    distances = [decision.distance for decision in one.decisions if decision.distance is not None]
    return CallRecord(
        step=one.step.index,
        sigma=float(one.sigma),
        seconds=one.span.seconds(),
        reused=sum(decision.reuse for decision in one.decisions),
        images=one.images,
        distance=max(distances, default=None),
    )
