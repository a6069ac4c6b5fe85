"""The run log's file. Whatever is wrong with it costs the log, never a generation."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple
from itertools import chain
from pathlib import Path

from lib_fluxkontext.history.record import COLUMNS, Run

LIMIT = 10_000
"""Runs kept; the oldest go first. With thumbnails about 50 MB."""

MIGRATIONS = (
    ("ALTER TABLE runs ADD COLUMN prompt TEXT DEFAULT ''",),
    # Without them sorting and counting read every thumbnail there is.
    tuple(
        f"CREATE INDEX IF NOT EXISTS by_{column} ON runs ({column}, id DESC)"
        for column in ("sampling_seconds", "computed_seconds", "memory_bytes", "checkpoint")
    ),
)
"""What each version since the first has done to the table."""

VERSION = 1 + len(MIGRATIONS)
BUSY_TIMEOUT_SECONDS = 2.0
"""Seconds to wait for another server that writes to the same file."""

_TYPES = {"int": "INTEGER", "float": "REAL", "bool": "INTEGER", "bytes": "BLOB"}
_FIRST = ", ".join(
    f"{name} {_TYPES.get(str(Run.__annotations__[name]).split(' ')[0], 'TEXT')}" for name in COLUMNS if name != "prompt"
)


class LogError(Exception):
    """The log cannot be used now; the message is one line for the user."""


class RunLog:
    """Runs in one SQLite file. Every call opens and closes it, so that no handle is left and servers can share it.

    Args:
        path: of the file; its folder is made when the first run is written.
        limit: most runs kept.
    """

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        self.path = path
        self.limit = limit

    def add(self, run: Run) -> Path | None:
        """Append a run. A file that is no log, or damaged, is set aside under another name, and a new one is begun.

        Returns:
            Where the damaged file is now, or None where nothing was wrong.

        Raises:
            LogError: the folder is read-only, the disk full, the file locked.
        """
        aside = None
        try:
            try:
                self._add(run)
            except sqlite3.OperationalError:  # read-only, full, locked: nothing is wrong with the file itself
                raise
            except sqlite3.DatabaseError:
                aside = self._quarantine()
                self._add(run)
        except sqlite3.DatabaseError as error:
            raise LogError(f"the run was not logged: {error} ({self.path})") from None
        return aside

    def latest(self, count: int = 50, sort: str = "id", descending: bool = True) -> list[tuple[int, Run]]:
        """(id, run) pairs, sorted by a column; runs that have no value there come last.

        Raises:
            ValueError: no such column.
            LogError: the file cannot be read.
        """
        if sort not in (*COLUMNS, "id"):
            raise ValueError(f"no column {sort}")
        order = "DESC" if descending else "ASC"
        return self._read(f"ORDER BY {sort} {order} NULLS LAST, id DESC LIMIT ?", [count])

    def get(self, ids: Sequence[int]) -> list[tuple[int, Run]]:
        """Some runs, in the order asked for; unknown ids are left out."""
        marks = ", ".join("?" * len(ids))
        found = dict(self._read(f"WHERE id IN ({marks})", list(ids)))
        return [(one, found[one]) for one in ids if one in found]

    def count(self) -> int:
        """How many runs there are."""
        if not self.path.exists():
            return 0
        with self._reading() as connection:
            return int(connection.execute("SELECT count(*) FROM runs").fetchone()[0])

    def clear(self) -> None:
        """Forget all runs; a damaged file is set aside."""
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
            marks = ", ".join("?" * len(COLUMNS))
            connection.execute(f"INSERT INTO runs ({', '.join(COLUMNS)}) VALUES ({marks})", astuple(run))
            connection.execute("DELETE FROM runs WHERE id <= (SELECT max(id) FROM runs) - ?", [self.limit])

    def _read(self, which: str, values: list) -> list[tuple[int, Run]]:
        """Rows of a table of any version so far: what it lacks has its default, since it may be read-only."""
        if not self.path.exists():
            return []
        with self._reading() as connection:
            there = {row[1] for row in connection.execute("PRAGMA table_info(runs)")}
            names = [name for name in COLUMNS if name in there]
            rows = connection.execute(f"SELECT id, {', '.join(names)} FROM runs {which}", values)
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
        """A connection in a transaction, with a table there."""
        with closing(sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_SECONDS)) as connection, connection:
            version = _version(connection)
            if version == 0:
                _migrate(connection)
            elif version > VERSION:
                raise LogError(f"the run log is from a newer version of the extension ({self.path})")
            yield connection

    def _quarantine(self) -> Path:
        """Keep a damaged file for whoever wants to look, under a name of its own."""
        try:
            return self.path.replace(self.path.with_name(f"{self.path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"))
        except OSError as error:
            raise LogError(f"the run log is damaged and cannot be moved: {error.strerror} ({self.path})") from None


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _migrate(connection: sqlite3.Connection) -> None:
    """Make the table, or add what newer versions have; in place, and by one server at a time."""
    if _version(connection) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    version = _version(connection)  # another server may have been faster
    if version == 0:
        connection.execute(f"CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY AUTOINCREMENT, {_FIRST})")
        version = 1
    for statement in chain.from_iterable(MIGRATIONS[version - 1 :]):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")
