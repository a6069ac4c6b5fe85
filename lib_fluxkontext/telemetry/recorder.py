"""Watches the model calls of one sampling pass and turns them into its report."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib_fluxkontext.caching.kv_store import KeptUse
from lib_fluxkontext.caching.sample_key import Decision, Step
from lib_fluxkontext.hooks.adapter import TransformerLayout
from lib_fluxkontext.hooks.model_call import ModelCall
from lib_fluxkontext.hooks.model_hooks import attached
from lib_fluxkontext.references.encode import EncodedReferences
from lib_fluxkontext.telemetry.clock import Span, measured
from lib_fluxkontext.telemetry.memory import MemoryMeter
from lib_fluxkontext.telemetry.records import CallRecord, PassReport


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
        self._start: float | None = None

    @contextmanager
    def call(self, transformer: nn.Module, layout: TransformerLayout, call: ModelCall) -> Iterator[None]:
        """Hooks on, clock running; a call that raises is not counted. The first call starts the sampling's time."""
        if self._start is None:
            self._start = time.perf_counter()
        with measured(torch.device(call.sigmas.device)) as span, attached(transformer, layout, call):
            yield
        self._measured.append(_Measured(call.step, call.sigmas[0], span, len(call.streams), call.decisions))
        self._memory.sample()

    def so_far(self) -> PassReport:
        """The calls that have ended, while others still run. Waits for nothing, so a GPU's sigmas are left out."""
        calls = []
        for one in tuple(self._measured):
            if not one.span.done():
                break
            calls.append(_record(one, wait=False))
        seconds = 0.0 if self._start is None else time.perf_counter() - self._start
        return PassReport(self._label, calls, seconds, image_tokens=self._image_tokens)

    def report(
        self, encoded: EncodedReferences | None, notes: Sequence[str], key_values: KeptUse | None = None
    ) -> PassReport:
        """Add up and let go. Waits for the GPU."""
        notes = list(notes)
        try:
            calls = [_record(one) for one in self._measured]
        except RuntimeError as error:  # after some CUDA errors the device answers nothing any more
            calls = []
            notes.append(f"The steps could not be measured: {(str(error).splitlines() or [''])[0]}")
        seconds = 0.0 if self._start is None else time.perf_counter() - self._start
        self._measured.clear()
        return PassReport(
            label=self._label,
            calls=calls,
            seconds=seconds,
            encode_seconds=encoded.seconds if encoded else 0.0,
            encoded=encoded.encoded if encoded else 0,
            kept=encoded.kept if encoded else 0,
            reference_tokens=encoded.tokens.counts if encoded else (),
            image_tokens=self._image_tokens,
            key_values=key_values,
            notes=tuple(notes),
        )


def _record(one: _Measured, wait: bool = True) -> CallRecord:
    distances = [decision.distance for decision in one.decisions if decision.distance is not None]
    return CallRecord(
        step=one.step.index,
        sigma=float(one.sigma) if wait or one.sigma.device.type == "cpu" else math.nan,
        seconds=one.span.seconds(),
        reused=sum(decision.reuse for decision in one.decisions),
        images=one.images,
        distance=max(distances, default=None),
        kept=sum(decision.references_kept for decision in one.decisions),
    )
