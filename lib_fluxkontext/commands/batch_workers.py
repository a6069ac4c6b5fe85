"""Where a batch runs: in process, on Forge servers, or on Ray. What each needs is imported when it is asked for."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from lib_fluxkontext.batch.folder import OutputFolder
from lib_fluxkontext.batch.plan import Plan
from lib_fluxkontext.batch.record import FailedRecord, Record, is_failed
from lib_fluxkontext.batch.row import Row, RowError
from lib_fluxkontext.batch.runner import DROPPING, Observer, Result, interrupts
from lib_fluxkontext.batch.worker import Worker, WorkerLost
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.hosts.diffusers.options import LoadOptions

if TYPE_CHECKING:
    from lib_fluxkontext.hosts.forge_api.worker import ForgeWorker


@dataclass(frozen=True)
class WorkerOptions:
    """Where to run.

    Attributes:
        loading: how checkpoints are loaded, in process or in Ray's actors.
        batch_size: most rows in a batch.
        forge: addresses of servers; of one for each node, ``localhost``'s, with Ray.
        auth: ``user:password`` for them.
        ray: address of a cluster, empty for the one that Ray itself finds or starts; None to run without Ray.
        actors: least and most of Ray's actors; None to leave it to the number of GPUs.
    """

    loading: LoadOptions
    batch_size: int
    forge: Sequence[str]
    auth: str | None
    ray: str | None
    actors: tuple[int, int] | None

    @property
    def small_model(self) -> bool:
        """Whether rows that name no checkpoint are made by the project's own small model."""
        return not self.forge and self.loading.checkpoint is None

    def check(self) -> None:
        """Refuse options that do not go together, and a checkpoint that cannot be loaded.

        Raises:
            KontextError: what is wrong.
        """
        given = [name for name, value in vars(self.loading).items() if value]
        if self.forge and given:
            raise KontextError("a server has settings of its own; not allowed with --forge", given[0])
        if self.forge and self.batch_size > 1:
            raise KontextError("Forge servers make one row at a time; not allowed with --forge", "batch_size")
        if self.auth is not None and not self.forge:
            raise KontextError("is for --forge alone", "auth")
        if self.actors is not None and self.ray is None:
            raise KontextError("is for --ray alone", "actors")
        if self.ray is not None and len(self.forge) > 1:
            raise KontextError("with --ray, give one address: that of the server of each node", "forge")
        if not self.forge and self.ray is None:
            _check_checkpoint(self.loading)


def default_checkpoint(where: WorkerOptions) -> str | None:
    """Return what the checkpoint of rows that name none is called; None for the small model.

    Raises:
        KontextError: a Forge server that cannot serve a batch, or servers with different checkpoints selected, whose
            pictures would depend on which of them is free.
    """
    if not where.forge:
        return where.loading.checkpoint.as_posix() if where.loading.checkpoint is not None else None
    if where.ray is not None:  # the servers are on other machines
        return None
    names = {url: _forge_worker(url, where.auth).check() for url in dict.fromkeys(where.forge)}
    if len(set(names.values())) > 1:
        selected = ", ".join(f"{name} at {url}" for url, name in names.items())
        raise KontextError(f"the servers have different checkpoints selected: {selected}; select one for all", "forge")
    return next(iter(names.values()))


def row_check(where: WorkerOptions) -> Callable[[Row], RowError | None]:
    """Return what tells whether a row's checkpoint and LoRAs can be loaded where it runs."""
    if where.forge or where.ray is not None:
        return lambda row: None

    @cache
    def fault(checkpoint: str) -> tuple[str | None, str] | None:
        try:
            check_named_checkpoint(where, checkpoint)
        except KontextError as error:
            return error.field, error.reason
        return None

    has_peft = importlib.util.find_spec("peft") is not None

    def check(row: Row) -> RowError | None:
        if row.checkpoint and (found := fault(row.checkpoint)) is not None:
            field, reason = found
            return RowError(row.line, "checkpoint", reason if field in (None, "checkpoint") else f"--{field}: {reason}")
        if row.loras and not has_peft:
            return RowError(row.line, "lora", "needs the package peft: pip install peft")
        return None

    return check


def local_workers(where: WorkerOptions) -> list[Worker]:
    """Return the workers that this process drives; none with Ray."""
    if where.ray is not None:
        return []
    if where.forge:
        return [_forge_worker(url, where.auth) for url in dict.fromkeys(where.forge)]
    from lib_fluxkontext.hosts.diffusers.batch import DiffusersWorker

    return [DiffusersWorker(where.loading)]


def run_ray(plan: Plan, folder: OutputFolder, where: WorkerOptions, observers: Sequence[Observer]) -> Result:
    """Run a plan on Ray; as ``Runner.run``, but a Ctrl-C drops the rows in hand."""
    from lib_fluxkontext.hosts.ray.options import RayOptions
    from lib_fluxkontext.hosts.ray.run import run_on_ray

    forge = where.forge[0] if where.forge else None
    actors = where.actors or RayOptions.actors
    options = RayOptions(where.ray or None, where.loading, where.batch_size, actors, forge, where.auth)
    result, stop = Result(), threading.Event()

    def interrupt() -> None:
        result.interrupted = True
        stop.set()

    def finished(record: Record | FailedRecord) -> None:
        failed = is_failed(record)
        result.failed += failed
        result.made += not failed
        plan.finish(record["number"], done=not failed)
        for observer in observers:
            observer.finished(record)
            observer.tick()

    with interrupts(interrupt):
        try:
            run_on_ray(plan, folder, options, finished, stop)
        except WorkerLost as lost:
            result.stopped = None if result.interrupted else f"The Ray cluster is lost: {lost}"
    if result.interrupted:
        for observer in observers:
            observer.note(DROPPING)
    return result


def _forge_worker(url: str, auth: str | None) -> ForgeWorker:
    from lib_fluxkontext.hosts.forge_api.worker import ForgeWorker

    return ForgeWorker(url, auth)


def check_named_checkpoint(where: WorkerOptions, checkpoint: str) -> None:
    """Check that a row's checkpoint can be loaded in process.

    Raises:
        KontextError: its field is the option at fault, which may be another than the checkpoint's.
    """
    _check_checkpoint(replace(where.loading, checkpoint=where.loading.path_for(checkpoint)))


def _check_checkpoint(loading: LoadOptions) -> None:
    from lib_fluxkontext.hosts.diffusers.loader import check_checkpoint

    check_checkpoint(*astuple(loading))
