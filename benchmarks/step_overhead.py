"""What the hooks cost in a real Forge: a step that only measures, and a step that is reused.

    python -m benchmarks.step_overhead [--rounds 9] [--steps 8]

Starts the Forge of the tests (``FORGE_ROOT``) on the CPU with a random 140-million-parameter Flux (hidden 512, 8 + 16
blocks) and makes 256×256 pictures with two references of 256 tokens each. The three settings take turns in one
run, so that a slow minute of the machine hits them alike. Prints medians over all steps but each generation's first,
their quartiles, and the ratios to the median step with the cache off.
"""

from __future__ import annotations

import argparse
import datetime
import platform
from statistics import median, quantiles

from tests.support import checkpoint_files
from tests.support.forge_server import ForgeServer
from tests.support.payloads import made, report, two_references

SETTINGS = {
    "cache off": {"cache": False},
    "measures every step, never reuses": {"cache": True, "cache_threshold": 1e-9},
    "reused": {"cache": True, "cache_threshold": 1.0},
}
KINDS = {"cache off": "computed", "measures every step, never reuses": "computed", "reused": "reused"}
BOUNDS = {"measures every step, never reuses": 1.02, "reused": 0.08}


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in SETTINGS}
    with ForgeServer(checkpoint=checkpoint_files.FLUX_140M) as server:
        for turn in range(options.rounds + 1):
            for name, settings in SETTINGS.items():
                result = made(server, two_references(**settings), steps=options.steps, seed=turn)
                steps = report(result)["passes"][0]["steps"][1:]
                if turn:  # the first round warms up
                    seconds[name] += [step["seconds"] for step in steps if step["kind"] == KINDS[name]]
    base = median(seconds["cache off"])
    print(f"{datetime.date.today()}, {platform.processor() or platform.machine()}, {options.rounds} rounds")
    print(f"{'':36} {'steps':>6} {'median':>10} {'quartiles':>22} {'ratio':>7} {'bound':>6}")
    for name, values in seconds.items():
        low, _, high = quantiles(values, n=4)
        spread = f"{low * 1000:.1f} – {high * 1000:.1f} ms"
        bound = f"{BOUNDS[name]:.2f}" if name in BOUNDS else ""
        ratio = median(values) / base
        print(f"{name:36} {len(values):6} {median(values) * 1000:7.1f} ms {spread:>22} {ratio:7.3f} {bound:>6}")


if __name__ == "__main__":
    main()
