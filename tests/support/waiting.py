"""Wait for a condition instead of for a time."""

from __future__ import annotations

import time
from collections.abc import Callable

INTERVAL = 0.1
"""Seconds between two looks."""


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Look again and again until the condition holds.

    Raises:
        TimeoutError: it did not within so many seconds; the message says what was waited for.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s in vain: {what}")
        time.sleep(INTERVAL)
