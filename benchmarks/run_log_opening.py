"""Does the run log's length slow its panel? ``python -m benchmarks.run_log_opening``.

What the panel reads and writes when *Show runs* is pressed, by order, with ten and with 10,000 runs, taking turns.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from statistics import median

from lib_fluxkontext.history.store import RunLog
from lib_fluxkontext.presentation.run_table import SORTABLE, as_html
from tests.support.runs import run

LENGTHS = (10, 10_000)
ROUNDS = 21
SHOWN = 50
THUMBNAIL_BYTES = 3_000


def filled(path: Path, length: int) -> RunLog:
    """A log of so many runs that differ in what they can be sorted by."""
    log = RunLog(path)
    for number in range(length):
        picture = os.urandom(THUMBNAIL_BYTES)
        log.add(run(sampling_seconds=float(number * 7919 % 997), seed=number, thumbnail=picture))
    return log


def main() -> None:
    """Print medians in milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        logs = {length: filled(Path(folder) / f"{length}.sqlite", length) for length in LENGTHS}
        times: dict[tuple[str, int], list[float]] = {}
        for _ in range(ROUNDS):
            for order, columns in SORTABLE.items():
                for length, log in logs.items():
                    start = time.perf_counter()
                    as_html(log.latest(SHOWN, *columns), log.count())
                    times.setdefault((order, length), []).append((time.perf_counter() - start) * 1000)
        for order in SORTABLE:
            ten, many = (median(times[order, length]) for length in LENGTHS)
            print(f"{order:18} {ten:6.2f} ms with {LENGTHS[0]} runs, {many:6.2f} ms with {LENGTHS[1]:,}")


if __name__ == "__main__":
    main()
