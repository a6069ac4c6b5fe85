"""Runs a plan: a thread for each worker, one thread that writes, and the caller's thread, which watches.

Pictures are written while the next are sampled; a bounded queue lies between, so that memory stays flat.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

from lib_fluxkontext.batch.folder import OutputFolder
from lib_fluxkontext.batch.plan import Plan
from lib_fluxkontext.batch.record import FailedRecord, Record
from lib_fluxkontext.batch.row import Row
from lib_fluxkontext.batch.worker import Failed, Made, Outcome, Worker, WorkerLost
from lib_fluxkontext.errors import KontextError, first_line

POLL_SECONDS = 0.1
CLOSING_SECONDS = 10.0
"""How long to wait for threads after the second Ctrl-C."""

FINISHING = "Finishing the pictures in hand; press Ctrl-C again to drop them."
DROPPING = "Dropping the pictures in hand."


class Observer(Protocol):
    """Is told what happens, from different threads, but never two at a time."""

    def finished(self, record: Record | FailedRecord) -> None:
        """A row is done, or failed."""

    def note(self, text: str) -> None:
        """Something that the user should know."""

    def tick(self) -> None:
        """Nothing may have happened; called a few times a second."""


@dataclass
class Result:
    """How a run ended.

    Attributes:
        made: rows done in it.
        failed: rows failed in it.
        interrupted: whether it was interrupted.
        stopped: why it stopped before the end, one line, or None.
    """

    made: int = 0
    failed: int = 0
    interrupted: bool = False
    stopped: str | None = None


class Runner:
    """Runs a plan once.

    Args:
        plan: arranged.
        folder: prepared.
        workers: one or more.
        observers: told of every finished row. Where one cannot write, the run stops as if a picture could not.
        queue_size: pictures that may wait to be written.
    """

    def __init__(
        self,
        plan: Plan,
        folder: OutputFolder,
        workers: Sequence[Worker],
        observers: Sequence[Observer] = (),
        queue_size: int = 4,
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._workers = workers
        self._observers = observers
        self._outcomes: queue.Queue[tuple[Row, Outcome, str] | None] = queue.Queue(queue_size)
        self._notes: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._drop = threading.Event()
        self._changed = threading.Condition()
        self._observing = threading.Lock()
        self._in_hand = 0
        self._result = Result()

    def run(self) -> Result:
        """Run until nothing is left to do, or until it is interrupted or cannot go on.

        The first Ctrl-C finishes the rows in hand, the second drops them.
        """
        threads = [threading.Thread(target=self._work, args=[worker], daemon=True) for worker in self._workers]
        writer = threading.Thread(target=self._write_all, daemon=True)
        with interrupts(self._interrupt):
            for thread in (writer, *threads):
                thread.start()
            self._watch(threads)
            if self._drop.is_set() or self._result.stopped is not None:
                for worker in self._workers:
                    worker.close()
                self._join(threads, CLOSING_SECONDS)
            self._finish_writing(writer)
        self._tell_notes()
        left = self._plan.counts().to_do
        if left and self._result.stopped is None and not self._result.interrupted:
            self._result.stopped = f"No worker is left; {left:,} rows are still to do."
        return self._result

    def _interrupt(self) -> None:
        """Handle a Ctrl-C; in the main thread, at any moment."""
        if self._result.interrupted:
            self._drop.set()
            self._notes.put(DROPPING)
        else:
            self._result.interrupted = True
            self._notes.put(FINISHING)
        self._stop.set()

    def _watch(self, threads: Sequence[threading.Thread]) -> None:
        while any(thread.is_alive() for thread in threads):
            if self._drop.is_set() or self._result.stopped is not None:
                return
            self._join(threads, POLL_SECONDS)
            self._tell_notes()
            self._tick()

    def _join(self, threads: Sequence[threading.Thread], seconds: float) -> None:
        until = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _finish_writing(self, writer: threading.Thread) -> None:
        while writer.is_alive():
            try:
                self._outcomes.put(None, timeout=POLL_SECONDS)
            except queue.Full:
                continue
            break
        writer.join()

    def _tell_notes(self) -> None:
        while not self._notes.empty():
            text = self._notes.get()
            with self._observing:
                for observer in self._observers:
                    observer.note(text)

    def _tell_finished(self, record: Record | FailedRecord) -> None:
        with self._observing:
            for observer in self._observers:
                observer.finished(record)

    def _tick(self) -> None:
        with self._observing:
            for observer in self._observers:
                observer.tick()

    def _work(self, worker: Worker) -> None:
        """Take rows and make them; in a thread of this worker."""
        try:
            while (rows := self._next_rows()) is not None:
                try:
                    outcomes = self._make(worker, rows)
                    for row, outcome in zip(rows, outcomes, strict=True):
                        self._put((row, outcome, worker.name))
                except BaseException:
                    self._plan.give_back(rows)
                    raise
                finally:
                    with self._changed:
                        self._in_hand -= 1
                        self._changed.notify_all()
        except WorkerLost as lost:
            if not self._stop.is_set():
                self._notes.put(f"{worker.name} is lost: {lost}")
        except Exception as error:  # an error of the worker's own: others may go on
            self._notes.put(f"{worker.name} is lost: {type(error).__name__}: {first_line(error)}")

    def _next_rows(self) -> list[Row] | None:
        """Take rows that nobody has made; wait while others may still give some back. None at the end."""
        while not self._stop.is_set():
            with self._changed:
                rows = self._plan.take()
                if rows:
                    self._in_hand += 1
                elif self._in_hand:
                    self._changed.wait(POLL_SECONDS)
                    continue
                else:
                    return None
            left = [row for row in rows if not self._made_elsewhere(row)]
            if left:
                return left
            with self._changed:
                self._in_hand -= 1
        return None

    def _made_elsewhere(self, row: Row) -> bool:
        """Whether another machine has made the row meanwhile."""
        if not self._folder.is_done(row.key):
            return False
        self._plan.finish(row.number, done=True)
        return True

    def _make(self, worker: Worker, rows: Sequence[Row]) -> Sequence[Outcome]:
        outcomes = worker.make(rows)
        if len(outcomes) != len(rows):
            raise WorkerLost(f"it returned {len(outcomes)} outcomes for {len(rows)} rows")
        return outcomes

    def _put(self, item: tuple[Row, Outcome, str]) -> None:
        """Hand a result to the writer; dropped where the writer has stopped."""
        while self._result.stopped is None and not self._drop.is_set():
            try:
                self._outcomes.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return

    def _write_all(self) -> None:
        """Write results until there are no more; in the writer's thread."""
        try:
            while (item := self._outcomes.get()) is not None:
                if not self._drop.is_set():
                    self._tell_finished(self._write(*item))
        except OSError as error:
            self._give_up(f"{error.strerror or error}: {error.filename or self._folder.path}")
        except Exception as error:
            self._give_up(f"{type(error).__name__}: {first_line(error)}")

    def _give_up(self, reason: str) -> None:
        self._result.stopped = f"{reason}. What is in the folder is whole; start again to go on."
        self._stop.set()

    def _write(self, row: Row, outcome: Outcome, made_by: str) -> Record | FailedRecord:
        if isinstance(outcome, Made):
            try:
                record = self._folder.write(row, outcome)
            except KontextError as error:
                outcome = Failed(error.reason, error.field)
            else:
                self._plan.finish(row.number, done=True)
                self._result.made += 1
                return record
        failure = self._folder.write_failure(row, outcome, made_by)
        self._plan.finish(row.number, done=False)
        self._result.failed += 1
        return failure


@contextmanager
def interrupts(handler: Callable[[], None]) -> Iterator[None]:
    """Handle Ctrl-C while the context lasts; nothing changes outside of the main thread, which alone gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        handler()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
