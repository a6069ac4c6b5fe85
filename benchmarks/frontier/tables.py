"""Markdown tables of what was measured, and what is read off them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.frontier.measure import Row
from benchmarks.frontier.methods import OTHERS, OURS, PLAIN, UNCACHED
from benchmarks.frontier.steps import Cost, median_of_present


def table(rows: Sequence[Row]) -> str:
    """One line a setting."""
    lines = [
        "| method | setting | s | faster | quartiles | reused | refs kept | PSNR | SSIM |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        quality = "– | –" if row.family == UNCACHED else f"{row.psnr:.1f} | {row.ssim:.4f}"
        low, high = row.quartiles
        lines.append(
            f"| {row.family} | {row.label} | {row.seconds:.2f} | {row.ratio:.2f}× | {low:.2f}–{high:.2f} | "
            f"{row.reused:.0%} | {row.kept:.0%} | {quality} |"
        )
    return "\n".join(lines)


def psnr_at(rows: Sequence[Row], families: Sequence[str], ratio: float) -> float | None:
    """PSNR that these methods reach at a speed: on the line between their best points, None beyond the fastest."""
    points = frontier([row for row in rows if row.family in families])
    if not points or ratio > points[-1][0]:
        return None
    speeds, quality = zip(*points, strict=True)
    return float(np.interp(ratio, speeds, quality))


def frontier(rows: Sequence[Row]) -> list[tuple[float, float]]:
    """(ratio, PSNR) of the settings that no other is both faster and better than, by speed."""
    points = sorted((row.ratio, row.psnr) for row in rows)
    return [
        (ratio, psnr)
        for ratio, psnr in points
        if not any(faster > ratio and better > psnr for faster, better in points)
    ]


def comparison(rows: Sequence[Row]) -> str:
    """Best of ours beside best of the others at several speeds, and the difference."""
    lines = ["| times faster | this project | others | difference |", "|---:|---:|---:|---:|"]
    for ratio in (1.5, 2.0, 2.5, 3.0, 3.5, 4.0):
        ours, others = psnr_at(rows, OURS, ratio), psnr_at(rows, OTHERS, ratio)
        shown = [f"{value:.1f} dB" if value is not None else "not reached" for value in (ours, others)]
        gap = f"{ours - others:+.1f} dB" if ours is not None and others is not None else "–"
        lines.append(f"| {ratio:g}× | {shown[0]} | {shown[1]} | {gap} |")
    return "\n".join(lines)


def target(rows: Sequence[Row]) -> str:
    """Whether some setting is 3.5 times as fast at the quality that plain First Block Cache has at 2×."""
    plain = psnr_at(rows, [PLAIN], 2.0)
    best = max((row for row in rows if row.ratio >= 3.5 and row.family in OURS), key=lambda row: row.psnr, default=None)
    if plain is None or best is None:
        return "Plain First Block Cache did not reach 2×, or nothing reached 3.5×: the target cannot be judged."
    reached = "reached" if best.psnr >= plain else f"missed by {plain - best.psnr:.1f} dB"
    return (
        f"Target {reached}: *{best.family}, {best.label}* is {best.ratio:.2f} times as fast as uncached at "
        f"{best.psnr:.1f} dB; plain First Block Cache at 2× has {plain:.1f} dB."
    )


def cost_table(costs: Mapping[tuple[int, str], Sequence[Cost]]) -> str:
    """Seconds of a step of each kind and of the whole, medians over the rounds."""
    lines = [
        "| references | run | sampling | computed step | kept | reused | faster | peak memory |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for (references, name), rounds in costs.items():
        seconds = median_of_present([cost.seconds for cost in rounds])
        base = median_of_present([cost.seconds for cost in costs[references, UNCACHED]])
        cells = [median_of_present([getattr(cost, kind) for cost in rounds]) for kind in ("computed", "kept", "reused")]
        shown = " | ".join("–" if cell is None else f"{cell:.3f}" for cell in cells)
        peak = median_of_present([cost.peak_bytes for cost in rounds])
        memory = "–" if peak is None else f"{peak / 2**30:.2f} GiB"
        lines.append(f"| {references} | {name} | {seconds:.2f} s | {shown} | {base / seconds:.2f}× | {memory} |")
    return "\n".join(lines)
