"""What a batch would take: pictures, encodes, prompts, checkpoints, and about how long."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

from lib_fluxkontext.batch.folder import OutputFolder
from lib_fluxkontext.batch.plan import Plan, sized_references
from lib_fluxkontext.batch.progress import duration
from lib_fluxkontext.batch.record import read_record
from lib_fluxkontext.batch.row import Row
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.job import parse_size

MEASURED_ROWS = 200
"""Finished rows that are read to see how long one takes."""


@dataclass(frozen=True)
class Estimate:
    """What is left to do.

    Attributes:
        to_do: pictures to make.
        done: pictures that are there.
        failed: rows that failed and are not tried again.
        duplicates: rows that were given twice.
        encodes: references to encode, each at each size once for each checkpoint.
        prompts: prompts to embed, each once for each checkpoint.
        checkpoints: to load, each with its LoRAs.
        seconds: about how long it takes one worker; None where nothing was measured yet.
        source: what that is measured on.
    """

    to_do: int
    done: int
    failed: int
    duplicates: int
    encodes: int
    prompts: int
    checkpoints: int
    seconds: float | None
    source: str

    def lines(self, workers: int = 1) -> list[str]:
        """Say it.

        Args:
            workers: that share the work.
        """
        lines = [f"Pictures to make: {self.to_do:,}"]
        if self.done:
            lines.append(f"Done already: {self.done:,}")
        if self.failed:
            lines.append(f"Failed before, left out: {self.failed:,} (--retry-failed makes them again)")
        if self.duplicates:
            lines.append(f"Given twice, made once: {self.duplicates:,}")
        lines.append(f"References to encode: {self.encodes:,}")
        lines.append(f"Prompts to embed: {self.prompts:,}")
        lines.append(f"Checkpoints to load: {self.checkpoints:,}")
        if self.seconds is not None:
            lines.append(f"Time: about {duration(self.seconds / workers)}, from {self.source}")
        elif self.to_do:
            lines.append("Time: not known before a first row is measured: run with --limit 1, then ask again")
        return lines


def estimate(plan: Plan, folder: OutputFolder, run_log: Path | None = None) -> Estimate:
    """Estimate what is left of a plan.

    Args:
        plan: arranged.
        folder: of the output, whose finished rows show how long a row takes.
        run_log: of the Forge extension, asked where no row is finished.

    Raises:
        KontextError: the run log cannot be read.
    """
    counts = plan.counts()
    # On the disk where it is large: SQLite's own temporary database.
    with closing(sqlite3.connect("")) as database:
        database.execute("CREATE TABLE needs (kind TEXT, what TEXT, PRIMARY KEY (kind, what))")
        work = 0.0
        for row in plan.to_do():
            database.executemany("INSERT OR IGNORE INTO needs VALUES (?, ?)", _needs(row))
            work += _work(row.steps, row.width, row.height)
        kinds = dict(database.execute("SELECT kind, count(*) FROM needs GROUP BY kind").fetchall())
    rate, source = _rate(folder, run_log)
    return Estimate(
        counts.to_do,
        counts.done,
        counts.failed,
        plan.duplicates,
        kinds.get("encode", 0),
        kinds.get("prompt", 0),
        kinds.get("checkpoint", 0),
        rate * work if rate is not None else None,
        source,
    )


def _needs(row: Row) -> Iterator[tuple[str, str]]:
    yield "checkpoint", repr((row.checkpoint, row.loras))
    yield "prompt", repr((row.checkpoint, row.prompt))
    for digest, size in zip(row.digests, sized_references(row), strict=True):
        yield "encode", repr((row.checkpoint, digest, size))


def _work(steps: int, width: int, height: int) -> float:
    """Return what the seconds of a picture are about in proportion to."""
    return float(steps * width * height)


def _rate(folder: OutputFolder, run_log: Path | None) -> tuple[float | None, str]:
    """Return seconds for each unit of work, and where they are from."""
    done = (read_record(folder.record_path(key)) for key, finished in folder.states() if finished)
    records = [record for record in islice(done, MEASURED_ROWS) if record is not None and record["seconds"] > 0]
    rates = [record["seconds"] / _work(record["steps"], record["width"], record["height"]) for record in records]
    if rates:
        return median(rates), f"{len(rates):,} finished rows" if len(rates) > 1 else "one finished row"
    if run_log is None:
        return None, ""
    from lib_fluxkontext.history.store import LogError, RunLog  # imports torch

    try:
        runs = [run for _, run in RunLog(run_log).latest()]
    except LogError as error:
        raise KontextError(str(error), "run_log") from None
    for run in runs:
        width, height = parse_size(run.size)
        if run.steps and run.sampling_seconds > 0:
            rates.append(run.sampling_seconds / _work(run.steps, width, height) / max(run.images, 1))
    return (median(rates), f"{len(rates):,} runs in the run log") if rates else (None, "")
