"""Run it: ``python -m benchmarks.gpu [--only checks|full-size|budgets] [--output FOLDER]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.frontier.steps import median_of_present
from benchmarks.gpu.checks import run_checks
from benchmarks.gpu.device import describe, missing_device
from benchmarks.gpu.document import BUDGET_PARTS, CHECKS, FULL_SIZE, TITLES, counted, page, verdict
from benchmarks.gpu.full_size import full_size, within_budget
from benchmarks.gpu.results import CheckResult, Part, load, save
from lib_fluxkontext.sampling.vram import GIB

DOCS = Path(__file__).resolve().parents[2] / "docs"
BUDGETS = "budgets"
FAILED, NO_DEVICE = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for, write JSON and document after every part, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=(CHECKS, FULL_SIZE, BUDGETS), help="measure this alone")
    parser.add_argument("--output", type=Path, default=DOCS, metavar="FOLDER", help="for gpu.json and gpu.md (docs)")
    options = parser.parse_args(arguments)
    missing = missing_device()
    if missing is not None:
        print(missing, file=sys.stderr)
        return NO_DEVICE
    device = torch.device("cuda", torch.cuda.current_device())
    print(describe(device), flush=True)
    passed = True
    for name, measure in chosen_parts(options.only):
        print(f"{TITLES[name]}:", flush=True)
        part = measure(device)
        write(options.output, name, part)
        show(part)
        passed = passed and all(check.passed is not False for check in part.checks)
    print(f"Wrote {options.output / 'gpu.md'}")
    return 0 if passed else FAILED


def chosen_parts(only: str | None) -> Iterator[tuple[str, Callable[[torch.device], Part]]]:
    """The parts by name, with what measures each."""
    if only in (None, CHECKS):
        yield CHECKS, checks
    if only in (None, FULL_SIZE):
        yield FULL_SIZE, full_size
    if only in (None, BUDGETS):
        for name, budget in BUDGET_PARTS.items():
            yield name, partial(within_budget, budget=budget * GIB)


def checks(device: torch.device) -> Part:
    """All checks, each shown when it is done."""
    results: list[CheckResult] = []
    for result in run_checks(device):
        print(f"  {verdict(result)}: {result.name}: {result.detail}", flush=True)
        results.append(result)
    return Part(describe(device), checks=tuple(results))


def write(folder: Path, name: str, part: Part) -> None:
    """Save one part beside those that are there, and renew the document."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = load(folder / "gpu.json") | {name: part}
    save(folder / "gpu.json", parts)
    (folder / "gpu.md").write_text(page(parts), encoding="utf-8")


def show(part: Part) -> None:
    """Print a line for every run."""
    if part.skipped is not None:
        print(f"  skipped: {part.skipped}", flush=True)
    for run in part.runs:
        seconds = median_of_present([cost.seconds for cost in run.costs])
        outcome = run.failure if seconds is None else f"{seconds:.2f} s"
        print(f"  {counted(run.references)}, {run.name}: {outcome}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
