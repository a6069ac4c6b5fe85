"""Memory and time of ``convert``: ``python -m benchmarks.convert``; ``--help`` says how to take less of it.

Makes a file with random weights in FLUX.1's own shapes and fewer blocks, converts it by the command line in a process
of its own, and prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.peak_memory import peak_bytes

WIDTH = 3072
BYTES = 2
"""Of a number in bfloat16."""

FORMATS = {"Q8_0": "gguf", "Q4_0": "gguf", "nf4": "safetensors", "fp8": "safetensors"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=3.0, help="of the file to convert, at least (%(default)s)")
    parser.add_argument("--formats", default=",".join(FORMATS), help="by commas (%(default)s)")
    parser.add_argument("--folder", type=Path, help="for the files; default: the system's temporary one")
    parser.add_argument("--one", nargs=3, metavar=("IN", "OUT", "FORMAT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        _convert_here(*options.one)
        return
    lines = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        source = Path(name) / "random.safetensors"
        write_random(source, options.gigabytes * 1e9)
        for kind in options.formats.split(","):
            out = Path(name) / f"{kind}.{FORMATS[kind]}"
            command = [sys.executable, "-m", "benchmarks.convert", "--one", str(source), str(out), kind]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            run = json.loads(printed.stdout.splitlines()[-1])
            assert run["code"] == 0, printed.stdout
            sizes = source.stat().st_size / 1e9, out.stat().st_size / 1e9
            out.unlink()
            rate = sizes[0] * 1e3 / run["seconds"]
            lines.append(
                f"| {kind} | {sizes[0]:.2f} GB | {sizes[1]:.2f} GB | {run['peak'] / 2**20:.0f} MB | "
                f"{run['seconds']:.0f} s | {rate:.0f} MB/s |"
            )
    from benchmarks.machine import machine

    print(f"Measured {machine()}.\n\n| format | from | to | peak memory | time | read |\n|---|---|---|---|---|---|")
    print("\n".join(lines))


def _convert_here(source: str, out: str, kind: str) -> None:
    """Run the command in this process, and print its seconds and its largest resident memory."""
    start = time.perf_counter()
    from lib_fluxkontext.commands.main import main as command_line

    code = command_line(["convert", source, out, "--format", kind])
    print(json.dumps({"code": code, "seconds": time.perf_counter() - start, "peak": peak_bytes()}))


def shapes(blocks: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Return FLUX.1's tensors in the original layout, with one double block for every two single ones."""

    def linear(name: str, rows: int, columns: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", (rows, columns)
        yield f"{name}.bias", (rows,)

    def norms(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.query_norm.scale", (128,)
        yield f"{name}.key_norm.scale", (128,)

    yield from linear("img_in", WIDTH, 64)
    yield from linear("txt_in", WIDTH, 4096)
    for name, columns in (("time_in", 256), ("guidance_in", 256), ("vector_in", 768)):
        yield from linear(f"{name}.in_layer", WIDTH, columns)
        yield from linear(f"{name}.out_layer", WIDTH, WIDTH)
    for index in range(-(-blocks // 3)):
        for stream in ("img", "txt"):
            name = f"double_blocks.{index}.{stream}"
            yield from linear(f"{name}_mod.lin", 6 * WIDTH, WIDTH)
            yield from linear(f"{name}_attn.qkv", 3 * WIDTH, WIDTH)
            yield from norms(f"{name}_attn.norm")
            yield from linear(f"{name}_attn.proj", WIDTH, WIDTH)
            yield from linear(f"{name}_mlp.0", 4 * WIDTH, WIDTH)
            yield from linear(f"{name}_mlp.2", WIDTH, 4 * WIDTH)
    for index in range(blocks - -(-blocks // 3)):
        name = f"single_blocks.{index}"
        yield from linear(f"{name}.linear1", 7 * WIDTH, WIDTH)
        yield from linear(f"{name}.linear2", WIDTH, 5 * WIDTH)
        yield from norms(f"{name}.norm")
        yield from linear(f"{name}.modulation.lin", 3 * WIDTH, WIDTH)
    yield from linear("final_layer.adaLN_modulation.1", 2 * WIDTH, WIDTH)
    yield from linear("final_layer.linear", 64, WIDTH)


def write_random(path: Path, least: float) -> None:
    """Write a file of at least so many bytes, in bfloat16."""
    from lib_fluxkontext.convert.containers import safetensors_header
    from lib_fluxkontext.convert.encodings import Entry

    blocks = 2
    while BYTES * sum(math.prod(shape) for _, shape in shapes(blocks)) < least:
        blocks += 1
    entries = [Entry(name, "BF16", shape, BYTES * math.prod(shape)) for name, shape in shapes(blocks)]
    random = np.random.default_rng(16)
    with path.open("wb") as file:
        file.write(safetensors_header(entries, {}))
        for entry in entries:
            left = entry.bytes // BYTES
            while left:
                numbers = random.standard_normal(min(left, 2**22), np.float32) * np.float32(0.02)
                file.write((numbers.view(np.uint32) >> 16).astype("<u2").data)  # cut to bfloat16
                left -= numbers.size


if __name__ == "__main__":
    main()
