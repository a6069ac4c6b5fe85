"""Index and tables of a batch, kept up to date while it runs."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

from lib_fluxkontext.batch.index import IndexWriter
from lib_fluxkontext.batch.record import FailedRecord, Record
from lib_fluxkontext.batch.table import Tables, not_written

TABLE_SECONDS = 180.0
"""Between two writings of the tables, at least."""

TABLE_SHARE = 0.05
"""Largest share of the time that is spent on them: they are written from all records, however many."""


class Overviews:
    """An observer that appends to ``index.html`` and writes the tables now and then, in a thread of their own.

    Args:
        folder: of the output.
        total: rows in all.

    Raises:
        OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, total: int) -> None:
        self._index = IndexWriter(folder, total)
        self._tables = Tables(folder)
        self._thread: threading.Thread | None = None
        self._next = time.monotonic()  # at once: what they need is imported while the first row is made

    def finished(self, record: Record | FailedRecord) -> None:
        """Append to the index."""
        self._index.add(record)

    def note(self, text: str) -> None:
        """Nothing to show."""

    def tick(self) -> None:
        """Write the tables when it is time."""
        if time.monotonic() < self._next or (self._thread is not None and self._thread.is_alive()):
            return
        self._thread = threading.Thread(target=self._write_tables, daemon=True)
        self._thread.start()

    def close(self, ended: bool) -> list[str]:
        """Write all to the end.

        Args:
            ended: whether all rows are done or failed.

        Returns:
            A line for each file that could not be written, with what to do.
        """
        if self._thread is not None:
            self._thread.join()
        wrong = []
        try:
            self._index.close(ended)
        except OSError as error:
            wrong.append(not_written("index.html", error))
        try:
            wrong += self._tables.write(always=True)
        except OSError as error:
            wrong.append(not_written("results.csv", error))
        return wrong

    def _write_tables(self) -> None:
        start = time.monotonic()
        try:
            with suppress(Exception):  # the end says it, and pictures come first
                self._tables.write()
        finally:
            now = time.monotonic()
            self._next = now + max(TABLE_SECONDS, (now - start) / TABLE_SHARE)
