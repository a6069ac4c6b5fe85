"""What runs on the nodes of a cluster: a worker that is built once, and writes its pictures itself."""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple
from typing import Any

from lib_fluxkontext import __version__
from lib_fluxkontext.batch.folder import OutputFolder
from lib_fluxkontext.batch.plan import shape_of
from lib_fluxkontext.batch.record import FailedRecord, Record, read_record, row_from_values, to_json
from lib_fluxkontext.batch.row import Row
from lib_fluxkontext.batch.worker import Failed, Outcome, Worker, WorkerLost
from lib_fluxkontext.errors import KontextError, first_line
from lib_fluxkontext.hosts.ray.options import RayOptions

ROW, KIND, RESULT = "row", "kind", "result"
"""Columns: a row's values as JSON on the way in; on the way out what became of it, and its record or a reason."""

DONE, FAILED, LEFT, BROKEN = "done", "failed", "left", "broken"
"""Kinds of results: a record, a failed record; a row (its key, then why) that this worker could not make because it was
lost itself; why no worker can go on."""

Result = tuple[str, str]
"""Kind and text."""


class RowMaker:
    """Makes blocks of rows; Ray Data builds one in each actor.

    Args:
        folder: the output folder, which all nodes share.
        options: of the batch.
        version: of the package that the driver runs.
    """

    def __init__(self, folder: OutputFolder, options: RayOptions, version: str) -> None:
        self._folder = folder
        self._options = options
        self._version = version
        self._worker: Worker | None = None
        self._writer = ThreadPoolExecutor(1)

    def __call__(self, block: dict[str, Any]) -> dict[str, list[str]]:
        """Make the rows of a block, in order, and return a small result for each."""
        rows = [row_from_values(json.loads(text)) for text in block[ROW]]
        try:
            results = self._make_all(rows)
        except OSError as error:  # a full disk, a folder that is gone: other rows would end the same way
            results = [(BROKEN, f"{self._place()}: {error.strerror or error}: {error.filename or self._folder.path}")]
        except KontextError as error:  # the worker could not be built
            results = [(BROKEN, f"{self._place()}: {error}")]
        except Exception as error:  # an error of ours; Ray would wrap it up beyond recognition
            results = [(BROKEN, f"{self._place()}: {type(error).__name__}: {first_line(error)}")]
        return {KIND: [kind for kind, _ in results], RESULT: [text for _, text in results]}

    def _make_all(self, rows: Sequence[Row]) -> list[Result]:
        """Make rows; each batch is written while the next one is sampled."""
        results: list[Result] = []
        writing: Future[list[Result]] | None = None
        lost: str | None = None
        # Of a block whose node was lost, some may be done.
        todo = []
        for row in rows:
            record = read_record(self._folder.record_path(row.key)) if self._folder.is_done(row.key) else None
            if record is not None:
                record["number"] = row.number  # it may have been made from another manifest
                results.append((DONE, to_json(record).decode()))
            else:
                todo.append(row)
        for batch in _batches(todo, self._options.batch_size):
            if lost is None:
                try:
                    outcomes = self._ready_worker().make(batch)
                except WorkerLost as error:
                    lost = f"{self._place()}: {error}"
            if lost is not None:
                results += [(LEFT, f"{row.key} {lost}") for row in batch]
                continue
            if writing is not None:
                results += writing.result()
            writing = self._writer.submit(self._write, batch, outcomes)
        return results + (writing.result() if writing is not None else [])

    def _write(self, rows: Sequence[Row], outcomes: Sequence[Outcome]) -> list[Result]:
        return [self._write_one(row, outcome) for row, outcome in zip(rows, outcomes, strict=True)]

    def _write_one(self, row: Row, outcome: Outcome) -> Result:
        record: Record | FailedRecord
        if not isinstance(outcome, Failed):
            try:
                record = self._folder.write(row, outcome)
            except KontextError as error:
                outcome = Failed(error.reason, error.field)
            else:
                return DONE, to_json(record).decode()
        record = self._folder.write_failure(row, outcome, self._ready_worker().name)
        return FAILED, to_json(record).decode()

    def _ready_worker(self) -> Worker:
        """Build the worker with the first row: an error in a constructor would be retried by Ray for ever.

        Raises:
            KontextError: no node could go on like this: another version, a wrong address, a checkpoint that cannot be.
            WorkerLost: this node's server does not serve.
        """
        if self._worker is None:
            if self._version != __version__:
                versions = f"Flux Kontext {__version__} is installed, and {self._version} where the batch was started"
                raise KontextError(f"{versions}; install the same on all nodes")
            self._worker = self._build()
            self._worker.name = f"{self._worker.name} at {self._place()}"
        return self._worker

    def _build(self) -> Worker:
        if self._options.forge is not None:
            from lib_fluxkontext.hosts.forge_api.worker import ForgeWorker

            worker = ForgeWorker(self._options.forge.replace("{gpu}", _card()), self._options.auth)
            try:
                worker.check()
            except KontextError as error:  # this node's server: those of others may do, and this one may come later
                raise WorkerLost(str(error)) from None
            return worker
        from lib_fluxkontext.hosts.diffusers.batch import DiffusersWorker
        from lib_fluxkontext.hosts.diffusers.loader import check_checkpoint

        check_checkpoint(*astuple(self._options.loading))
        return DiffusersWorker(self._options.loading)

    @staticmethod
    def _place() -> str:
        return socket.gethostname()


def _batches(rows: Sequence[Row], size: int) -> Iterator[list[Row]]:
    """Split rows where the model or the shape changes, and then to at most ``size``."""

    def shape(row: Row) -> object:
        return (row.checkpoint, row.loras, shape_of(row)) if size > 1 else None

    for _, alike in itertools.groupby(rows, shape):
        while batch := list(itertools.islice(alike, size)):
            yield batch


def _card() -> str:
    """Return the number of the card that Ray has given this actor; 0 without one."""
    import ray

    cards = ray.get_runtime_context().get_accelerator_ids().get("GPU") or ["0"]
    return str(cards[0])
