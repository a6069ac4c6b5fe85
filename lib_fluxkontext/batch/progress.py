"""What a batch shows while it runs: a bar on a terminal, else a line now and then for a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

from lib_fluxkontext.batch.record import FailedRecord, Record, is_failed

LINE_SECONDS = 60.0
"""Between two lines where the output is no terminal."""

_BAR = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"


class Progress:
    """An observer that shows how far a batch is.

    Args:
        total: rows in all.
        done: of them done, or failed, before.
        failed: of them failed before.
        in_hand: tells what share of the rows in hand is done, 0 to 1, or None.
    """

    def __init__(
        self, total: int, done: int = 0, failed: int = 0, in_hand: Callable[[], float | None] = lambda: None
    ) -> None:
        self._failed = failed
        self._in_hand = in_hand
        self._start = self._last_line = time.monotonic()
        self._begun_with = done
        self._bar = tqdm(
            total=total,
            initial=done,
            desc="Pictures",
            unit="picture",
            bar_format=_BAR,
            dynamic_ncols=True,
            smoothing=0.1,
            disable=None,
        )
        self._count = done
        self._total = total

    def finished(self, record: Record | FailedRecord) -> None:
        """Count a row; print why one failed."""
        self._count += 1
        if is_failed(record):
            self._failed += 1
            field = f"{record['field']}: " if record["field"] else ""
            self.note(f"Failed, line {record['line']}: {field}{record['reason']}")
        self._show()
        self._bar.update()

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        tqdm.write(text, file=sys.stderr)

    def tick(self) -> None:
        """Renew what is shown."""
        self._show()
        if not self._bar.disable:
            self._bar.refresh()
        elif time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            tqdm.write(self.line(), file=sys.stderr)

    def line(self) -> str:
        """Say how far it is: ``"12 of 200 pictures, 1 failed, 3.2 s a picture, 10 min left"``."""
        parts = [f"{self._count:,} of {self._total:,} pictures"]
        if self._failed:
            parts.append(f"{self._failed:,} failed")
        made = self._count - self._begun_with
        if made:
            seconds = (time.monotonic() - self._start) / made
            parts += [f"{seconds:.3g} s a picture", f"{duration(seconds * (self._total - self._count))} left"]
        return ", ".join(parts)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()

    def _show(self) -> None:
        share = self._in_hand()
        parts = [f"{self._failed:,} failed"] if self._failed else []
        if share is not None:
            parts.append(f"next {share:.0%}")
        self._bar.set_postfix_str(", ".join(parts), refresh=False)


def duration(seconds: float) -> str:
    """Say how long something takes, in the two largest units: ``"3 h 20 min"``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days:,} d {hours} h"
