"""Run the benchmark: ``python -m benchmarks.frontier [--only PART] [--condition KEY] [--tasks 8] [--resume]``.

Each condition is saved when it is finished; ``--resume`` goes on after the last one.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.frontier import document
from benchmarks.frontier.calibration import Calibration, calibrate, calibration_tasks, job
from benchmarks.frontier.conditions import CONDITIONS, Condition
from benchmarks.frontier.measure import SEED, measure, rows
from benchmarks.frontier.methods import Method
from benchmarks.frontier.models import MODELS, PRESET_REFERENCES, PRESET_STEPS, Model, step_runs
from benchmarks.frontier.results import Pictures, Results, Steps, load
from benchmarks.frontier.schedules import Schedules, measure_schedules
from benchmarks.frontier.scripted import Schedule
from benchmarks.frontier.steps import Cost, build, sample
from benchmarks.frontier.tasks import tasks
from benchmarks.frontier.tuning import families, tuned
from benchmarks.machine import machine
from lib_fluxkontext.hosts.diffusers.loader import load_pipeline

STEPS_SIDE = 512


def main() -> None:
    """Measure and write the document."""
    options = arguments()
    options.output.mkdir(parents=True, exist_ok=True)
    saved = options.output / "benchmarks.json"
    results = load(saved)
    if options.only in (None, "pictures"):
        measure_pictures(results, saved, options)
    if options.only in (None, "steps"):
        models = {name: MODELS[name] for name in options.model or MODELS}
        if any(model.presets for model in models.values()):  # always anew: settings of the same name may have changed
            results.schedules = schedules(options.tasks, options.side)
        for name, model in models.items():
            presets = results.schedules.presets if results.schedules is not None else {}
            recipe = f"{model.steps} Euler steps, medians over {options.rounds} interleaved rounds"
            costs = step_costs(name, model, presets, options.rounds)
            results.steps[name] = Steps(machine(), recipe, costs)
            results.save(saved)
    print(f"Wrote {document.write(results, options.output)}")


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=8, help="pictures under each condition (8)")
    parser.add_argument("--rounds", type=int, default=3, help="of the models without training (3)")
    parser.add_argument("--only", choices=("pictures", "steps", "document"), help="measure one part again")
    keys = ", ".join(one.key for one in CONDITIONS)
    parser.add_argument("--condition", type=Condition.parse, action="append", help=f"measure this one again: {keys}")
    parser.add_argument("--resume", action="store_true", help="leave out conditions that are already measured so")
    parser.add_argument("--model", choices=tuple(MODELS), action="append", help="time the steps of this one (all)")
    parser.add_argument("--output", type=Path, default=document.DOCS, help="folder of what is written (docs)")
    parser.add_argument("--side", type=int, help="width and height of the pictures (as the condition has it)")
    # For a quick look whether everything runs
    parser.add_argument("--candidates", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure_pictures(results: Results, saved: Path, options: argparse.Namespace) -> None:
    """Measure the conditions that are asked for, and save each."""
    for condition in options.condition or CONDITIONS:
        side = options.side or condition.side
        recipe = f"{options.tasks} tasks, {side}×{side}"
        before = results.pictures.get(condition.key)
        if options.resume and before is not None and before.recipe == recipe:
            report(f"{condition.key}: already measured")
            continue
        with one_thread():
            pipeline = load_pipeline(device="cpu")
            pipeline.set_progress_bar_config(disable=True)
            one = tune(pipeline, condition, side, options.candidates)
            found = tasks(condition.group, condition.references, options.tasks, side)
            samples = list(measure(pipeline, condition, one.methods, found, one.calibration, report))
        versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("diffusers", "cache-dit"))
        results.pictures[condition.key] = Pictures(machine(1), recipe, versions, one.candidates, rows(samples))
        results.save(saved)


@dataclass(frozen=True)
class Compared:
    """What is compared: methods, ``UNCACHED_METHOD`` first, what they need, and of how many they were chosen."""

    methods: list[Method]
    calibration: Calibration
    candidates: int


def tune(pipeline: Any, condition: Condition, side: int, candidates: int | None) -> Compared:
    """Calibrate the other caches, and choose the settings of all."""
    known = calibration_tasks(condition, side)
    report(f"{condition.key}: calibrating and choosing settings")
    calibration = calibrate(pipeline, condition, known)
    methods, tried = tuned(pipeline, families(condition, candidates), condition, known, calibration, report)
    return Compared(methods, calibration, tried)


def report(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread, so that arithmetic rather than the start of small operations decides."""
    logging.disable(logging.WARNING)  # cache-dit reports every hook it sets
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        logging.disable(logging.NOTSET)


def schedules(count: int, side: int | None) -> Schedules:
    """What the presets do on the trained model with ``PRESET_REFERENCES``, on the tasks of copying."""
    pipeline = load_pipeline(device="cpu")
    pipeline.set_progress_bar_config(disable=True)
    condition = Condition("copying", PRESET_REFERENCES, "euler", PRESET_STEPS)
    side = side or condition.side
    found = tasks(condition.group, condition.references, count, side)
    jobs = [(job(task, condition, SEED * number), task.references) for number, task in enumerate(found)]
    recipe = f"{PRESET_STEPS} Euler steps at {side}×{side}, the median of {count} tasks of copying"
    return Schedules(recipe, measure_schedules(pipeline, jobs))


def step_costs(
    name: str, model: Model, schedules: Mapping[str, Schedule], rounds: int
) -> dict[tuple[int, str], list[Cost]]:
    """Costs on a model without training, the runs taking turns."""
    transformer: Any = build(model.config, torch.device("cpu"), torch.float32)
    costs: dict[tuple[int, str], list[Cost]] = defaultdict(list)
    for turn in range(rounds):
        for run in step_runs(model, schedules):
            print(f"{name} model, round {turn + 1}, {run.references} references: {run.name}", flush=True)
            cost = sample(transformer, STEPS_SIDE, run.references, run.settings, model.steps, schedule=run.schedule)
            costs[run.references, run.name].append(cost)
    return dict(costs)


if __name__ == "__main__":
    main()
