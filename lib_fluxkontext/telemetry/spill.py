"""Signs that Windows' driver moved memory of the card to main memory ("shared GPU memory").

It does so silently, and neither torch nor NVML can see it: it is inferred. On Linux CUDA runs out of memory instead.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

SPILLS = sys.platform == "win32"
"""Whether the driver moves memory of the card to main memory when it is full."""

FULL_SHARE = 0.985
"""Share of the card above which a spill is suspected: the driver starts moving before 100 %."""

NEARLY_FULL_SHARE = 0.9
"""Share above which a jump of step time is enough to suspect one: other programs' memory is not always counted."""

JUMP = 3.0
"""Ratio of a model call's time to that of the fastest of its kind; a spilled one takes many times as long."""


def memory_tells_spill(held: int, total: int) -> bool:
    """Whether the card was so full that memory must have been moved.

    Args:
        held: most bytes that were reserved or used.
        total: bytes of the card.
    """
    return SPILLS and held > FULL_SHARE * total


def nearly_full(held: int, total: int) -> bool:
    """Whether the card was so full that a jump of step time means a spill. Arguments as in ``memory_tells_spill``."""
    return SPILLS and held > NEARLY_FULL_SHARE * total


def step_time_jumped(seconds: Sequence[float]) -> bool:
    """Whether a model call took many times as long as others that do the same.

    The first one is left out: it loads kernels and may load weights.

    Args:
        seconds: of one sampling's model calls of one kind, in order.
    """
    later = seconds[1:]
    return len(later) > 1 and max(later) > JUMP * min(later)
