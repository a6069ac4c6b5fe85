"""The command line: ``python -m lib_fluxkontext generate --image woman.png --image cat.png --prompt "…"``.

Exit codes: 0 done, 1 it broke, 2 the request is wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from PIL.PngImagePlugin import PngInfo

from lib_fluxkontext import infotext
from lib_fluxkontext.errors import KontextError, first_line
from lib_fluxkontext.images.decode import Reference, decode_reference
from lib_fluxkontext.images.pair import picture_pair
from lib_fluxkontext.images.sizing import nearest_bfl_size
from lib_fluxkontext.presentation import text
from lib_fluxkontext.presentation.page import report_page
from lib_fluxkontext.settings import (
    PLACEMENTS,
    PRESETS,
    SIZINGS,
    STITCHES,
    KontextSettings,
    PresetValues,
    default_of,
    describe,
)

DONE, FAILED, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130

SMALL_MODEL_SIZE = "96x96"
"""What the small model was trained on most."""

DEFAULT_SIZE = (1024, 1024)
"""Width and height in pixels where there is no reference to go by."""

_OPTION_NAMES = {
    "cache_threshold": "--threshold",
    "cache_warmup_steps": "--warmup",
    "cache_max_consecutive": "--max-consecutive",
    "cache_compute_last": "--compute-last",
}
"""Settings whose option is not named after them."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print one line, where argparse would print the whole usage before it."""
        _print_error(f"{message}; see --help")
        raise SystemExit(WRONG_REQUEST)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console in cp1251 or cp866 has no × and no –
            stream.reconfigure(errors="replace")
    options = _parser().parse_args(arguments)
    paths = options.image or []
    try:
        return _generate(options, paths)
    except KontextError as error:
        _print_error(_command_line_message(error, paths))
        return WRONG_REQUEST
    except KeyboardInterrupt:
        _print_error("interrupted; no picture was written")
        return INTERRUPTED
    except ImportError as error:
        _print_error(f'{error}; install what the command line needs: pip install -e ".[diffusers]"')
        return FAILED
    except (RuntimeError, OSError, ValueError) as error:
        _print_error(f"{type(error).__name__}: {first_line(error)}")
        return FAILED


def _generate(options: argparse.Namespace, paths: Sequence[Path]) -> int:
    settings = _settings(options)
    references = [_read_reference(path, f"image{number}") for number, path in enumerate(paths, 1)]
    image_path, page_path = _output_paths(options.output)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it recommends packages that are not needed here
    if options.checkpoint is None:  # with any other, diffusers' warnings may tell why a picture is wrong
        os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    from lib_fluxkontext.hosts.diffusers.console import announcement, progress_bar
    from lib_fluxkontext.hosts.diffusers.loader import check_checkpoint, load_pipeline
    from lib_fluxkontext.hosts.diffusers.pipeline import Job, generate

    width, height = _output_size(options, references)
    job = Job(
        prompt=options.prompt,
        width=width,
        height=height,
        steps=_parse_number(options.steps),
        seed=_parse_number(options.seed),
        guidance=_parse_number(options.guidance),
    )
    loading = (options.checkpoint, options.base, options.device, options.nf4, options.offload)
    print(announcement(job, paths, check_checkpoint(*loading).type), flush=True)
    pipeline = load_pipeline(*loading)
    pipeline.set_progress_bar_config(**progress_bar())
    result = generate(pipeline, job, references, settings)

    fields: dict[str, object] = {
        "Steps": job.steps,
        "Sampler": "Euler",
        "CFG scale": 1,
        "Distilled CFG Scale": job.guidance,
        "Seed": job.seed,
        "Size": f"{width}x{height}",
        "Model": (options.checkpoint or Path("small_kontext")).stem,
        **infotext.settings_to_infotext(settings, references),
        **infotext.report_to_infotext(result.report),
    }
    metadata = PngInfo()
    metadata.add_text("parameters", f"{job.prompt}\n{infotext.infotext_line(fields)}")
    captioned = [
        (f"{path.name}, {reference.size[0]}×{reference.size[1]}", reference.image)
        for path, reference in zip(paths, references, strict=True)
    ]
    rows = {name: str(value) for name, value in fields.items()}
    pair = picture_pair(references[0], settings, result.image) if references else None
    page = report_page(job.prompt or "(no prompt)", result.image, captioned, result.report, rows, pair)
    write_atomically(
        {
            image_path: lambda file: result.image.save(file, "PNG", pnginfo=metadata),
            page_path: lambda file: file.write(page.encode()),
        }
    )
    print(text.summary(result.report))
    if result.report.memory is not None:
        print(f"Memory: {text.memory_peak(result.report)}")
    print(f"Picture: {image_path}")
    print(f"Report:  {page_path}")
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m lib_fluxkontext", description="FLUX.1 Kontext without Forge.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    command = commands.add_parser("generate", help="make one picture from references and a sentence")
    add = command.add_argument
    add("--image", type=Path, action="append", metavar="FILE", help="a reference; may be given again")
    add("--prompt", required=True, help="what should happen")
    add("--steps", default="20", help="sampler steps (%(default)s)")
    add("--seed", default="0", help="of the start noise (%(default)s)")
    add("--guidance", default="3.5", help="distilled guidance scale (%(default)s)")
    add("--size", metavar="WxH", help="of the picture; default: as the first reference, by BFL's table")
    add("--sizing", help=f"of the references: {', '.join(SIZINGS)}")
    add("--half-size", action="store_true", help="halve the references after sizing")
    add("--placement", default=default_of("placement"), help=f"position ids: {', '.join(PLACEMENTS)} (%(default)s)")
    add(
        "--stitch", default=default_of("stitch"), help=f"references as one picture: {', '.join(STITCHES)} (%(default)s)"
    )
    add("--threshold", default=_default("cache_threshold"), help="of First Block Cache, 0 to 1 (%(default)s)")
    add("--no-cache", action="store_true", help="compute every step")
    add("--warmup", default=_default("cache_warmup_steps"), help="first steps that are always computed (%(default)s)")
    add(
        "--max-consecutive",
        default=_default("cache_max_consecutive"),
        help="longest run of reused steps, 0 is no limit (%(default)s)",
    )
    add("--compute-last", action="store_true", help="always compute the last step")
    add("--no-forecast", action="store_true", help="repeat what was stored instead of following its trend")
    add("--correct", action="store_true", help="let computed steps make up for what the reused got wrong")
    add(
        "--reference-refresh",
        default=_default("reference_refresh"),
        help="run references in one step of so many; 0 in all (%(default)s)",
    )
    add("--preset", help=f"in place of the cache's options: {', '.join(PRESETS)}")
    add("--checkpoint", type=Path, help="folder, .safetensors or .gguf; default: the small model")
    add("--base", type=Path, help="folder with the other components, beside a single file")
    add("--device", help="cuda, cuda:1 for the second card, or cpu; default: cuda where there is one")
    add("--nf4", action="store_true", help="quantise the transformer to NF4 (bitsandbytes, CUDA)")
    add("--offload", action="store_true", help="keep on the GPU only what is at work")
    add("--output", type=Path, help="the picture's path; the report lies beside it")
    return parser


