"""The run log's file. A failure costs a record in the log, never a generation."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple
from itertools import chain
from pathlib import Path

from lib_fluxkontext.history.record import COLUMNS, Run

DEFAULT_LIMIT = 10_000
"""Runs in a log, about 50 MB with thumbnails. The oldest are deleted first."""

_ESTIMATE_COLUMNS = ("estimated_bytes", "reserved_bytes", "used_bytes")

MIGRATIONS = (
    ("ALTER TABLE runs ADD COLUMN prompt TEXT DEFAULT ''",),
    # Without indexes sorting and counting would read every thumbnail.
    tuple(
        f"CREATE INDEX IF NOT EXISTS by_{column} ON runs ({column}, id DESC)"
        for column in ("sampling_seconds", "computed_seconds", "memory_bytes", "checkpoint")
    ),
    tuple(f"ALTER TABLE runs ADD COLUMN {column} INTEGER" for column in _ESTIMATE_COLUMNS),
)
"""SQL statements that lead from each version of the table to the next, from the first on."""

VERSION = 1 + len(MIGRATIONS)
BUSY_TIMEOUT_SECONDS = 2.0
"""Seconds to wait for another server that writes to the same file."""

_SQL_TYPES = {"int": "INTEGER", "float": "REAL", "bool": "INTEGER", "bytes": "BLOB"}
_LATER_COLUMNS = ("prompt", *_ESTIMATE_COLUMNS)
"""Added by ``MIGRATIONS``."""

_FIRST_VERSION_COLUMNS = ", ".join(
    f"{name} {_SQL_TYPES.get(str(Run.__annotations__[name]).split(' ')[0], 'TEXT')}"
    for name in COLUMNS
    if name not in _LATER_COLUMNS
)


class LogError(Exception):
    """The log cannot be used; the message is one line for the user."""


class RunLog:
    """Runs in one SQLite file. Every call opens and closes it, so that no handle leaks and servers can share it.

    Args:
        path: of the file; its folder is created when the first run is added.
        limit: maximum number of runs.
    """

    def __init__(self, path: Path, limit: int = DEFAULT_LIMIT) -> None:
        self.path = path
        self.limit = limit

    def add(self, run: Run) -> Path | None:
        """Add a run. A file that is damaged, or no log, is renamed and a new one is created.

        Returns:
            Path of the damaged file, or None where nothing was wrong.

        Raises:
            LogError: the folder is read-only, the disk full, the file locked.
        """
        damaged_file = None
        try:
            try:
                self._add(run)
            except sqlite3.OperationalError:  # read-only, full, locked: nothing is wrong with the file itself
                raise
            except sqlite3.DatabaseError:
                damaged_file = self._quarantine()
                self._add(run)
        except sqlite3.DatabaseError as error:
            raise LogError(f"the run was not logged: {error} ({self.path})") from None
        return damaged_file

    def latest(self, count: int = 50, sort: str = "id", descending: bool = True) -> list[tuple[int, Run]]:
        """Return (id, run) pairs, sorted by a column; runs without a value in it come last.

        Raises:
            ValueError: no such column.
            LogError: the file cannot be read.
        """
        if sort not in (*COLUMNS, "id"):
            raise ValueError(f"no column {sort}")
        order = "DESC" if descending else "ASC"
        return self._read(f"ORDER BY {sort} {order} NULLS LAST, id DESC LIMIT ?", [count])

    def get(self, ids: Sequence[int]) -> list[tuple[int, Run]]:
        """Return (id, run) pairs in the order of the ids; unknown ids are left out.

        Raises:
            LogError: the file cannot be read.
        """
        placeholders = ", ".join("?" * len(ids))
        runs = dict(self._read(f"WHERE id IN ({placeholders})", list(ids)))
        return [(number, runs[number]) for number in ids if number in runs]

    def count(self) -> int:
        """Count the runs.

        Raises:
            LogError: the file cannot be read.
        """
        if not self.path.exists():
            return 0
        with self._reading() as connection:
            return int(connection.execute("SELECT count(*) FROM runs").fetchone()[0])

    def clear(self) -> None:
        """Delete all runs; a damaged file is renamed.

        Raises:
            LogError: the folder is read-only, the file locked.
        """
        if not self.path.exists():
            return
        try:
            with self._open() as connection:
                connection.execute("DELETE FROM runs")
        except sqlite3.OperationalError as error:  # nothing is wrong with the file itself
            raise LogError(f"the run log could not be cleared: {error}") from None
        except sqlite3.DatabaseError:
            self._quarantine()

    def _add(self, run: Run) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LogError(f"the run was not logged: {error.strerror} ({self.path.parent})") from None
        with self._open() as connection:
            _migrate(connection)
            placeholders = ", ".join("?" * len(COLUMNS))
            connection.execute(f"INSERT INTO runs ({', '.join(COLUMNS)}) VALUES ({placeholders})", astuple(run))
            connection.execute("DELETE FROM runs WHERE id <= (SELECT max(id) FROM runs) - ?", [self.limit])

    def _read(self, clauses: str, parameters: list[int]) -> list[tuple[int, Run]]:
        """Read rows of a table of any version. It may be read-only, so missing columns are not added but defaulted."""
        if not self.path.exists():
            return []
        with self._reading() as connection:
            existing = {row[1] for row in connection.execute("PRAGMA table_info(runs)")}
            names = [name for name in COLUMNS if name in existing]
            rows = connection.execute(f"SELECT id, {', '.join(names)} FROM runs {clauses}", parameters)
            return [(number, Run(**dict(zip(names, row, strict=True)))) for number, *row in rows]

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._open() as connection:
                yield connection
        except sqlite3.DatabaseError as error:
            raise LogError(f"the run log cannot be read: {error} ({self.path})") from None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Open a connection in a transaction, and create the table if there is none."""
        with closing(sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_SECONDS)) as connection, connection:
            version = _version(connection)
            if version == 0:
                _migrate(connection)
            elif version > VERSION:
                raise LogError(f"the run log is from a newer version of the extension ({self.path})")
            yield connection

    def _quarantine(self) -> Path:
        """Rename a damaged file, so that the user can still inspect it; return its new path."""
        try:
            return self.path.replace(self.path.with_name(f"{self.path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"))
        except OSError as error:
            raise LogError(f"the run log is damaged and cannot be moved: {error.strerror} ({self.path})") from None


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _migrate(connection: sqlite3.Connection) -> None:
    """Create the table, or bring it to this version; in place, and by one server at a time."""
    if _version(connection) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    version = _version(connection)  # another server may have been faster
    if version == 0:
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY AUTOINCREMENT, {_FIRST_VERSION_COLUMNS})"
        )
        version = 1
    for statement in chain.from_iterable(MIGRATIONS[version - 1 :]):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")
