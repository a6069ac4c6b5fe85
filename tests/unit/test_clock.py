"""Time of model calls: what waits for a device, and whose failure is seen."""

from __future__ import annotations

import pytest
import torch

from lib_fluxkontext.errors import is_out_of_memory
from lib_fluxkontext.telemetry import clock
from lib_fluxkontext.telemetry.clock import measured


class BrokenSpan:
    """A clock on a device that answers nothing any more."""

    def __init__(self, device: torch.device) -> None:
        pass

    def stop(self) -> None:
        raise RuntimeError("CUDA error: the clock's own")


def test_a_failing_clock_does_not_hide_what_failed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_CudaSpan", BrokenSpan)
    with pytest.raises(MemoryError, match="the first"), measured(torch.device("cuda")):
        raise MemoryError("the first")
    with pytest.raises(RuntimeError, match="the clock's own"), measured(torch.device("cuda")):
        pass


@pytest.mark.parametrize("kind", ["mps", "xpu"])
def test_devices_without_events_are_waited_for(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Their launches return before the work is done: a host's clock alone would measure those."""
    waits: list[str] = []
    monkeypatch.setattr(getattr(torch, kind), "synchronize", lambda: waits.append("wait"))
    with measured(torch.device(kind)):
        assert waits == ["wait"]
        waits.append("work")
    assert waits == ["wait", "work", "wait"]


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2 GiB",
        "CUDA error: out of memory",
        "Not enough memory: you tried to allocate 100 bytes",
        "Could not allocate tensor with 1 bytes. There is not enough GPU video memory available! Out of memory",
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_memory_that_ran_out_is_recognised_by_every_backend_s_words(message: str) -> None:
    assert is_out_of_memory(RuntimeError(message))


@pytest.mark.parametrize("message", ["CUDA error: an illegal memory access was encountered", "mat1 and mat2", ""])
def test_another_failure_is_not_taken_for_it(message: str) -> None:
    assert not is_out_of_memory(RuntimeError(message))