def _default(name: str) -> str:
    """Return a setting's default as an option's text: numbers are parsed later, so that errors name the option."""
    return f"{default_of(name):g}"


def _settings(options: argparse.Namespace) -> KontextSettings:
    sizing = options.sizing or ("to output" if options.checkpoint is None else "to BFL recommended")
    references = {
        "sizing": sizing,
        "half_size": options.half_size,
        "placement": options.placement,
        "stitch": options.stitch,
    }
    return KontextSettings.from_mapping({"enabled": True, **references, **_cache_settings(options)})


def _cache_settings(options: argparse.Namespace) -> Mapping[str, object]:
    if options.preset is None:
        return {
            "cache": not options.no_cache,
            "cache_threshold": _parse_number(options.threshold),
            "cache_warmup_steps": _parse_number(options.warmup),
            "cache_max_consecutive": _parse_number(options.max_consecutive),
            "cache_compute_last": options.compute_last,
            "cache_forecast": not options.no_forecast,
            "cache_correct": options.correct,
            "reference_refresh": _parse_number(options.reference_refresh),
        }
    presets: Mapping[str, PresetValues] = {preset.lower(): values for preset, values in PRESETS.items()}
    if options.preset.lower() not in presets:
        raise KontextError(f"got {describe(options.preset)}; allowed: one of {', '.join(PRESETS)}", "preset")
    return presets[options.preset.lower()]


def _parse_number(text: str) -> Any:
    """Parse a number; return any other text as it is, for the settings to refuse with their own message."""
    for number_type in (int, float):
        try:
            return number_type(text)
        except ValueError:
            continue
    return text


def _read_reference(path: Path, name: str) -> Reference:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise KontextError((error.strerror or "cannot be read").lower(), name) from None
    return decode_reference(data, name)


def _output_size(options: argparse.Namespace, references: Sequence[Reference]) -> tuple[int, int]:
    size = options.size or (SMALL_MODEL_SIZE if options.checkpoint is None else None)
    if size is None:
        return nearest_bfl_size(*references[0].size) if references else DEFAULT_SIZE
    match = re.fullmatch(r"(\d{1,5})[x×](\d{1,5})", size)
    if not match:
        raise KontextError(f'got the text "{size}"; allowed: width and height, such as 1024x768', "size")
    return int(match[1]), int(match[2])


def _output_paths(image: Path | None) -> tuple[Path, Path]:
    """Return the paths of image and report."""
    if image is None:
        image = Path("output") / f"kontext-{time.strftime('%Y%m%d-%H%M%S')}.png"
    if image.suffix.lower() != ".png":
        raise KontextError(f"got {image.name}; allowed: a name that ends in .png", "output")
    return image, image.with_suffix(".html")


def write_atomically(files: Mapping[Path, Callable[[BinaryIO], object]]) -> None:
    """Write to temporary files and rename all at the end, so that a failure leaves no half-written file.

    Args:
        files: each file's path, and what writes it.
    """
    temporaries = {path: path.with_name(f".{path.name}.{os.getpid()}.part") for path in files}
    try:
        for path, write in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporaries[path].open("wb") as file:
                write(file)
        for path, temporary in temporaries.items():
            temporary.replace(path)
    except BaseException:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)
        raise


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


def _print_error(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
