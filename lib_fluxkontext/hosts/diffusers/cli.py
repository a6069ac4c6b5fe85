"""The command line: ``python -m lib_fluxkontext generate --image woman.png --image cat.png --prompt "…"``.

Exit codes: 0 done, 1 it broke, 2 the request is wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from PIL.PngImagePlugin import PngInfo

from lib_fluxkontext import infotext
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.images.decode import Reference, decode_reference
from lib_fluxkontext.images.sizing import nearest_bfl_size
from lib_fluxkontext.presentation import text
from lib_fluxkontext.presentation.page import report_page
from lib_fluxkontext.settings import PRESETS, SIZINGS, KontextSettings, describe
from lib_fluxkontext.telemetry.records import GenerationReport

DONE, BROKEN, WRONG, INTERRUPTED = 0, 1, 2, 130

SMALL_SIZE = "96x96"
"""What the small model was trained on."""

_OPTIONS = {
    "cache_threshold": "--threshold",
    "cache_warmup_steps": "--warmup",
    "cache_max_consecutive": "--max-consecutive",
    "cache_compute_last": "--compute-last",
}
"""Settings whose option is not their name with dashes."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, where argparse would print the whole usage before it."""
        _complain(f"{message}; see --help")
        raise SystemExit(WRONG)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(arguments)
    paths = options.image or []
    try:
        return _generate(options, paths)
    except KontextError as error:
        _complain(_for_the_command_line(error, paths))
        return WRONG
    except KeyboardInterrupt:
        _complain("interrupted; nothing was written")
        return INTERRUPTED
    except ImportError as error:
        _complain(f'{error}; install what the command line needs: pip install -e ".[diffusers]"')
        return BROKEN
    except (RuntimeError, OSError, ValueError) as error:
        _complain(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
        return BROKEN


def _generate(options: argparse.Namespace, paths: Sequence[Path]) -> int:
    settings = _settings(options)
    references = [_reference(path, f"image{number}") for number, path in enumerate(paths, 1)]
    picture_path, page_path = _output_paths(options.output)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it advises on packages that nobody here needs
    from lib_fluxkontext.hosts.diffusers.loader import load_pipeline
    from lib_fluxkontext.hosts.diffusers.pipeline import Job, generate

    width, height = _size(options, references)
    job = Job(options.prompt, width, height, _number(options.steps), _number(options.seed), _number(options.guidance))
    pipeline = load_pipeline(options.checkpoint, options.base, options.device, options.nf4, options.offload)
    made = generate(pipeline, job, references, settings)

    fields = {
        "Steps": job.steps,
        "Sampler": "Euler",
        "CFG scale": 1,
        "Distilled CFG Scale": job.guidance,
        "Seed": job.seed,
        "Size": f"{width}x{height}",
        "Model": (options.checkpoint or Path("small_kontext")).stem,
        **infotext.settings_to_infotext(settings, references),
        **infotext.report_to_infotext(made.report),
    }
    info = PngInfo()
    info.add_text("parameters", f"{job.prompt}\n{infotext.infotext_line(fields)}")
    shown = [
        (f"{path.name}, {one.size[0]}×{one.size[1]}", one.image) for path, one in zip(paths, references, strict=True)
    ]
    page = report_page(
        job.prompt or "(no prompt)", made.image, shown, made.report, {k: str(v) for k, v in fields.items()}
    )
    _write(picture_path, lambda file: made.image.save(file, "PNG", pnginfo=info))
    _write(page_path, lambda file: file.write(page.encode()))
    _print_table(made.report)
    print(f"Picture: {picture_path}")
    print(f"Report:  {page_path}")
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m lib_fluxkontext", description="FLUX.1 Kontext without Forge.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    one = commands.add_parser("generate", help="make one picture from references and a sentence")
    one.add_argument("--image", type=Path, action="append", metavar="FILE", help="a reference; may be given again")
    one.add_argument("--prompt", required=True, help="what should happen")
    one.add_argument("--steps", default="20", help="sampler steps (20)")
    one.add_argument("--seed", default="0", help="of the start noise (0)")
    one.add_argument("--guidance", default="3.5", help="distilled guidance scale (3.5)")
    one.add_argument("--size", metavar="WxH", help="of the picture; default: as the first reference, by BFL's table")
    one.add_argument("--sizing", help=f"of the references: {', '.join(SIZINGS)}")
    one.add_argument("--half-size", action="store_true", help="halve the references after sizing")
    one.add_argument("--threshold", default="0.14", help="of First Block Cache, 0 to 1 (0.14)")
    one.add_argument("--no-cache", action="store_true", help="compute every step")
    one.add_argument("--warmup", default="1", help="first steps that are always computed (1)")
    one.add_argument("--max-consecutive", default="0", help="longest run of reused steps, 0 is no limit (0)")
    one.add_argument("--compute-last", action="store_true", help="always compute the last step")
    one.add_argument("--no-forecast", action="store_true", help="repeat what was stored instead of following its trend")
    one.add_argument("--correct", action="store_true", help="let computed steps make up for what the reused got wrong")
    one.add_argument("--reference-refresh", default="0", help="run references in one step of so many; 0 in all (0)")
    one.add_argument("--preset", help=f"in place of the cache's options: {', '.join(PRESETS)}")
    one.add_argument("--checkpoint", type=Path, help="folder, .safetensors or .gguf; default: the small model")
    one.add_argument("--base", type=Path, help="folder with the other components, beside a single file")
    one.add_argument("--device", help="cuda or cpu; default: cuda where there is one")
    one.add_argument("--nf4", action="store_true", help="quantise the transformer to NF4 (bitsandbytes, CUDA)")
    one.add_argument("--offload", action="store_true", help="keep on the GPU only what is at work")
    one.add_argument("--output", type=Path, help="the picture's path; the report lies beside it")
    return parser


def _settings(options: argparse.Namespace) -> KontextSettings:
    sizing = options.sizing or ("to output" if options.checkpoint is None else "to BFL recommended")
    if options.preset is None:
        caches: dict[str, Any] = {
            "cache": not options.no_cache,
            "cache_threshold": _number(options.threshold),
            "cache_warmup_steps": _number(options.warmup),
            "cache_max_consecutive": _number(options.max_consecutive),
            "cache_compute_last": options.compute_last,
            "cache_forecast": not options.no_forecast,
            "cache_correct": options.correct,
            "reference_refresh": _number(options.reference_refresh),
        }
    elif options.preset.capitalize() in PRESETS:
        caches = PRESETS[options.preset.capitalize()]
    else:
        raise KontextError(f"got {describe(options.preset)}; allowed: one of {', '.join(PRESETS)}", "preset")
    return KontextSettings.from_mapping({"enabled": True, "sizing": sizing, "half_size": options.half_size, **caches})


def _number(written: str) -> Any:
    """A number where it is one, else the text itself, for the settings to refuse in their own words."""
    for kind in (int, float):
        try:
            return kind(written)
        except ValueError:
            continue
    return written


def _reference(path: Path, name: str) -> Reference:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise KontextError((error.strerror or "cannot be read").lower(), name) from None
    return decode_reference(data, name)


def _size(options: argparse.Namespace, references: Sequence[Reference]) -> tuple[int, int]:
    written = options.size or (SMALL_SIZE if options.checkpoint is None else None)
    if written is None:
        return nearest_bfl_size(*references[0].size) if references else (1024, 1024)
    match = re.fullmatch(r"(\d{1,5})[x×](\d{1,5})", written)
    if not match:
        raise KontextError(f'got the text "{written}"; allowed: width and height, such as 1024x768', "size")
    return int(match[1]), int(match[2])


def _output_paths(picture: Path | None) -> tuple[Path, Path]:
    if picture is None:
        picture = Path("output") / f"kontext-{time.strftime('%Y%m%d-%H%M%S')}.png"
    if picture.suffix.lower() != ".png":
        raise KontextError(f"got {picture.name}; allowed: a name that ends in .png", "output")
    return picture, picture.with_suffix(".html")


def _write(path: Path, write: Callable[[Any], Any]) -> None:
    """Write beside the target and move there at the end, so that no half-written file stands under its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            write(file)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _print_table(report: GenerationReport) -> None:
    print(f"{'step':>4}  {'':15}  {'time':>8}  {'sigma':>6}  {'change':>6}")
    for step in report.steps:
        change = "–" if step.distance is None else f"{step.distance:.3f}"
        kind, seconds = text.KINDS[step.kind], text.seconds(step.seconds)
        print(f"{step.index + 1:4}  {kind:15}  {seconds:>8}  {step.sigma:6.3f}  {change:>6}")
    speed_up = "–" if report.speed_up is None else f"{report.speed_up:.2f}×"
    print(f"Sampling {text.seconds(report.sampling_seconds)}; step {text.step_time(report)}")
    print(f"Reused {text.steps_cached(report)} steps; speed-up {speed_up}")
    if report.memory is not None:
        print(f"Memory {text.memory_peak(report.memory)}")


def _for_the_command_line(error: KontextError, paths: Sequence[Path]) -> str:
    """The same message with the option in place of the setting's name."""
    if error.field is None:
        return str(error)
    number = error.field.removeprefix("image")
    if number.isdigit() and int(number) <= len(paths):
        option = f"--image {paths[int(number) - 1]}"
    else:
        option = _OPTIONS.get(error.field, "--" + error.field.replace("_", "-"))
    return f"{option}: {error.reason}"


def _complain(line: str) -> None:
    print(f"error: {' '.join(line.split())}", file=sys.stderr)
