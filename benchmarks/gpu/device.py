"""Which card this is, whether there is any, and how much of it a process may take."""

from __future__ import annotations

import datetime
import gc
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import torch

from lib_fluxkontext.sampling.vram import GIB


def missing_device() -> str | None:
    """Say in one line why there is no CUDA device, and what mends it; None where there is one."""
    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None and getattr(torch.version, "hip", None) is None and _has_nvidia_card():
        return (
            f"This PyTorch ({torch.__version__}) was built without CUDA, though there is an NVIDIA card: install the "
            "CUDA build that pytorch.org/get-started names for this system into .venv."
        )
    return f"No CUDA device: PyTorch {torch.__version__} sees none. Nothing was measured."


def _has_nvidia_card() -> bool:
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no NVML, or a broken one: ask for the driver's own program instead
        return shutil.which("nvidia-smi") is not None
    return True


def describe(device: torch.device) -> str:
    """``"2026-11-21, NVIDIA H100 80GB HBM3, 79.2 GiB, driver 550.54, PyTorch 2.13.0+cu128"``."""
    parts = [str(datetime.date.today())]
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        parts += [card.name, f"{card.total_memory / GIB:.1f} GiB", f"driver {_driver()}"]
    else:
        parts.append(device.type.upper())
    return ", ".join([*parts, f"PyTorch {torch.__version__}"])


def _driver() -> str:
    with suppress(Exception):  # of the many ways in which NVML can be missing, none matters to what is measured
        import pynvml

        pynvml.nvmlInit()
        version = pynvml.nvmlSystemGetDriverVersion()
        return version.decode() if isinstance(version, bytes) else str(version)
    return "unknown"


def free_bytes(device: torch.device) -> int:
    """Return what can be allocated now: on the card, or in main memory for the CPU."""
    collect(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def allocated_bytes(device: torch.device) -> int:
    """Return what tensors hold on the card; 0 for the CPU, where torch does not count."""
    collect(device)
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def collect(device: torch.device) -> None:
    """Free what nothing refers to, and give it back to the driver."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def memory_limit(device: torch.device, limit: int) -> Iterator[None]:
    """Let this process allocate no more than so many bytes of the card; the CPU has no limit."""
    if device.type != "cuda":
        yield
        return
    collect(device)
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
