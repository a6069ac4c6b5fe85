"""All rows of a batch, in the order in which they are made: in a temporary SQLite file, so that memory does not grow
with the manifest."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from pathlib import Path

from lib_fluxkontext.batch.record import row_from_values, row_values
from lib_fluxkontext.batch.row import Row
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.images.decode import read_size
from lib_fluxkontext.images.sizing import plan_size

TO_DO, TAKEN, DONE, FAILED = range(4)

_CACHE_KIB = 16_000
_SIZES_KEPT = 4096
_INSERTED_AT_ONCE = _READ_AT_ONCE = 500

_TABLE = """
CREATE TABLE rows (
    number INTEGER PRIMARY KEY, key TEXT UNIQUE, state INTEGER DEFAULT 0,
    model TEXT, shape TEXT, images TEXT, prompt TEXT, row TEXT
)
"""

_ORDER = """
CREATE TABLE places AS SELECT number FROM (
    SELECT number, shape, prompt,
        min(number) OVER (PARTITION BY model) AS by_model,
        min(number) OVER (PARTITION BY model, {shape}) AS by_shape,
        min(number) OVER (PARTITION BY model, {shape}, images) AS by_images,
        min(number) OVER (PARTITION BY model, {shape}, images, prompt) AS by_prompt
    FROM rows
) ORDER BY by_model, by_shape, by_images, by_prompt, number
"""


@dataclass(frozen=True)
class PlanCounts:
    """How many rows are in which state."""

    to_do: int
    done: int
    failed: int

    @property
    def all(self) -> int:
        """Rows in all."""
        return self.to_do + self.done + self.failed


class Plan:
    """Rows to make. ``add`` them, tell what is done already, ``arrange`` them, then ``take`` groups; from any thread.

    They are ordered by checkpoint and LoRAs, by images and by prompt, so that each is loaded or encoded once; with a
    batch size over 1 by shape in between, so that batches are full. Groups come in the order in which the manifest
    first names them.

    Args:
        batch_size: most rows in a group.
        share: K and N: only rows whose key modulo N is K − 1.
    """

    def __init__(self, batch_size: int = 1, share: tuple[int, int] = (1, 1)) -> None:
        self._batch_size = batch_size
        self._share = share
        self._folder = tempfile.TemporaryDirectory(
            prefix="kontext-batch-",
            ignore_cleanup_errors=True,  # a scanner may have it open on Windows
        )
        self._lock = threading.Lock()
        self._database = sqlite3.connect(Path(self._folder.name) / "plan.sqlite", check_same_thread=False)
        # It is thrown away after a crash anyway.
        for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}", "temp_store = FILE"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.execute(_TABLE)
        self._pending: list[tuple[object, ...]] = []
        self._position = 0
        self.duplicates = 0
        """Rows that were added twice; they are made once."""

    def __enter__(self) -> Plan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Delete the file."""
        with self._lock:
            self._database.close()
            self._folder.cleanup()

    def add(self, row: Row) -> None:
        """Add a row, unless it belongs to another share."""
        number, of = self._share
        if of > 1 and int(row.key, 16) % of != number - 1:
            return
        self._pending.append(
            (
                row.number,
                row.key,
                _hash(row.checkpoint, *((lora.name, lora.weight) for lora in row.loras)),
                shape_of(row) if self._batch_size > 1 else "",
                _hash(*row.digests),
                _hash(row.prompt),
                json.dumps(row_values(row, all_settings=False), ensure_ascii=False),
            )
        )
        if len(self._pending) >= _INSERTED_AT_ONCE:
            with self._lock:
                self._insert()

    def _insert(self) -> None:
        if not self._pending:
            return
        statement = "INSERT OR IGNORE INTO rows (number, key, model, shape, images, prompt, row) VALUES (?,?,?,?,?,?,?)"
        inserted = self._database.executemany(statement, self._pending).rowcount
        self.duplicates += len(self._pending) - inserted
        self._pending.clear()

    def mark(self, states: Iterable[tuple[str, bool]], retry_failed: bool = False) -> None:
        """Tell which keys are done, or failed, already; others than the plan's are ignored.

        Args:
            states: key, and whether it is done, else failed.
            retry_failed: make failed ones again.
        """
        with self._lock:
            self._insert()
            for key, done in states:
                if done:
                    self._database.execute("UPDATE rows SET state = ? WHERE key = ?", (DONE, key))
                elif not retry_failed:
                    self._database.execute("UPDATE rows SET state = ? WHERE key = ? AND state = 0", (FAILED, key))

    def arrange(self, limit: int | None = None) -> None:
        """Put what is to do in order; once, when all rows are there.

        Args:
            limit: make only so many of them.
        """
        with self._lock:
            self._insert()
            self._database.execute(_ORDER.format(shape="shape" if self._batch_size > 1 else "''"))
            if limit is not None:
                rest = "SELECT number FROM rows JOIN places USING (number) WHERE state = 0 ORDER BY places.rowid"
                self._database.execute(f"DELETE FROM rows WHERE number IN ({rest} LIMIT -1 OFFSET ?)", (limit,))

    def counts(self) -> PlanCounts:
        """Count the rows by state; those that are taken are still to do."""
        with self._lock:
            self._insert()
            states = dict(self._database.execute("SELECT state, count(*) FROM rows GROUP BY state").fetchall())
        return PlanCounts(states.get(TO_DO, 0) + states.get(TAKEN, 0), states.get(DONE, 0), states.get(FAILED, 0))

    def take(self) -> list[Row]:
        """Take the next rows of one shape, at most ``batch_size``; none where nothing is left to take."""
        with self._lock:
            statement = (
                "SELECT places.rowid, number, model, shape, row FROM places JOIN rows USING (number) "
                "WHERE places.rowid > ? AND state = 0 ORDER BY places.rowid LIMIT ?"
            )
            found = self._database.execute(statement, (self._position, self._batch_size)).fetchall()
            group = list(takewhile(lambda entry: entry[2:4] == found[0][2:4], found))
            if group:
                self._position = group[-1][0]
                self._set_state([number for _, number, *_ in group], TAKEN)
        return [row_from_values(json.loads(entry[-1])) for entry in group]

    def give_back(self, rows: Iterable[Row]) -> None:
        """Return rows that were not made; they come next."""
        with self._lock:
            for row in rows:
                self._set_state([row.number], TO_DO)
                statement = "SELECT rowid FROM places WHERE number = ?"
                (place,) = self._database.execute(statement, (row.number,)).fetchone()
                self._position = min(self._position, place - 1)

    def finish(self, number: int, done: bool) -> None:
        """Record that the row of this number is done, or failed."""
        with self._lock:
            self._set_state([number], DONE if done else FAILED)

    def to_do(self) -> Iterator[Row]:
        """Iterate over what is left, in order, without taking it."""
        statement = (
            "SELECT places.rowid, row FROM places JOIN rows USING (number) "
            "WHERE places.rowid > ? AND state = 0 ORDER BY places.rowid LIMIT ?"
        )
        place = 0
        while True:
            with self._lock:
                found = self._database.execute(statement, (place, _READ_AT_ONCE)).fetchall()
            if not found:
                return
            place = found[-1][0]
            for _, row in found:
                yield row_from_values(json.loads(row))

    def _set_state(self, numbers: Iterable[int], state: int) -> None:
        pairs = [(state, number) for number in numbers]
        self._database.executemany("UPDATE rows SET state = ? WHERE number = ?", pairs)


def shape_of(row: Row) -> str:
    """Return a text that is the same for rows that can be sampled in one batch, checkpoint and LoRAs aside."""
    values = row_values(row, all_settings=False)
    own = (values["settings"], row.width, row.height, row.steps, row.guidance)
    return _hash(json.dumps([*own, sized_references(row)], sort_keys=True))


def sized_references(row: Row) -> list[tuple[int, int]]:
    """Return width and height in pixels at which each reference is encoded; (0, 0) for one that cannot be read now."""
    settings, output = row.settings, (row.width, row.height)
    sizes = []
    for number, path in enumerate(row.images, 1):
        try:
            source = _image_size(path)
            sizes.append(plan_size(source, settings.sizing, settings.half_size, output, f"image{number}").target)
        except (OSError, KontextError):  # making the row says it
            sizes.append((0, 0))
    return sizes


@lru_cache(_SIZES_KEPT)
def _image_size(path: Path) -> tuple[int, int]:
    with path.open("rb") as file:
        return read_size(file, path.name)


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
