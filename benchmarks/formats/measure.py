"""The small trained model in every format that can be made of it, on held-out photographs, with the same noise."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from PIL import Image

from benchmarks.frontier.quality import Quality, compare
from benchmarks.frontier.tasks import Task, tasks
from lib_fluxkontext.convert.run import Conversion, ConvertRequest
from lib_fluxkontext.hosts.diffusers.loader import SMALL_MODEL, load_pipeline
from lib_fluxkontext.hosts.diffusers.pipeline import generate
from lib_fluxkontext.job import Job
from lib_fluxkontext.settings import PRESETS, KontextSettings, Preset

FORMATS = {
    "fp32": "FP32",
    "fp16": "FP16",
    "bf16": "BF16",
    "fp8": "FP8 e4m3fn",
    "fp8_e5m2": "FP8 e5m2",
    "Q8_0": "GGUF Q8_0",
    "Q5_1": "GGUF Q5_1",
    "Q5_0": "GGUF Q5_0",
    "Q4_1": "GGUF Q4_1",
    "Q4_0": "GGUF Q4_0",
    "nf4": "NF4",
    "fp4": "FP4",
}
"""What ``convert`` calls a format → what the document calls it. FP32 first: all others are compared with it."""

CACHES: tuple[Preset, ...] = ("Off", "Balanced", "Fast")

LOADS = 3
SEED = 1000


@dataclass(frozen=True)
class Loaded:
    """A format of the transformer.

    Attributes:
        file_bytes: of the file.
        weight_bytes: of the transformer's weights in memory, as the diffusers host holds them.
        load_seconds: median of ``LOADS`` loads of the whole pipeline, from a file that the system has in memory.
    """

    file_bytes: int
    weight_bytes: int
    load_seconds: float


@dataclass(frozen=True)
class Row:
    """A format with a cache: one picture, or over all tasks the median of the seconds and means of the rest.

    Attributes:
        step_seconds: wall time of the sampling by its steps.
        reused: share of the steps, 0 to 1.
        to_exact: against float32, uncached.
        to_own: against the same format, uncached.
    """

    step_seconds: float
    reused: float
    to_exact: Quality
    to_own: Quality


def convert_all(folder: Path) -> dict[str, Path]:
    """Write the transformer in every format."""
    made = {}
    for name in FORMATS:
        made[name] = folder / f"small-{name}.{'gguf' if name.startswith('Q') else 'safetensors'}"
        Conversion(ConvertRequest(SMALL_MODEL / "transformer", made[name], name)).run()
    return made


def load_all(paths: Mapping[str, Path]) -> tuple[dict[str, Any], dict[str, Loaded]]:
    """Load every file some times, taking turns; return the last pipelines, and what loading took."""
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    pipelines: dict[str, Any] = {}
    for _ in range(LOADS):
        for name, path in paths.items():
            start = time.perf_counter()
            pipelines[name] = load_pipeline(path, SMALL_MODEL, device="cpu")
            seconds[name].append(time.perf_counter() - start)
    loaded = {}
    for name, pipeline in pipelines.items():
        pipeline.set_progress_bar_config(disable=True)
        weights = [*pipeline.transformer.parameters(), *pipeline.transformer.buffers()]
        held = sum(weight.numel() * weight.element_size() for weight in weights)
        loaded[name] = Loaded(os.path.getsize(paths[name]), held, median(seconds[name]))
    return pipelines, loaded


def all_tasks(count: int, side: int) -> list[Task]:
    """Half of them copy, half of them edit, all with two references."""
    return [*tasks("copying", 2, count - count // 2, side), *tasks("editing", 2, count // 2, side)]


def measure(
    pipelines: Mapping[str, Any], found: Sequence[Task], steps: int, report: Callable[[str], None]
) -> dict[tuple[str, Preset], Row]:
    """Make every task's picture in every format with every cache, taking turns.

    Args:
        pipelines: by format, float32 first.
        found: one picture each.
        steps: of the sampler.
        report: is told of every finished task, in a line.
    """
    pictures: dict[tuple[str, Preset], list[Row]] = {(name, cache): [] for name in pipelines for cache in CACHES}
    for pipeline in pipelines.values():  # warms up
        generate(pipeline, Job("x", 64, 64, steps=1), [], KontextSettings())
    for number, task in enumerate(found):
        start = time.perf_counter()
        for key, picture in _pictures(pipelines, task, steps, SEED * number):
            pictures[key].append(picture)
        report(f"task {number + 1} of {len(found)}, {time.perf_counter() - start:.0f} s: {task.prompt}")
    return {key: _row(some) for key, some in pictures.items()}


def _pictures(
    pipelines: Mapping[str, Any], task: Task, steps: int, seed: int
) -> Iterator[tuple[tuple[str, Preset], Row]]:
    height, width = task.region.shape
    job = Job(task.prompt, width, height, steps, seed)
    exact: Image.Image | None = None
    own: dict[str, Image.Image] = {}
    for cache in CACHES:
        settings = KontextSettings.from_mapping({"sizing": "to output", **PRESETS[cache]})
        for name, pipeline in pipelines.items():
            made = generate(pipeline, job, task.references, settings)
            exact = exact or made.image
            own.setdefault(name, made.image)
            yield (
                (name, cache),
                Row(
                    made.report.sampling_seconds / steps,
                    made.report.reused_share,
                    compare(made.image, exact, task.region).whole,
                    compare(made.image, own[name], task.region).whole,
                ),
            )


def _row(pictures: Sequence[Row]) -> Row:
    return Row(
        median(picture.step_seconds for picture in pictures),
        fmean(picture.reused for picture in pictures),
        _mean([picture.to_exact for picture in pictures]),
        _mean([picture.to_own for picture in pictures]),
    )


def _mean(qualities: Sequence[Quality]) -> Quality:
    return Quality(*(fmean(getattr(one, name) for one in qualities) for name in ("psnr", "ssim", "flip")))
