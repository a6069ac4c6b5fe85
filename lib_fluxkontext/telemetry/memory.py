"""Memory of the card as torch and the driver see it, or of the process where there is no card."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

import psutil
import torch


@dataclass(frozen=True)
class MemoryUse:
    """Peaks over one generation, in bytes; None where it could not be measured.

    Attributes:
        device: the card's name, or None without CUDA.
        allocated: peak that torch's tensors took.
        reserved: peak that torch's allocator held.
        in_use: most that all programs together held on the card, by the driver (NVML), sampled once per model call.
        total: the card's memory.
        process: most physical memory that this process held, sampled once per model call.
        spill_suspected: on Windows, reserved or used memory reached what the card has, so the driver may have moved
            some to shared memory. Inferred: neither torch nor NVML can see it. On Linux CUDA fails instead.
    """

    device: str | None
    allocated: int | None
    reserved: int | None
    in_use: int | None
    total: int | None
    process: int
    spill_suspected: bool = False


SPILLS = sys.platform == "win32"
"""Whether the driver moves memory of the card to main memory when it is full."""

SPILL_SHARE = 0.985
"""Share of the card above which a spill is suspected: Windows' driver starts moving before 100 %."""


class MemoryMeter:
    """Watches one generation.

    Args:
        device: where the model runs.
        reset_peaks: reset torch's peak counters at the start. False where the host shows and resets them itself.
    """

    def __init__(self, device: torch.device, reset_peaks: bool) -> None:
        self._device = device
        self._process = psutil.Process()
        self._process_peak = 0
        self._in_use_peak: int | None = None
        if self._cuda and reset_peaks:
            torch.cuda.reset_peak_memory_stats(device)
        self.sample()

    @property
    def _cuda(self) -> bool:
        return self._device.type == "cuda"

    def sample(self) -> None:
        """Update the peaks; takes well under a millisecond."""
        self._process_peak, self._in_use_peak = self._peaks_with_now()

    def peaks(self) -> MemoryUse:
        """Return the peaks up to now. Changes nothing, so it may be asked from any thread."""
        process, in_use = self._peaks_with_now()
        if not self._cuda:
            return MemoryUse(None, None, None, None, None, process)
        properties = torch.cuda.get_device_properties(self._device)
        reserved = torch.cuda.max_memory_reserved(self._device)
        return MemoryUse(
            device=properties.name,
            allocated=torch.cuda.max_memory_allocated(self._device),
            reserved=reserved,
            in_use=in_use,
            total=properties.total_memory,
            process=process,
            spill_suspected=SPILLS and max(reserved, in_use or 0) > SPILL_SHARE * properties.total_memory,
        )

    def _peaks_with_now(self) -> tuple[int, int | None]:
        process = max(self._process_peak, int(self._process.memory_info().rss))
        used = _nvml_used(self._device) if self._cuda else None
        in_use = self._in_use_peak if used is None else max(self._in_use_peak or 0, used)
        return process, in_use


def _nvml_used(device: torch.device) -> int | None:
    handle = _nvml_handle(device.index if device.index is not None else torch.cuda.current_device())
    if handle is None:
        return None
    import pynvml

    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
    except pynvml.NVMLError:
        return None


@cache
def _nvml_handle(index: int) -> Any:
    """Find NVML's handle of torch's device by UUID: CUDA_VISIBLE_DEVICES renumbers torch's devices but not NVML's."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None)
        if uuid is not None:
            return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}".encode())
        # Before torch 2.4 there is no UUID. With one card there is no doubt; with several, no number beats a wrong one.
        return pynvml.nvmlDeviceGetHandleByIndex(0) if pynvml.nvmlDeviceGetCount() == 1 else None
    except pynvml.NVMLError:
        return None
