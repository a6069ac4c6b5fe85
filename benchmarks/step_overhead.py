"""What the hooks cost in a real Forge or Forge Neo: a step that only measures, a step that is reused.

    python -m benchmarks.step_overhead [--host forge|neo] [--rounds 9] [--steps 8]
    python -m benchmarks.step_overhead --host neo --host-references [--side 512] [--rounds 3] [--steps 12]

Starts the host of the tests (``FORGE_ROOT`` or ``NEO_ROOT``) on the CPU with a random 140-million-parameter Flux
(hidden 512, 8 + 16 blocks) and makes 256×256 pictures with two references of 256 tokens each. The settings take turns
in one run, so that a slow minute of the machine hits them alike. Prints medians over all steps but each generation's
first, their quartiles, and the ratios to the median step with the cache off.

With ``--host-references`` the panel is empty and the references are Neo's own, from ImageStitch; what takes turns is
reference reuse with a refresh every fourth step, and off, and what is compared are whole samplings. Picture and
references are squares of ``--side`` pixels; the larger, the smaller the share of the prompt's tokens.
"""

from __future__ import annotations

import argparse
import datetime
import platform
from statistics import median, quantiles
from typing import Any

from tests.support import checkpoint_files
from tests.support.forge_install import HOSTS, NEO
from tests.support.forge_server import ForgeServer, Result
from tests.support.image_stitch import stitched
from tests.support.payloads import made, report, two_references

SETTINGS = {
    "cache off": {"cache": False},
    "measures every step, never reuses": {"cache": True, "cache_threshold": 1e-9},
    "reused": {"cache": True, "cache_threshold": 1.0},
}
KINDS = {"cache off": "computed", "measures every step, never reuses": "computed", "reused": "reused"}
BOUNDS = {"measures every step, never reuses": "≤ 1.02", "reused": "≤ 0.08"}

HOST_REFERENCES: dict[str, dict[str, Any]] = {
    "every step with Neo's references": {"cache": False},
    "kept, refreshed every fourth step": {"cache": False, "reference_refresh": 4},
}


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", choices=[host.name for host in HOSTS], default="forge")
    parser.add_argument("--host-references", action="store_true", help="Neo's own references, reused or not")
    parser.add_argument("--side", type=int, default=256, help="of picture and references with --host-references")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    host = next(host for host in HOSTS if host.name == options.host)
    if options.host_references and host is not NEO:
        parser.error("only Forge Neo has references of its own: --host neo")
    checkpoint = checkpoint_files.FLUX_140M_KONTEXT if options.host_references else checkpoint_files.FLUX_140M
    with ForgeServer(host=host, checkpoint=checkpoint) as server:
        if options.host_references:
            seconds = _samplings(server, options.rounds, options.steps, options.side)
        else:
            seconds = _steps(server, options.rounds, options.steps)
    processor = platform.processor() or platform.machine()
    print(f"{datetime.date.today()}, {host.title}, {processor}, {options.rounds} rounds, {options.steps} steps")
    _print_table(seconds)


def _steps(server: ForgeServer, rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds of each step but the first, by setting."""
    seconds: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for turn in range(rounds + 1):
        for name, settings in SETTINGS.items():
            result = made(server, two_references(**settings), steps=steps, seed=turn)
            if turn:  # the first round warms up
                seconds[name] += [step["seconds"] for step in _steps_of(result)[1:] if step["kind"] == KINDS[name]]
    return seconds


def _samplings(server: ForgeServer, rounds: int, steps: int, side: int) -> dict[str, list[float]]:
    """Seconds of each sampling with Neo's own two references, by setting."""
    seconds: dict[str, list[float]] = {name: [] for name in HOST_REFERENCES}
    for turn in range(rounds + 1):
        for name, settings in HOST_REFERENCES.items():
            result = stitched(server, settings, side=side, width=side, height=side, steps=steps, seed=turn)
            assert report(result)["passes"][0]["host_references"] == 2
            if turn:
                seconds[name].append(report(result)["sampling_seconds"])
    return seconds


def _steps_of(result: Result) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = report(result)["passes"][0]["steps"]
    return steps


def _print_table(seconds: dict[str, list[float]]) -> None:
    base = median(next(iter(seconds.values())))
    print(f"{'':36} {'number':>6} {'median':>11} {'quartiles':>24} {'ratio':>7} {'faster':>7} {'bound':>7}")
    for name, values in seconds.items():
        low, _, high = quantiles(values, n=4)
        spread = f"{low * 1000:.1f} – {high * 1000:.1f} ms"
        ratio = median(values) / base
        milliseconds = f"{median(values) * 1000:8.1f} ms"
        bound = BOUNDS.get(name, "")
        print(f"{name:36} {len(values):6} {milliseconds} {spread:>24} {ratio:7.3f} {1 / ratio:6.2f}× {bound:>7}")


if __name__ == "__main__":
    main()
