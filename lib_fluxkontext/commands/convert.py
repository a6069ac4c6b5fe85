"""``python -m lib_fluxkontext convert IN OUT --format NAME``: a checkpoint in another number format."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lib_fluxkontext.command_line import DONE, guarded
from lib_fluxkontext.errors import KontextError

EPILOG = """formats: Q8_0, Q5_1, Q5_0, Q4_1, Q4_0 (.gguf); nf4, fp4, fp8, fp8_e5m2 (.safetensors); fp16, bf16, fp32
(either, by the ending of OUT). But for nf4 and fp4, the layers before the first block and after the last stay in 16
bits. Interrupted, it goes on when it is started again."""


def add_command(commands: Any) -> None:
    """Add ``convert`` to the subcommands of a parser."""
    command = commands.add_parser("convert", help="convert a checkpoint to another number format", epilog=EPILOG)
    command.set_defaults(run=run)
    add = command.add_argument
    add("source", type=Path, metavar="IN", help=".safetensors (sharded: its index), .gguf, or a folder of diffusers'")
    add("out", type=Path, metavar="OUT", help="the file to make, .safetensors or .gguf")
    add("--format", required=True, metavar="NAME", help="of the blocks' matrices; see below")
    add("--lora", action="append", metavar="FILE:WEIGHT", help="to merge; may be given again")
    add("--overwrite", action="store_true", help="replace OUT where it exists")


def run(options: argparse.Namespace) -> int:
    """Run ``convert`` and return the exit code."""
    extras = "convert,diffusers" if options.lora else "convert"
    return guarded(
        lambda: _convert(options),
        lambda error: _wrong(error, options),
        "interrupted; start again to go on",
        f'what this needs: pip install -e ".[{extras}]"',
    )


def _wrong(error: KontextError, options: argparse.Namespace) -> str:
    """Name the option, or the path, in an error's message."""
    match error.field:
        case "in":
            return f"{options.source}: {error.reason}"
        case "out" | None:
            return error.reason
        case field:
            return f"--{field}: {error.reason}"


def _convert(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from lib_fluxkontext.batch.fields import loras_of
    from lib_fluxkontext.convert.lora import LoraFile
    from lib_fluxkontext.convert.run import Conversion, ConvertRequest

    files = tuple(LoraFile(Path(lora.name), lora.weight) for text in options.lora or () for lora in loras_of(text))
    loras = []
    if files:
        from lib_fluxkontext.hosts.diffusers.lora_file import read_lora  # diffusers takes seconds

        loras = [read_lora(file) for file in files]
    request = ConvertRequest(options.source, options.out, options.format, files, options.overwrite)
    conversion = Conversion(request, loras)
    if conversion.plan.left_out:
        what = "A GGUF file holds" if conversion.is_gguf else "Of names in diffusers' layout, OUT holds"
        print(f"{what} the transformer alone: {conversion.plan.left_out:,} other tensors are left out")
    for lora in loras:
        if lora.elsewhere:
            print(f"{lora.name}: {lora.elsewhere:,} tensors for text encoders are left out")
    if conversion.kept:
        print(f"Going on after {_size(conversion.kept)}")
    look: dict[str, Any] = {"unit": "B", "unit_scale": True, "dynamic_ncols": True, "smoothing": 0.1}
    with tqdm(total=conversion.bytes, desc="Written", disable=None, **look) as bar:
        done = conversion.run(bar.update)
    share = done.bytes / max(1, done.source_bytes)
    print(f"{done.out}: {_size(done.bytes)}, {share:.0%} of the source, {done.seconds:.1f} s")
    return DONE


def _size(count: int) -> str:
    """Say how many bytes: ``"6.81 GB"``."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
