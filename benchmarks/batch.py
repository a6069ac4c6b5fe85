"""What batch mode costs beside sampling: ``python -m benchmarks.batch``; ``--help`` says how to leave parts out.

Prints a Markdown table. Everything runs in a temporary folder, with the small model on the CPU, or with a worker that
makes a grey pixel of everything.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.peak_memory import peak_bytes
from lib_fluxkontext.batch.folder import OutputFolder
from lib_fluxkontext.batch.overviews import Overviews
from lib_fluxkontext.batch.plan import Plan
from lib_fluxkontext.batch.record import read_record, row_from_values
from lib_fluxkontext.batch.row import Row
from lib_fluxkontext.batch.runner import Runner
from lib_fluxkontext.batch.validate import rows_of
from lib_fluxkontext.batch.worker import NullWorker
from tests.support.photos import cat, square, woman

PROMPTS = ("put the first picture on the left and the second on the right", "make it black and white")
COLUMNS = ("prompt", "image1", "image2", "seed", "steps")
KILLS = 5
BATCH_SIZES = (1, 4)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100, help="in process (%(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="of the rows in process (%(default)s)")
    parser.add_argument("--kill-rows", type=int, default=200, help="that are killed five times (%(default)s)")
    parser.add_argument("--null-rows", type=int, default=100_000, help="that nothing is made for (%(default)s)")
    parser.add_argument("--index-rows", type=int, default=2000, help="in the index that Chromium opens (%(default)s)")
    parser.add_argument("--null", nargs=2, type=Path, metavar=("MANIFEST", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.null:
        _run_null(*options.null)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        square(woman(), 96).save(folder / "woman.png")
        square(cat(), 96).save(folder / "cat.png")
        lines = []
        if options.null_rows:
            lines += measure_null(folder / "null", options.null_rows)
        if options.rows:
            lines += measure_batches(folder, options.rows, options.steps)
        if options.kill_rows:
            lines += measure_kills(folder, options.kill_rows)
        if options.index_rows:
            from benchmarks.batch_index import measure_index  # playwright is not needed for the rest

            lines += measure_index(folder / "index", options.index_rows)
    from benchmarks.machine import machine  # PyTorch's memory is not a batch's own

    print(f"Measured {machine()}.\n\n| measured | value |\n|---|---|")
    for what, value in lines:
        print(f"| {what} | {value} |")


def measure_batches(folder: Path, count: int, steps: int) -> list[tuple[str, str]]:
    """Overhead over sampling, decoding and encoding; what is encoded; batch size 4 against 1."""
    from lib_fluxkontext.hosts.diffusers.batch import DiffusersWorker
    from lib_fluxkontext.hosts.diffusers.options import LoadOptions

    manifest = folder / "seeds.csv"
    write_manifest(manifest, [[PROMPTS[0], "woman.png", "cat.png", seed, steps] for seed in range(count)])
    lines, seconds = [], {}
    for batch_size in BATCH_SIZES:
        worker = DiffusersWorker(LoadOptions(device="cpu"))
        rows: list[Row] = [row for row in rows_of(manifest, True) if isinstance(row, Row)]
        worker.make([row_like(rows[0], seed=count + place) for place in range(batch_size)])  # loads, and warms up
        output = OutputFolder(folder / f"batch-{batch_size}")
        wall, inside = run_plan(rows, output, worker, batch_size)
        seconds[batch_size] = wall / count
        overhead = f"{wall / inside - 1:+.1%} ({wall:.1f} s, of which {inside:.1f} s sampling, encoding, decoding)"
        lines.append((f"{count} rows of {steps} steps in process, batch size {batch_size}: overhead", overhead))
        counters = worker.counters
        lines.append(
            (f"… encoded references, embedded prompts, loads ({count} seeds of one pair)",
             f"{counters.encodes}, {counters.prompts}, {counters.loads}")
        )  # fmt: skip
    faster = seconds[1] / seconds[4]
    lines.append(("seconds a picture, batch size 1 and 4", f"{seconds[1]:.3f}, {seconds[4]:.3f} ({faster:.2f}×)"))
    return lines


def row_like(row: Row, seed: int) -> Row:
    """Return the row with another seed."""
    return replace(row, seed=seed)


def run_plan(rows: Sequence[Row], output: OutputFolder, worker: Any, batch_size: int) -> tuple[float, float]:
    """Run rows; return the wall time of all of it, and the seconds that the worker itself took."""
    start = time.perf_counter()
    with Plan(batch_size) as plan:
        for row in rows:
            plan.add(row)
        output.prepare()
        plan.mark(output.states())
        plan.arrange()
        overviews = Overviews(output.path, len(rows))
        result = Runner(plan, output, [worker], [overviews], queue_size=2 * batch_size + 2).run()
        overviews.close(ended=True)
    wall = time.perf_counter() - start
    assert result.made == len(rows), result
    records = [read_record(output.record_path(row.key)) for row in rows]
    return wall, sum(record["seconds"] for record in records if record is not None)


def measure_kills(folder: Path, count: int) -> list[tuple[str, str]]:
    """SIGKILL at random moments, then a last run; each picture against its single run."""
    manifest, output = folder / "kills.csv", OutputFolder(folder / "kills")
    images = ("cat.png", "")
    write_manifest(
        manifest, [[PROMPTS[seed % 2], "woman.png", images[seed % 3 == 0], seed, 2 + seed % 3] for seed in range(count)]
    )
    command = [sys.executable, "-m", "lib_fluxkontext", "batch", str(manifest), "--output", str(output.path)]
    moments, seen = random.Random(15), dict[str, tuple[int, int]]()
    for kill in range(1, KILLS + 1):
        wanted = max(len(seen) + 1, kill * count // (KILLS + 1) + moments.randrange(10))
        with subprocess.Popen([*command, "--device", "cpu"], stderr=subprocess.DEVNULL) as process:
            while len(finished(output)) < wanted and process.poll() is None:
                time.sleep(0.02)
            time.sleep(moments.random())
            process.kill()
        now = finished(output)
        assert seen.items() <= now.items(), "a finished row was made again"
        seen = now
    subprocess.run([*command, "--device", "cpu"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert seen.items() <= finished(output).items(), "a finished row was made again"
    same = sum(equals_single_run(output, key) for key in finished(output))
    return [(f"{count} rows, killed with SIGKILL {KILLS} times", f"{same} pictures bit-identical to their single runs")]


def finished(output: OutputFolder) -> dict[str, tuple[int, int]]:
    """Return inode and time of each finished row's record."""
    stats = {key: output.record_path(key).stat() for key, done in output.states() if done}
    return {key: (stat.st_ino, stat.st_mtime_ns) for key, stat in stats.items()}


