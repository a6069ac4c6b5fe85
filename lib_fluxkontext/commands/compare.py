"""``python -m lib_fluxkontext compare``: checkpoints × LoRAs × steps × caches, as a table and as a picture to post."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib_fluxkontext.batch.row import Row
from lib_fluxkontext.batch.worker import Outcome, Worker
from lib_fluxkontext.command_line import DONE, FAILED, INTERRUPTED, guarded, print_error
from lib_fluxkontext.commands.batch_workers import (
    WorkerOptions,
    check_named_checkpoint,
    default_checkpoint,
    local_workers,
    row_check,
)
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.hosts.diffusers.options import LoadOptions, add_device_options, quiet_libraries
from lib_fluxkontext.text_values import parse_number

WARM_UP_STEPS = 2
"""Sampler steps of a picture that is thrown away: the first after loading takes longer, which is no cache's fault."""


def add_command(commands: Any) -> None:
    """Add ``compare`` to the subcommands of a parser."""
    command = commands.add_parser("compare", help="compare checkpoints, caches and steps: seconds, memory, pictures")
    command.set_defaults(run=run)
    add = command.add_argument
    add("--image", type=Path, action="append", metavar="FILE", help="a reference; may be given again")
    add("--prompt", required=True, help="what should happen")
    add("--checkpoint", action="append", metavar="NAME", help="may be given again; default: the small model")
    add("--cache", default="off,0.08,0.14,fast", help="thresholds and presets; off is added (%(default)s)")
    add("--steps", default="20", help="sampler steps, several by commas (%(default)s)")
    add(
        "--lora",
        action="append",
        metavar="FILE:WEIGHT",
        help='may be given again; "none" is without, ";" joins several',
    )
    add("--seed", default="0", help="of the start noise (%(default)s)")
    add("--guidance", default="3.5", help="distilled guidance scale (%(default)s)")
    add("--size", metavar="WxH", help="of the picture; default: as the first reference, by BFL's table")
    add("--output", type=Path, required=True, metavar="FOLDER", help="for compare.html, .md and .png, and the pictures")
    add_device_options(command)
    add("--forge", metavar="URL", help="a Forge server makes the pictures; checkpoints and LoRAs are its names")
    add("--auth", metavar="USER:PASSWORD", help="of its --api-auth")


def run(options: argparse.Namespace) -> int:
    """Run ``compare`` and return the exit code."""
    extras = "batch,compare" if options.forge else "batch,compare,diffusers"
    return guarded(lambda: _compare(options), _wrong, "interrupted", f'what this needs: pip install -e ".[{extras}]"')


def _wrong(error: KontextError) -> str:
    """Name the option in an error's message."""
    field = "image" if (error.field or "").startswith("image") else error.field
    field = "cache" if field in ("cache_threshold", "preset") else field
    return f"--{field.replace('_', '-')}: {error.reason}" if field else error.reason


class WarmWorker:
    """A worker that makes a short picture of no account before the first of each checkpoint and set of LoRAs.

    Args:
        worker: that makes them.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._warm: tuple[object, ...] | None = None
        self.name = worker.name
        self.counters = worker.counters

    def make(self, rows: Sequence[Row]) -> list[Outcome]:
        """Make rows; see ``Worker``."""
        model = (rows[0].checkpoint, rows[0].loras)
        if model != self._warm:
            self._worker.make([replace(rows[0], steps=min(WARM_UP_STEPS, rows[0].steps))])
            self._warm = model
        return self._worker.make(rows)

    def close(self) -> None:
        """Close the worker."""
        self._worker.close()


def _compare(options: argparse.Namespace) -> int:
    from lib_fluxkontext.batch.folder import OutputFolder
    from lib_fluxkontext.batch.grid import GridOptions, make_grid
    from lib_fluxkontext.batch.plan import Plan
    from lib_fluxkontext.batch.progress import Progress
    from lib_fluxkontext.batch.quality import check_installed
    from lib_fluxkontext.batch.runner import Runner

    check_installed()
    quiet_libraries(small_model=not options.checkpoint)
    loading = LoadOptions(None, options.base, options.device, options.nf4, options.offload)
    where = WorkerOptions(loading, 1, [options.forge] if options.forge else [], options.auth, None, None)
    where.check()
    folder, images = OutputFolder(options.output), options.image or []
    folder.prepare()
    grid = GridOptions(
        prompt=options.prompt,
        images=images,
        checkpoints=options.checkpoint or (),
        loras=options.lora or (),
        steps=[parse_number(text) for text in _parts(options.steps, "steps")],
        caches=_parts(options.cache, "cache"),
        common=_common(options),
    )
    cells = make_grid(
        grid,
        folder.path,
        where.small_model,
        default_checkpoint(where),
        local_models=not where.forge,
        nf4=where.loading.nf4,
    )
    if not where.forge:
        for checkpoint in dict.fromkeys(cell.row.checkpoint for cell in cells if cell.row.checkpoint):
            check_named_checkpoint(where, checkpoint)  # as ``row_check``, but it names the option at fault
    check = row_check(where)
    for cell in cells:
        if (error := check(cell.row)) is not None:
            raise KontextError(error.reason, error.field)
    with Plan() as plan:
        for cell in cells:
            plan.add(cell.row)
        plan.mark(folder.states(), retry_failed=True)
        plan.arrange()
        before = plan.counts()
        workers = [WarmWorker(worker) for worker in local_workers(where)]
        progress = Progress(before.all, before.done)
        try:
            result = Runner(plan, folder, workers, [progress]).run()
        finally:
            progress.close()
            for worker in workers:
                worker.close()
    _write(folder.path, cells, images)
    if result.stopped is not None:
        print_error(result.stopped)
        return FAILED
    if result.interrupted:
        print_error("interrupted; start again to go on")
        return INTERRUPTED
    if result.failed:
        print_error(f"{result.failed} pictures could not be made; the page says why")
    return FAILED if result.failed else DONE


def _write(folder: Path, cells: Sequence[Any], images: Sequence[Path]) -> None:
    from lib_fluxkontext.batch.comparison import read_comparison
    from lib_fluxkontext.batch.comparison_picture import draw
    from lib_fluxkontext.batch.comparison_table import PICTURE_NAME, markdown, page
    from lib_fluxkontext.replaced_file import replaced

    comparison = read_comparison(folder, cells, images)
    page_path, text_path, picture_path = folder / "compare.html", folder / "compare.md", folder / PICTURE_NAME
    with replaced(page_path) as part:
        part.write_text(page(comparison, folder), encoding="utf-8")
    with replaced(text_path) as part:
        part.write_text(markdown(comparison), encoding="utf-8")
    with replaced(picture_path) as part:
        draw(comparison).save(part, "PNG")
    for name, path in (("Page", page_path), ("Markdown", text_path), ("Picture", picture_path)):
        print(f"{name + ':':<10}{path}")


def _common(options: argparse.Namespace) -> dict[str, Any]:
    common = {"seed": parse_number(options.seed), "guidance": parse_number(options.guidance), "size": options.size}
    return {name: value for name, value in common.items() if value is not None}


def _parts(text: str, name: str) -> list[str]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise KontextError("got nothing; allowed: one or more, by commas", name)
    return parts
