"""Run the benchmark: ``python -m benchmarks.frontier [--pairs 6] [--images 16] [--only PART]``."""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
from collections import defaultdict
from typing import Any

import torch

from benchmarks.frontier import document
from benchmarks.frontier.measure import Row, measure, rows
from benchmarks.frontier.methods import LIBRARIES, UNCACHED, methods
from benchmarks.frontier.results import Pictures, Steps, load
from benchmarks.frontier.steps import MEDIUM, Cost, build, sample
from benchmarks.held_out import decoded_pairs
from benchmarks.machine import machine
from lib_fluxkontext.hosts.diffusers.loader import load_pipeline
from lib_fluxkontext.hosts.diffusers.pipeline import Job
from lib_fluxkontext.settings import KontextSettings
from tools.small_kontext.data import PHRASINGS

SIDE = 128
STEPS = 28
INSTRUCTION = {0: "first", 1: "first", 2: "left_right"}
MEDIUM_STEPS = 8
RUNS = {
    UNCACHED: KontextSettings(cache=False),
    "reference reuse, every 4": KontextSettings(cache=False, reference_refresh=4),
    "First Block Cache, all reused": KontextSettings(cache_threshold=1.0),
    "both, all reused": KontextSettings(cache_threshold=1.0, reference_refresh=4),
}
"""Random weights have no pictures to spoil, so the caches reuse whatever they can: only the cost is asked."""


def main() -> None:
    """Measure and write the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=6, help="pairs of held-out photographs (6)")
    parser.add_argument("--images", type=int, default=16, help="pictures of each pair, in one batch (16)")
    parser.add_argument("--rounds", type=int, default=3, help="of the model without training (3)")
    parser.add_argument("--only", choices=("pictures", "steps", "document"), help="measure one part again")
    options = parser.parse_args()
    results = load(document.DOCS / "benchmarks.json")
    if options.only in (None, "pictures"):
        results.pictures = pictures(options.pairs, options.images)
    if options.only in (None, "steps"):
        recipe = f"{MEDIUM_STEPS} Euler steps, medians over {options.rounds} interleaved rounds"
        results.steps = Steps(machine(), recipe, medium(options.rounds))
    results.save(document.DOCS / "benchmarks.json")
    if results.pictures is None or results.steps is None:
        parser.exit(message="The document needs the other parts too.\n")
    document.frontier_plot(results.pictures.tables, document.DOCS / "benchmarks.png")
    (document.DOCS / "benchmarks.md").write_text(document.page(results), encoding="utf-8")
    print(f"Wrote {document.DOCS / 'benchmarks.md'}")


def pictures(pairs: int, images: int) -> Pictures:
    """The frontier with two, one and no references, on one thread."""
    logging.disable(logging.WARNING)  # cache-dit reports every hook it sets
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    tables = {count: small(count, pairs, images) for count in (2, 1, 0)}
    torch.set_num_threads(threads)
    recipe = (
        f"{pairs} pairs of photographs that no training step saw, {images} pictures each in one batch, {SIDE}×{SIDE}, "
        f"{STEPS} Euler steps."
    )
    return Pictures(machine(1), recipe, importlib.metadata.version("cache-dit"), tables)


def small(references: int, pairs: int, images: int) -> list[Row]:
    """The frontier with so many references."""
    pipelines: dict[str, Any] = {library: load_pipeline(device="cpu") for library in LIBRARIES}
    for pipeline in pipelines.values():
        pipeline.set_progress_bar_config(disable=True)
    prompt = PHRASINGS[INSTRUCTION[references]][0]
    jobs = [
        (Job(prompt, SIDE, SIDE, steps=STEPS, seed=1000 * number, images=images), pair[:references])
        for number, pair in enumerate(decoded_pairs(pairs, SIDE))
    ]
    return rows(list(measure(pipelines, methods(references), jobs)))


def medium(rounds: int) -> dict[tuple[int, str], list[Cost]]:
    """Costs on 140 million parameters, the runs taking turns."""
    transformer = build(MEDIUM, torch.device("cpu"), torch.float32)
    costs: dict[tuple[int, str], list[Cost]] = defaultdict(list)
    for turn in range(rounds):
        for references in (2, 1, 0):
            for name, settings in RUNS.items():
                if references or not settings.reference_refresh:
                    print(f"140 million parameters, round {turn + 1}, {references} references: {name}", flush=True)
                    costs[references, name].append(sample(transformer, 512, references, settings, MEDIUM_STEPS))
    return dict(costs)


if __name__ == "__main__":
    main()
