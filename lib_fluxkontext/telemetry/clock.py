"""Times model calls without making the GPU wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Protocol

import torch


class Span(Protocol):
    """One measured stretch of work."""

    def seconds(self) -> float:
        """Return its length. On CUDA this waits for the work to end: ask after sampling, or when it is ``done``."""

    def done(self) -> bool:
        """Whether the work has ended; never waits."""


class _HostSpan:
    """By the host's clock, after waiting for a device whose work goes on by itself."""

    def __init__(self, synchronise: Callable[[], None]) -> None:
        self._synchronise = synchronise
        synchronise()
        self._start = time.perf_counter()
        self._end = self._start

    def stop(self) -> None:
        self._synchronise()
        self._end = time.perf_counter()

    def seconds(self) -> float:
        return self._end - self._start

    def done(self) -> bool:
        return True


class _CudaSpan:
    """By events. They are asked with their own card current, for whichever is current is given a context by it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start = torch.cuda.Event(enable_timing=True)
        self._end = torch.cuda.Event(enable_timing=True)
        self._start.record(torch.cuda.current_stream(device))

    def stop(self) -> None:
        self._end.record(torch.cuda.current_stream(self._device))

    def seconds(self) -> float:
        with torch.cuda.device(self._device):
            self._end.synchronize()
            milliseconds: float = self._start.elapsed_time(self._end)
        return milliseconds / 1000.0

    def done(self) -> bool:
        with torch.cuda.device(self._device):
            return bool(self._end.query())


def _wait_for(device: torch.device) -> Callable[[], None]:
    """How to wait for a device without events; the CPU needs none, and DirectML has no way."""
    match device.type:
        case "mps":
            return torch.mps.synchronize
        case "xpu":
            return torch.xpu.synchronize if device.index is None else partial(torch.xpu.synchronize, device)
    return lambda: None


@contextmanager
def measured(device: torch.device) -> Iterator[Span]:
    """Time what runs inside: with CUDA events on a CUDA device, else with the host's clock.

    A failure of the clock never hides one of what it measures.
    """
    span: _CudaSpan | _HostSpan = _CudaSpan(device) if device.type == "cuda" else _HostSpan(_wait_for(device))
    try:
        yield span
    except BaseException:
        with suppress(RuntimeError):
            span.stop()
        raise
    span.stop()
