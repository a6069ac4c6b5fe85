"""Memory of the card as torch and the driver see it, or of the process where there is no card."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import psutil
import torch

from lib_fluxkontext.telemetry.spill import memory_tells_spill

SLICE_RATIO = 1.25
"""NVML's memory of a card by torch's, above which torch has only a slice (MIG) of it; they differ by a few percent."""


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
        spill_suspected: the card was so full that Windows' driver may have moved some of it to shared memory.
    """

    device: str | None
    allocated: int | None
    reserved: int | None
    in_use: int | None
    total: int | None
    process: int
    spill_suspected: bool = False

    @property
    def held(self) -> int:
        """Most bytes of the card that were reserved by torch or in use by all programs."""
        return max(self.reserved or 0, self.in_use or 0)


@dataclass(frozen=True)
class CardState:
    """A card at one moment, in bytes.

    Attributes:
        allocated: taken by torch's tensors.
        peak: most that they took since torch's counters were last reset.
        free: what could still be allocated: free for the driver, or held by torch's allocator and unused.
    """

    allocated: int
    peak: int
    free: int


class MemoryMeter:
    """Watches one generation.

    Args:
        device: where the model runs.
        reset_peaks: reset torch's peak counters at the start. False where the host shows and resets them itself.
    """

    def __init__(self, device: torch.device, reset_peaks: bool) -> None:
        self._device = _numbered(device)
        self._process = psutil.Process()
        self._process_peak = 0
        self._in_use_peak: int | None = None
        if self._cuda and reset_peaks:
            torch.cuda.reset_peak_memory_stats(self._device)
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
            spill_suspected=memory_tells_spill(max(reserved, in_use or 0), properties.total_memory),
        )

    def card(self) -> CardState | None:
        """Return what the card holds now; None without CUDA, or where it answers nothing any more. Changes nothing."""
        if not self._cuda:
            return None
        allocated = torch.cuda.memory_allocated(self._device)
        try:
            free, _ = torch.cuda.mem_get_info(self._device)
        except RuntimeError:
            return None
        unused = torch.cuda.memory_reserved(self._device) - allocated
        return CardState(allocated, torch.cuda.max_memory_allocated(self._device), free + unused)

    def allocated_peak(self) -> int | None:
        """Return the most that torch's tensors took since its counters were last reset; None without CUDA."""
        return torch.cuda.max_memory_allocated(self._device) if self._cuda else None

    def _peaks_with_now(self) -> tuple[int, int | None]:
        process = max(self._process_peak, int(self._process.memory_info().rss))
        used = _nvml_used(self._device) if self._cuda else None
        in_use = self._in_use_peak if used is None else max(self._in_use_peak or 0, used)
        return process, in_use


def _numbered(device: torch.device) -> torch.device:
    """Name the card: plain ``cuda`` is whichever is current in the thread that asks."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _nvml_used(device: torch.device) -> int | None:
    handle = _nvml_handle(device.index)
    if handle is None:
        return None
    import pynvml

    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
    except pynvml.NVMLError:
        return None


@cache
def _nvml_handle(index: int) -> Any:
    """Find NVML's handle of torch's device; None where there is a doubt, since no number beats a wrong one."""
    try:
        import pynvml
    except ImportError:
        return None
    card = torch.cuda.get_device_properties(index)
    try:
        pynvml.nvmlInit()
        handle = _find_handle(pynvml, getattr(card, "uuid", None))
        if handle is None or pynvml.nvmlDeviceGetMemoryInfo(handle).total > SLICE_RATIO * card.total_memory:
            return None
        return handle
    except pynvml.NVMLError:
        return None


def _find_handle(pynvml: Any, uuid: object) -> Any:
    """Find it by UUID: CUDA_VISIBLE_DEVICES renumbers torch's devices but not NVML's. NVML raises where none has it."""
    if uuid is None:
        # Before torch 2.4. A single NVIDIA card is torch's, unless this torch is built for AMD's.
        alone = torch.version.hip is None and pynvml.nvmlDeviceGetCount() == 1
        return pynvml.nvmlDeviceGetHandleByIndex(0) if alone else None
    with suppress(pynvml.NVMLError):
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}".encode())
    return pynvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}".encode())
