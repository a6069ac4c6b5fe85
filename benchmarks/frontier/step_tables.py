"""Markdown tables of what steps cost on models without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from benchmarks.frontier.methods import UNCACHED
from benchmarks.frontier.models import PRESET_RUN
from benchmarks.frontier.scripted import Schedule
from benchmarks.frontier.steps import Cost, median_of_present


def cost_table(costs: Mapping[tuple[int, str], Sequence[Cost]]) -> str:
    """Seconds of a step of each kind and of the whole, medians over the rounds.

    Kept and reused steps are also given as a share of an uncached run's computed step.
    """
    lines = [
        "| references | run | sampling | computed step | kept | reused | faster | peak memory |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for (references, name), rounds in costs.items():
        base = costs[references, UNCACHED]
        seconds, kept, reused = (_median(rounds, kind) for kind in ("seconds", "kept", "reused"))
        computed = _median(rounds, "computed")
        peak = _median(rounds, "peak_bytes")
        cells = [
            f"{seconds:.2f} s",
            "–" if computed is None else f"{computed:.3f}",
            *(_with_share(value, _median(base, "computed")) for value in (kept, reused)),
            f"{_faster(rounds, base):.2f}×",
            "–" if peak is None else f"{peak / 2**30:.2f} GiB",
        ]
        lines.append(f"| {references} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


DEEP_RATIO, DEEP_SHARE = 4.5, 0.035
"""Aimed at: a preset so many times as fast as uncached, its reused step at most so much of a computed one."""


def preset_target(costs: Mapping[tuple[int, str], Sequence[Cost]]) -> str | None:
    """Whether the fastest preset reaches ``DEEP_RATIO`` with reused steps in ``DEEP_SHARE``; None where none ran."""
    found = [
        (_faster(rounds, costs[references, UNCACHED]), name, references)
        for (references, name), rounds in costs.items()
        if name.startswith(PRESET_RUN)
    ]
    if not found:
        return None
    ratio, name, references = max(found)
    reused = _median(costs[references, name], "reused")
    share = (reused or 0.0) / (_median(costs[references, UNCACHED], "computed") or 1.0)
    reached = "reached" if ratio >= DEEP_RATIO and share <= DEEP_SHARE else "missed"
    return (
        f"Target {reached}: *{name}* is {ratio:.2f} times as fast as uncached (the target is {DEEP_RATIO:g}); its "
        f"reused step costs {share:.1%} of a computed one (the target is at most {DEEP_SHARE:.1%})."
    )


def schedule_table(schedules: Mapping[str, Schedule]) -> str:
    """Every preset's steps in order, a letter each."""
    lines = ["| preset | steps |", "|---|---|"]
    for name, schedule in schedules.items():
        lines.append(f"| {name} | `{''.join(SCHEDULE_LETTERS[kind] for kind in schedule)}` |")
    return "\n".join(lines)


SCHEDULE_LETTERS = {"computed": "C", "kept": "K", "reused": "·"}


def _faster(rounds: Sequence[Cost], base: Sequence[Cost]) -> float:
    """Median over the rounds of uncached seconds / seconds, both of the same round."""
    return median(uncached.seconds / cost.seconds for uncached, cost in zip(base, rounds, strict=True))


def _median(rounds: Sequence[Cost], name: str) -> float | None:
    return median_of_present([getattr(cost, name) for cost in rounds])


def _with_share(seconds: float | None, computed: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds:.3f}" if not computed else f"{seconds:.3f} ({seconds / computed:.1%})"
