"""Runs a plan on a Ray cluster: Ray Data streams its rows through a pool of actors, and small records back."""

from __future__ import annotations

import itertools
import json
import logging
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset

from lib_fluxkontext import __version__
from lib_fluxkontext.batch.folder import OutputFolder
from lib_fluxkontext.batch.plan import Plan
from lib_fluxkontext.batch.record import FailedRecord, Record, row_values
from lib_fluxkontext.batch.row import Row
from lib_fluxkontext.batch.worker import WorkerLost
from lib_fluxkontext.errors import first_line
from lib_fluxkontext.hosts.ray.actor import BROKEN, KIND, LEFT, RESULT, ROW, RowMaker
from lib_fluxkontext.hosts.ray.options import RayOptions

__all__ = ["RayOptions", "run_on_ray"]

MAX_BLOCK = 32
"""Most rows that an actor takes at a time: they report together, and a node that is lost takes so many with it."""

BLOCKS_PER_ACTOR = 8
"""At least so many where there are rows enough, so that actors finish at about the same time."""

POLL_SECONDS = 0.2
CONNECT_SECONDS = 10.0

Finished = Callable[[Record | FailedRecord], None]


def run_on_ray(
    plan: Plan, folder: OutputFolder, options: RayOptions, finished: Finished, stop: threading.Event
) -> None:
    """Make what a plan has left to do.

    Args:
        plan: arranged; its rows are read in order, and not taken.
        folder: prepared, under a path that all nodes see.
        options: of the cluster and its actors.
        finished: called with each record, from this thread.
        stop: when it is set, the actors are ended with the rows in hand, and the call returns.

    Raises:
        WorkerLost: no cluster answers, no worker of it can go on, or all of them are lost.
    """
    with _connected(options.address):
        left: set[str] | None = None
        while True:
            rows = (row for row in plan.to_do() if left is None or row.key in left)
            number = plan.counts().to_do if left is None else len(left)
            now_left, reason, made = _one_pass(_dataset(rows, number, folder, options), finished, stop)
            if stop.is_set() or not now_left:
                return
            if not made:
                raise WorkerLost(f"{len(now_left):,} rows are left: {reason}")
            left = now_left  # others had their worker still, or theirs is back


def _one_pass(dataset: Dataset, finished: Finished, stop: threading.Event) -> tuple[set[str], str, int]:
    """Run a data set through, and return the keys of rows that are left, why, and how many were not."""
    left: set[str] = set()
    reason = ""
    made = 0
    for result in _results(dataset, stop):
        kind, text = result[KIND], result[RESULT]
        if kind == BROKEN:
            raise WorkerLost(text)
        if kind == LEFT:
            key, _, reason = text.partition(" ")
            left.add(key)
        else:
            finished(json.loads(text))
            made += 1
    return left, reason, made


def _dataset(rows: Iterator[Row], number: int, folder: OutputFolder, options: RayOptions) -> Dataset:
    """Describe the run to Ray Data. The rows go to its object store, which spills to the disk, block by block."""
    cards = _resource("GPU")
    fewest, most = options.actors or (1, max(1, cards or _resource("CPU")))
    block = _block_size(number, most, options.batch_size)
    tables: list[Any] = []
    while texts := [json.dumps(row_values(row, all_settings=False)) for row in itertools.islice(rows, block)]:
        tables.append(ray.put(pa.table({ROW: texts})))
    return ray.data.from_arrow_refs(tables).map_batches(
        RowMaker,
        fn_constructor_args=(folder, options, __version__),
        batch_size=None,  # a block as it is
        compute=ActorPoolStrategy(min_size=fewest, max_size=most, max_tasks_in_flight_per_actor=2),
        num_gpus=1 if cards else None,
        num_cpus=None if cards else 1,
    )  # Ray Data restarts actors, and repeats what they had in hand, without limit


def _block_size(rows: int, actors: int, batch_size: int) -> int:
    """Return how many rows an actor takes at a time; whole batches."""
    size = min(MAX_BLOCK, rows // (actors * BLOCKS_PER_ACTOR))
    return max(1, size // batch_size) * batch_size


def _resource(name: str) -> int:
    """Return how much of ``"CPU"`` or ``"GPU"`` the cluster has now."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(resources.get(name, 0))


def _results(dataset: Dataset, stop: threading.Event) -> Iterator[dict[str, Any]]:
    """Yield results as they come, until the end or until ``stop`` is set.

    Raises:
        WorkerLost: Ray gave up.
    """
    arrived: queue.Queue[dict[str, Any] | BaseException | None] = queue.Queue(1000)
    over = threading.Event()

    def put(item: dict[str, Any] | BaseException | None) -> bool:
        while not over.is_set():
            with suppress(queue.Full):
                arrived.put(item, timeout=POLL_SECONDS)
                return True
        return False

    def pull() -> None:
        try:
            for result in dataset.iter_rows():
                if not put(result):
                    return  # and the data set ends its actors
            put(None)
        except BaseException as error:
            put(error)

    # Waiting for Ray cannot be interrupted, and this thread has to notice ``stop``.
    threading.Thread(target=pull, name="results from Ray", daemon=True).start()
    try:
        while not stop.is_set():
            try:
                result = arrived.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if result is None:
                return
            if isinstance(result, BaseException):
                raise WorkerLost(f"Ray gave up: {_reason(result)}") from result
            yield result
    finally:
        over.set()


def _reason(error: BaseException) -> str:
    """Name what went wrong first, below what Ray has wrapped around it."""
    while (cause := getattr(error, "cause", None) or error.__cause__) is not None:
        error = cause
    return f"{type(error).__name__}: {first_line(error)}"


def _check_address(address: str) -> None:
    """Ray itself tries for minutes where nobody answers.

    Raises:
        OSError: nobody does; ``"auto"`` and ``"local"`` are left to Ray.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Connect to a cluster, unless this process is connected already; leaving ends the actors."""
    if ray.is_initialized():
        yield
        return
    try:
        _check_address(address or os.environ.get("RAY_ADDRESS", ""))
        ray.init(address=address, include_dashboard=False if address == "local" else None, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise WorkerLost(f"no Ray cluster answers at {address or 'the default address'}: {first_line(error)}") from None
    # The batch has a bar and lines of its own; Ray's are in its log files.
    DataContext.get_current().enable_progress_bars = False
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        ray.shutdown()
