"""Rows and workers of a batch that need no model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from lib_fluxkontext.batch.folder import OutputFolder
from lib_fluxkontext.batch.plan import Plan
from lib_fluxkontext.batch.record import FailedRecord, Record
from lib_fluxkontext.batch.row import Row
from lib_fluxkontext.batch.worker import Counters, Made, Outcome
from lib_fluxkontext.settings import KontextSettings


def a_row(number: int, **values: Any) -> Row:
    """Make a row; its key depends on its number alone."""
    key = hashlib.sha256(str(number).encode()).hexdigest()[:32]
    row = Row(number, number + 1, key, f"prompt {number}", (), (), KontextSettings(enabled=True), 96, 96, seed=number)
    return replace(row, **values)


def some_rows(count: int) -> list[Row]:
    """Make rows that differ in prompt and seed."""
    return [a_row(number) for number in range(1, count + 1)]


def arranged(rows: Sequence[Row], folder: OutputFolder | None = None, retry_failed: bool = False, **plan: Any) -> Plan:
    """Make a plan of rows that is ready to run, and prepare the folder."""
    made = Plan(**plan)
    for row in rows:
        made.add(row)
    if folder is not None:
        folder.prepare()
        made.mark(folder.states(), retry_failed)
    made.arrange()
    return made


@dataclass
class ScriptedWorker:
    """Does what a function says for each row, or makes a picture of one pixel.

    Attributes:
        script: gets a row and the rows that this worker has made before; returns an outcome, raises, or returns None.
        calls: the numbers of the rows of each call.
    """

    script: Callable[[Row, int], Outcome | None] = lambda row, made: None
    name: str = "scripted"
    counters: Counters = field(default_factory=Counters)
    calls: list[list[int]] = field(default_factory=list)
    closed: bool = False

    def make(self, rows: Sequence[Row]) -> list[Outcome]:
        outcomes = []
        for row in rows:
            made = sum(map(len, self.calls))
            outcomes.append(self.script(row, made) or Made(Image.new("RGB", (1, 1)), row.prompt, {}, 0.1, self.name))
        self.calls.append([row.number for row in rows])
        return outcomes

    def close(self) -> None:
        self.closed = True


@dataclass
class Told:
    """An observer that remembers."""

    records: list[Record | FailedRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def finished(self, record: Record | FailedRecord) -> None:
        self.records.append(record)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def tick(self) -> None:
        pass
