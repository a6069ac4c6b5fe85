"""One picture: ``python -m lib_fluxkontext generate --image woman.png --image cat.png --prompt "…"``.

Exit codes: 0 done, 1 it broke, 2 the request is wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import BinaryIO

from PIL.PngImagePlugin import PngInfo

from lib_fluxkontext.command_line import DONE, guarded
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.hosts.diffusers.metadata import parameters, parameters_text
from lib_fluxkontext.hosts.diffusers.options import LoadOptions, quiet_libraries
from lib_fluxkontext.images.files import read_reference
from lib_fluxkontext.images.pair import picture_pair
from lib_fluxkontext.job import Job, default_size, default_sizing, parse_size
from lib_fluxkontext.presentation import text
from lib_fluxkontext.presentation.page import report_page
from lib_fluxkontext.replaced_file import part_path, replace, unlink
from lib_fluxkontext.settings import KontextSettings, preset_values
from lib_fluxkontext.text_values import parse_number

_OPTION_NAMES = {
    "cache_threshold": "--threshold",
    "cache_warmup_steps": "--warmup",
    "cache_max_consecutive": "--max-consecutive",
    "cache_compute_last": "--compute-last",
}
"""Settings whose option is not named after them."""


def run(options: argparse.Namespace) -> int:
    """Run ``generate`` and return the exit code."""
    paths = options.image or []
    return guarded(
        lambda: _generate(options, paths),
        lambda error: _command_line_message(error, paths),
        "interrupted; no picture was written",
        'what the command line needs: pip install -e ".[diffusers]"',
    )


def _generate(options: argparse.Namespace, paths: Sequence[Path]) -> int:
    settings = _settings(options)
    references = [read_reference(path, f"image{number}") for number, path in enumerate(paths, 1)]
    image_path, page_path = _output_paths(options.output)
    quiet_libraries(small_model=options.checkpoint is None)
    from lib_fluxkontext.hosts.diffusers.console import announcement, progress_bar
    from lib_fluxkontext.hosts.diffusers.loader import check_checkpoint, load_pipeline
    from lib_fluxkontext.hosts.diffusers.pipeline import generate

    first = references[0].size if references else None
    small_model = options.checkpoint is None
    width, height = parse_size(options.size) if options.size else default_size(small_model, first)
    job = Job(
        prompt=options.prompt,
        width=width,
        height=height,
        steps=parse_number(options.steps),
        seed=parse_number(options.seed),
        guidance=parse_number(options.guidance),
    )
    loading = LoadOptions.from_namespace(options)
    print(announcement(job, paths, check_checkpoint(*astuple(loading)).type), flush=True)
    pipeline = load_pipeline(*astuple(loading))
    pipeline.set_progress_bar_config(**progress_bar())
    result = generate(pipeline, job, references, settings)

    fields = parameters(job, loading.model_name(), settings, references, result.report)
    metadata = PngInfo()
    metadata.add_text("parameters", parameters_text(job.prompt, fields))
    captioned = [
        (f"{path.name}, {reference.size[0]}×{reference.size[1]}", reference.image)
        for path, reference in zip(paths, references, strict=True)
    ]
    rows = {name: str(value) for name, value in fields.items()}
    pair = picture_pair(references[0], settings, result.image) if references else None
    page = report_page(job.prompt or "(no prompt)", result.image, captioned, result.report, rows, pair)
    written = write_atomically(
        {
            image_path: lambda file: result.image.save(file, "PNG", pnginfo=metadata),
            page_path: lambda file: file.write(page.encode()),
        }
    )
    print(text.summary(result.report))
    if result.report.memory is not None:
        print(f"Memory: {text.memory_peak(result.report)}")
    for path, place in written.items():
        if place != path:
            print(f"{path} could not be replaced, it may be open elsewhere; the new one is {place.name} beside it")
    print(f"Picture: {written[image_path]}")
    print(f"Report:  {written[page_path]}")
    return DONE


def _settings(options: argparse.Namespace) -> KontextSettings:
    references = {
        "sizing": options.sizing or default_sizing(options.checkpoint is None),
        "half_size": options.half_size,
        "placement": options.placement,
        "stitch": options.stitch,
    }
    return KontextSettings.from_mapping({"enabled": True, **references, **_cache_settings(options)})


def _cache_settings(options: argparse.Namespace) -> Mapping[str, object]:
    if options.preset is None:
        return {
            "cache": not options.no_cache,
            "cache_threshold": parse_number(options.threshold),
            "cache_warmup_steps": parse_number(options.warmup),
            "cache_max_consecutive": parse_number(options.max_consecutive),
            "cache_compute_last": options.compute_last,
            "cache_forecast": not options.no_forecast,
            "cache_correct": options.correct,
            "reference_refresh": parse_number(options.reference_refresh),
        }
    return preset_values(options.preset)


def _output_paths(image: Path | None) -> tuple[Path, Path]:
    """Return the paths of image and report."""
    if image is None:
        image = Path("output") / f"kontext-{time.strftime('%Y%m%d-%H%M%S')}.png"
    if image.suffix.lower() != ".png":
        raise KontextError(f"got {image.name}; allowed: a name that ends in .png", "output")
    return image, image.with_suffix(".html")


def write_atomically(files: Mapping[Path, Callable[[BinaryIO], object]]) -> dict[Path, Path]:
    """Write to temporary files and rename all at the end, so that a failure leaves no half-written file.

    Args:
        files: each file's path, and what writes it.

    Returns:
        Where each is: under a free name beside its path where the file that is there cannot be replaced, as when
        another program shows it.

    Raises:
        OSError: the disk is full, say.
    """
    parts = {path: part_path(path) for path in files}
    try:
        for path, write in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with parts[path].open("wb") as file:
                write(file)
        return {path: _put_in_place(part, path) for path, part in parts.items()}
    except BaseException:
        for part in parts.values():
            with suppress(OSError):
                unlink(part)
        raise


def _put_in_place(part: Path, path: Path) -> Path:
    """Rename a finished file, and return its path."""
    try:
        replace(part, path)
    except OSError:
        if not path.exists():
            raise
        names = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(2))
        free = next(other for other in names if not other.exists())
        replace(part, free)
        return free
    return path


def _command_line_message(error: KontextError, paths: Sequence[Path]) -> str:
    """Name the command-line option instead of the setting in an error's message."""
    if error.field is None:
        return str(error)
    number = error.field.removeprefix("image")
    if number.isdigit() and int(number) <= len(paths):
        option = f"--image {paths[int(number) - 1]}"
    else:
        option = _OPTION_NAMES.get(error.field, "--" + error.field.replace("_", "-"))
    return f"{option}: {error.reason}"
