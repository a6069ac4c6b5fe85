"""FLUX.1's real size on a CUDA device: seconds, peak memory, and the constants of the memory estimate."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch

from benchmarks.frontier.methods import UNCACHED
from benchmarks.frontier.steps import FULL, TEXT_TOKENS, Cost, build, median_of_present, sample
from benchmarks.frontier.tables import cost_table
from benchmarks.machine import machine
from lib_fluxkontext.settings import KontextSettings

STEPS = 8
ROUNDS = 3
STREAMED = "reference reuse, streamed"
RUNS = {
    UNCACHED: (KontextSettings(cache=False), "device"),
    "reference reuse, every 4": (KontextSettings(cache=False, reference_refresh=4), "device"),
    STREAMED: (KontextSettings(cache=False, reference_refresh=4), "host"),
    "both, all reused": (KontextSettings(cache_threshold=1.0, reference_refresh=4), "device"),
}

NOT_MEASURED = """Not measured: no CUDA device was at hand. `python dev.py bench --full-size` builds a transformer of
FLUX.1's real size with random weights in bfloat16 at 1024×1024 and fills this section: seconds of a computed, a
reference-keeping and a reused step with none, one and two references, peak memory of each, the streamed variant, and
activation memory by tokens. Until then the memory estimate uses Forge's own bytes for each token."""


def full_size_section() -> str:
    """Markdown of the section."""
    transformer = build(FULL, torch.device("cuda"), torch.bfloat16)
    costs: dict[tuple[int, str], list[Cost]] = defaultdict(list)
    for turn in range(ROUNDS):
        for references in (2, 1, 0):
            for name, (settings, place) in RUNS.items():
                if references or not settings.reference_refresh:
                    print(f"full size, round {turn + 1}, {references} references: {name}", flush=True)
                    costs[references, name].append(sample(transformer, 1024, references, settings, STEPS, place))
    recipe = "Random weights in bfloat16, 1024×1024 and references of the same size."
    return f"{machine()}. {recipe}\n\n{cost_table(costs)}\n\n{_fit(costs)}"


def _fit(costs: dict[tuple[int, str], list[Cost]]) -> str:
    """Activation memory as a line in the tokens that run."""
    tokens = np.array([TEXT_TOKENS + 4096 * (1 + references) for references in (0, 1, 2)], float)
    uncached = [costs[references, UNCACHED] for references in (0, 1, 2)]
    peaks = np.array([median_of_present([cost.peak_bytes for cost in rounds]) for rounds in uncached], float)
    slope, base = np.polyfit(tokens, peaks, 1)
    return f"Activations: {base / 2**20:.0f} MiB + {slope / 2**10:.1f} KiB for each token."
