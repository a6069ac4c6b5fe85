"""Times model calls without making the GPU wait."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch


class Span(Protocol):
    """One measured stretch of work."""

    def seconds(self) -> float:
        """Return its length. On CUDA this waits for the work to end: ask after sampling, or when it is ``done``."""

    def done(self) -> bool:
        """Whether the work has ended; never waits."""


class _HostSpan:
    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._end = self._start

    def stop(self) -> None:
        self._end = time.perf_counter()

    def seconds(self) -> float:
        return self._end - self._start

    def done(self) -> bool:
        return True


class _CudaSpan:
    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start = torch.cuda.Event(enable_timing=True)
        self._end = torch.cuda.Event(enable_timing=True)
        self._start.record(torch.cuda.current_stream(device))

    def stop(self) -> None:
        self._end.record(torch.cuda.current_stream(self._device))

    def seconds(self) -> float:
        self._end.synchronize()
        milliseconds: float = self._start.elapsed_time(self._end)
        return milliseconds / 1000.0

    def done(self) -> bool:
        return bool(self._end.query())


@contextmanager
def measured(device: torch.device) -> Iterator[Span]:
    """Time what runs inside: with CUDA events on a CUDA device, else with the host's clock."""
    span: _CudaSpan | _HostSpan = _CudaSpan(device) if device.type == "cuda" else _HostSpan()
    try:
        yield span
    finally:
        span.stop()
