"""``python -m lib_fluxkontext batch MANIFEST --output FOLDER``: many pictures from a manifest."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_fluxkontext.command_line import DONE, FAILED, INTERRUPTED, WRONG_REQUEST, guarded, print_error
from lib_fluxkontext.commands.batch_workers import WorkerOptions, default_checkpoint, local_workers, row_check, run_ray
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.hosts.diffusers.options import LoadOptions, add_load_options, quiet_libraries

if TYPE_CHECKING:
    from lib_fluxkontext.batch.estimate import Estimate

SHOWN_ERRORS = 50
"""Mistakes of a manifest that are printed; the rest is counted."""


def add_command(commands: Any) -> None:
    """Add ``batch`` to the subcommands of a parser."""
    command = commands.add_parser("batch", help="make many pictures from a manifest: CSV, JSONL or YAML")
    command.set_defaults(run=run)
    add = command.add_argument
    add("manifest", type=Path, help=".csv, .jsonl or .yaml; paths in it are relative to it")
    add("--output", type=Path, required=True, metavar="FOLDER", help="for pictures, records, index and tables")
    add("--dry-run", action="store_true", help="validate, and say what it would take")
    add("--limit", type=_count, metavar="N", help="make only the next N pictures")
    add("--retry-failed", action="store_true", help="make rows again that failed before")
    add("--batch-size", type=_count, default=1, metavar="N", help="most rows of one shape in a batch (%(default)s)")
    add("--share", type=_share, default=(1, 1), metavar="K/N", help="only the K-th of N equal shares of the rows")
    add("--run-log", type=Path, metavar="FILE", help="the Forge extension's run log, for --dry-run's time")
    add_load_options(command)
    forge = command.add_argument_group("on Forge servers")
    forge.add_argument("--forge", action="append", metavar="URL", help="a server; may be given again")
    forge.add_argument("--auth", metavar="USER:PASSWORD", help="of --api-auth, the same for all servers")
    ray = command.add_argument_group("on a Ray cluster")
    ray.add_argument("--ray", nargs="?", const="", metavar="ADDRESS", help="of the cluster; without one, RAY_ADDRESS")
    ray.add_argument("--actors", type=_bounds, metavar="MIN:MAX", help="pipelines at work; default: as the GPUs allow")


def run(options: argparse.Namespace) -> int:
    """Run ``batch`` and return the exit code."""
    extra = "batch,ray" if options.ray is not None else "batch" if options.forge else "batch,diffusers"
    return guarded(
        lambda: _batch(options),
        lambda error: _wrong(error, options.manifest),
        "interrupted before the first picture",
        f'what this needs: pip install -e ".[{extra}]"',
    )


def _wrong(error: KontextError, manifest: Path) -> str:
    """Name the option, or the manifest, in an error's message."""
    if not error.field:
        return error.reason
    place = str(manifest) if error.field == "manifest" else f"--{error.field.replace('_', '-')}"
    return f"{place}: {error.reason}"


def _batch(options: argparse.Namespace) -> int:
    from lib_fluxkontext.batch.estimate import estimate
    from lib_fluxkontext.batch.folder import OutputFolder
    from lib_fluxkontext.batch.plan import Plan

    quiet_libraries(small_model=options.checkpoint is None)
    if options.ray is not None:  # other nodes work in other folders
        for name in ("manifest", "output", "checkpoint", "base"):
            path = getattr(options, name)
            setattr(options, name, path and path.absolute())
    where = WorkerOptions(
        LoadOptions.from_namespace(options), options.batch_size, options.forge or [], options.auth, options.ray,
        options.actors,
    )  # fmt: skip
    where.check()
    folder = OutputFolder(options.output)
    with Plan(options.batch_size, options.share) as plan:
        if mistakes := _add_rows(plan, options.manifest, where):
            print_error(f"{mistakes:,} mistakes in {options.manifest}; nothing was made" if mistakes > 1 else
                        f"a mistake in {options.manifest}; nothing was made")  # fmt: skip
            return WRONG_REQUEST
        plan.mark(folder.states(), options.retry_failed)
        plan.arrange(options.limit)
        if options.dry_run:
            print("\n".join(_estimated(estimate(plan, folder, options.run_log), where)))
            return DONE
        folder.prepare()
        return _run(plan, folder, where)


