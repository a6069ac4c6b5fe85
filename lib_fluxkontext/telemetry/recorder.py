"""Collects the model calls of one sampling. Passive: it receives each call once that has finished."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from torch import Tensor

from lib_fluxkontext.caching.sample_key import Decision
from lib_fluxkontext.errors import first_line
from lib_fluxkontext.telemetry.clock import Span
from lib_fluxkontext.telemetry.records import CallRecord


@dataclass(frozen=True)
class MeasuredCall:
    """A model call that has ended on the host; on a GPU its work may still run.

    Attributes:
        step: sampler step, from 0.
        sigma: scalar tensor, noise level of the first image; read only once the work has ended.
        span: its time.
        images: images in the call.
        decisions: one per image, or none where nothing could be reused.
    """

    step: int
    sigma: Tensor
    span: Span
    images: int
    decisions: Sequence[Decision]


class CallRecorder:
    """Holds the measurements of one sampling until ``clear``."""

    def __init__(self) -> None:
        self._calls: list[MeasuredCall] = []
        self._start: float | None = None

    def start(self) -> None:
        """Start the sampling's wall time; later calls change nothing."""
        if self._start is None:
            self._start = time.perf_counter()

    def record(self, call: MeasuredCall) -> None:
        """Add a call that has ended."""
        self._calls.append(call)

    @property
    def seconds(self) -> float:
        """Wall time since the start, 0 before it."""
        return 0.0 if self._start is None else time.perf_counter() - self._start

    def snapshot(self) -> list[CallRecord]:
        """Return the calls whose work has ended; from any thread. Waits for nothing, so a GPU's sigmas are left out."""
        records = []
        with suppress(RuntimeError):  # a device that has failed answers nothing any more
            for call in tuple(self._calls):
                if not call.span.done():
                    break
                records.append(_record(call, wait=False))
        return records

    def finish(self) -> tuple[list[CallRecord], str | None]:
        """Wait for the GPU.

        Returns:
            All calls, and why they could not be measured, or None.
        """
        try:
            return [_record(call) for call in self._calls], None
        except RuntimeError as error:  # after some CUDA errors the device answers nothing any more
            return [], f"The steps could not be measured: {first_line(error)}"

    def clear(self) -> None:
        """Let go of the measurements, and of the tensors in them."""
        self._calls = []


def _record(call: MeasuredCall, wait: bool = True) -> CallRecord:
    distances = [decision.distance for decision in call.decisions if decision.distance is not None]
    return CallRecord(
        step=call.step,
        sigma=float(call.sigma) if wait or call.sigma.device.type == "cpu" else math.nan,
        seconds=call.span.seconds(),
        reused=sum(decision.reuse for decision in call.decisions),
        images=call.images,
        distance=max(distances, default=None),
        kept=sum(decision.cached_references for decision in call.decisions),
    )
