"""Memory does not grow with the manifest: neither while rows are made, nor when a finished batch is started again."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import pytest

from lib_fluxkontext.batch.folder import OutputFolder
from lib_fluxkontext.batch.index import IndexWriter
from lib_fluxkontext.batch.record import FailedRecord, Record
from lib_fluxkontext.batch.runner import Runner
from lib_fluxkontext.batch.worker import NullWorker
from tests.support.batch_rows import arranged, some_rows

FEW, MANY = 550, 1150
"""More than any buffer holds."""

BYTES_A_ROW = 300
"""A key and its place in a few sets. A record is 8 kB, its line in the index 4."""


class Index:
    """Keeps the index alone: the tables hold 10,000 rows at a time, more than there are here."""

    def __init__(self, path: Path) -> None:
        self._index = IndexWriter(path)

    def finished(self, record: Record | FailedRecord) -> None:
        self._index.add(record)

    def note(self, text: str) -> None: ...

    def tick(self) -> None: ...


def peak(folder: OutputFolder, count: int, made: int) -> int:
    """Run a batch of so many rows, of which ``made`` are to be made; return the largest size of Python's heap."""
    rows = some_rows(count)
    gc.collect()
    tracemalloc.start()
    try:
        with arranged(rows, folder) as plan:
            result = Runner(plan, folder, [NullWorker()], [Index(folder.path)]).run()
        assert (result.made, result.failed, result.stopped) == (made, 0, None)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def growths(path: Path) -> list[int]:
    """Return by how many bytes many rows need more than few: while they are made, and when they are started again."""
    few, many = (OutputFolder(path / name, durable=False) for name in ("few", "many"))
    return [peak(many, MANY, MANY * made) - peak(few, FEW, FEW * made) for made in (True, False)]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    # Twice, for what is imported, and for Python's table of interned strings (parts of paths are some), which grows
    # by megabytes at a time, but seldom.
    attempts = [growths(tmp_path / name) for name in ("first", "second")]
    made, again = (min(attempt[case] for attempt in attempts) for case in (0, 1))
    assert max(made, again) < BYTES_A_ROW * (MANY - FEW)
