"""Measure the formats and write ``docs/formats.md``: ``python -m benchmarks.formats [--only PART]``.

Two parts, each saved when it is finished: ``pictures`` (the small model in every format that can be made of it) and
``matrix`` (the tests of formats, in every host that is installed).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from benchmarks.formats.document import write
from benchmarks.formats.matrix import read_record, run_tests
from benchmarks.formats.measure import all_tasks, convert_all, load_all, measure
from benchmarks.formats.results import Matrix, Pictures, load
from benchmarks.machine import machine

DOCS = Path(__file__).resolve().parents[2] / "docs"


def main() -> None:
    """Measure and write the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("pictures", "matrix", "document"), help="measure one part again")
    parser.add_argument("--tasks", type=int, default=6, help="pictures of each format and cache (%(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="of the sampler (%(default)s)")
    parser.add_argument("--side", type=int, default=128, help="width and height of the pictures (%(default)s)")
    parser.add_argument("--record", type=Path, nargs="+", help="for the matrix: pytest's --junitxml files, read anew")
    parser.add_argument("--output", type=Path, default=DOCS, help="folder of what is written (docs)")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    saved = options.output / "formats.json"
    results = load(saved)
    with tempfile.TemporaryDirectory() as name:
        if options.only in (None, "pictures"):
            torch.set_num_threads(1)
            pipelines, loaded = load_all(convert_all(Path(name)))
            found = all_tasks(options.tasks, options.side)
            rows = measure(pipelines, found, options.steps, lambda line: print(line, flush=True))
            recipe = f"{len(found)} tasks, half copying and half editing, {options.side}×{options.side}, " \
                f"{options.steps} Euler steps, two references, one CPU thread"  # fmt: skip
            results.pictures = Pictures(machine(1), recipe, loaded, rows)
            results.save(saved)
        if options.only in (None, "matrix"):
            if options.record:
                cases = [case for record in options.record for case in read_record(record)]
            else:
                cases = run_tests(Path(name))
            results.matrix = Matrix(machine(), cases)
            results.save(saved)
    print(f"Wrote {write(results, options.output)}")


if __name__ == "__main__":
    main()
