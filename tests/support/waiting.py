"""Wait for a condition instead of for a time."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable


def wait_until(
    condition: Callable[[], bool],
    timeout: float,
    what: Callable[[], str],
    interval: float = 0.1,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Poll until a condition holds.

    Args:
        condition: polled at least once, also when the timeout is 0.
        timeout: in seconds.
        what: describes what is waited for and how things stand; called when the time is up.
        interval: seconds between two polls.
        sleep: waits that long.

    Raises:
        TimeoutError: the condition did not hold in time; with the description.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s for {what()}")
        sleep(interval)


INTERRUPTED = (130, -signal.SIGINT)
"""How a process ends that Ctrl-C interrupted. Where the interrupt came while a string was executed (dataclasses are
made that way), CPython kills itself by the signal at the very end, handled or not; a shell shows 130 either way."""
