"""The options of ``python -m lib_fluxkontext generate``; ``hosts.diffusers.cli`` runs it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lib_fluxkontext.hosts.diffusers.options import add_load_options
from lib_fluxkontext.settings import PLACEMENTS, PRESETS, SIZINGS, STITCHES, default_of


def add_command(commands: Any) -> None:
    """Add ``generate`` to the subcommands of a parser."""
    command = commands.add_parser("generate", help="make one picture from references and a sentence")
    command.set_defaults(run=_run)
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
    add_load_options(command)
    add("--output", type=Path, help="the picture's path; the report lies beside it")


def _run(options: argparse.Namespace) -> int:
    from lib_fluxkontext.hosts.diffusers.cli import run  # PyTorch takes seconds, which --help should not

    return run(options)


def _default(name: str) -> str:
    """Return a setting's default as an option's text: numbers are parsed later, so that errors name the option."""
    return f"{default_of(name):g}"