def _estimated(found: Estimate, where: WorkerOptions) -> list[str]:
    """Say what an estimate has found, its time divided among those that work at once."""
    workers = len(where.forge)
    if where.ray is not None:  # how many cards a cluster has, nobody has asked it yet
        workers = where.actors[1] if where.actors is not None else 1
    lines = found.lines(max(1, min(workers, found.to_do)))
    if found.seconds is not None and where.ray is not None and where.actors is None:
        lines[-1] += ", on one card"
    return lines


def _add_rows(plan: Any, manifest: Path, where: WorkerOptions) -> int:
    """Validate the manifest and add its rows to the plan; print what is wrong and return how much that is."""
    from lib_fluxkontext.batch.row import RowError
    from lib_fluxkontext.batch.validate import rows_of

    check, mistakes = row_check(where), 0
    default = default_checkpoint(where)
    for row in rows_of(manifest, where.small_model, default, local_models=not where.forge, nf4=where.loading.nf4):
        error = row if isinstance(row, RowError) else check(row)
        if error is not None:
            mistakes += 1
            if mistakes <= SHOWN_ERRORS:
                print_error(f"{manifest.name}, {error}")
        elif not mistakes and not isinstance(row, RowError):
            plan.add(row)
    if mistakes > SHOWN_ERRORS:
        print_error(f"and {mistakes - SHOWN_ERRORS:,} more")
    return mistakes


def _run(plan: Any, folder: Any, where: WorkerOptions) -> int:
    from lib_fluxkontext.batch.overviews import Overviews
    from lib_fluxkontext.batch.progress import Progress, duration
    from lib_fluxkontext.batch.runner import Runner

    before, start = plan.counts(), time.monotonic()
    overviews = Overviews(folder.path, before.all)
    workers = local_workers(where)
    progress = Progress(before.all, before.done + before.failed, before.failed, lambda: _fraction(workers))
    observers = (progress, overviews)
    try:
        if where.ray is None:
            result = Runner(plan, folder, workers, observers, queue_size=2 * where.batch_size + 2).run()
        else:
            result = run_ray(plan, folder, where, observers)
    finally:
        progress.close()
        for worker in workers:
            worker.close()
    after = plan.counts()
    seconds = time.monotonic() - start
    print(f"Made: {result.made:,} of {before.to_do:,} in {duration(seconds)}")
    if after.failed:
        print(f"Failed: {after.failed:,}; index and records say why, --retry-failed makes them again")
    if workers and result.made:
        print(_counted(workers))
    print(f"Index: {folder.path / 'index.html'}", flush=True)
    code = FAILED if after.failed else DONE
    if result.stopped is not None:
        print_error(result.stopped)
        code = FAILED
    elif result.interrupted:
        print_error(f"interrupted; {after.to_do:,} are still to do: start again to go on")
        code = INTERRUPTED
    try:
        for line in overviews.close(ended=after.to_do == 0):
            print_error(line)
    except KeyboardInterrupt:
        print_error("interrupted; the tables are not up to date: start again to write them")
        return INTERRUPTED
    return code


def _fraction(workers: Sequence[Any]) -> float | None:
    """Return what share of the rows in hand is done, of those workers that know."""
    known = [share for worker in workers if (share := getattr(worker, "fraction", None)) is not None]
    return sum(known) / len(known) if known else None


def _counted(workers: Sequence[Any]) -> str:
    encodes = sum(worker.counters.encodes for worker in workers)
    prompts = sum(worker.counters.prompts for worker in workers)
    loads = sum(worker.counters.loads for worker in workers)
    return f"References encoded: {encodes:,}, prompts embedded: {prompts:,}, checkpoints loaded: {loads:,}"


def _count(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f'got the text "{text}"; allowed: a whole number, 1 or more')


def _share(text: str) -> tuple[int, int]:
    number, _, of = text.partition("/")
    if number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of):
        return int(number), int(of)
    raise argparse.ArgumentTypeError(f'got the text "{text}"; allowed: K/N with K from 1 to N, such as 1/4')


def _bounds(text: str) -> tuple[int, int]:
    least, _, most = text.partition(":")
    most = most or least
    if least.isdecimal() and most.isdecimal() and 1 <= int(least) <= int(most):
        return int(least), int(most)
    raise argparse.ArgumentTypeError(f'got the text "{text}"; allowed: MIN:MAX, such as 1:8, or one number')
