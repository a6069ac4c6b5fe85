"""The largest resident memory of the process that asks."""

from __future__ import annotations

import os
import sys


def peak_bytes() -> int:
    """Return the largest resident memory that this process has had, in bytes; mapped files count."""
    if os.name == "nt":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)  # type: ignore[attr-defined]
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
