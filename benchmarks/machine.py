"""Date and hardware, as every measured document states them."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

import torch


def machine(threads: int | None = None) -> str:
    """``"2026-11-21, Intel Xeon …, 2 cores, 1 thread, PyTorch 2.13.0"``, and the card where there is one."""
    used = threads or torch.get_num_threads()
    parts = [
        str(datetime.date.today()),
        _processor(),
        f"{os.cpu_count()} cores",
        f"{used} thread{'s' if used > 1 else ''}",
        f"PyTorch {torch.__version__.split('+')[0]}",
    ]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