_pipeline: Any = None


def equals_single_run(output: OutputFolder, key: str) -> bool:
    """Whether a row's picture is the one that ``generate`` makes of it alone."""
    from PIL import Image

    from lib_fluxkontext.hosts.diffusers.loader import load_pipeline
    from lib_fluxkontext.hosts.diffusers.pipeline import generate
    from lib_fluxkontext.images.files import read_reference
    from lib_fluxkontext.job import Job

    global _pipeline
    if _pipeline is None:
        _pipeline = load_pipeline(device="cpu")
        _pipeline.set_progress_bar_config(disable=True)
    record = read_record(output.record_path(key))
    assert record is not None
    row = row_from_values(record)
    references = [read_reference(path, f"image{number}") for number, path in enumerate(row.images, 1)]
    job = Job(row.prompt, row.width, row.height, row.steps, row.seed, row.guidance)
    picture = Image.open(output.picture_path(key))
    return generate(_pipeline, job, references, row.settings).image.tobytes() == picture.tobytes()


def measure_null(folder: Path, count: int) -> list[tuple[str, str]]:
    """Memory and time of a manifest that nothing is sampled for, and the time of starting again when all is done."""
    folder.mkdir()
    manifest, output = folder / "rows.csv", folder / "out"
    for name in ("woman.png", "cat.png"):
        (folder / name).write_bytes((folder.parent / name).read_bytes())
    write_manifest(manifest, [[f"prompt {n % 500}", "woman.png", "cat.png", n, 4] for n in range(count)])
    lines = []
    for what in (f"{count:,} rows, nothing sampled, no fsync", "… started again when all is done"):
        command = [sys.executable, "-m", "benchmarks.batch", "--null", str(manifest), str(output)]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL)
        run = json.loads(printed.stdout.splitlines()[-1])
        assert run["code"] == 0, printed.stdout
        lines.append((what, f"{run['seconds']:.1f} s, {run['peak'] / 2**20:.0f} MB peak"))
    return lines


def _run_null(manifest: Path, output: Path) -> None:
    """Run the command with a worker that makes nothing, and print its seconds and its largest resident memory."""
    start = time.perf_counter()
    from lib_fluxkontext.commands import batch
    from lib_fluxkontext.commands.main import main as command_line

    os.fsync = lambda file: None  # type: ignore[assignment]  # a disk's speed is not a batch's own
    batch.local_workers = lambda where: [NullWorker()]
    batch.WorkerOptions.check = lambda options: None  # type: ignore[method-assign]  # which asks PyTorch for the device
    code = command_line(["batch", str(manifest), "--output", str(output)])
    print(json.dumps({"code": code, "seconds": time.perf_counter() - start, "peak": peak_bytes()}))


def write_manifest(path: Path, rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV manifest."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


if __name__ == "__main__":
    main()
