"""Pareto fronts of what was measured on pictures, Markdown tables, and what is read off them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.frontier.measure import Row
from benchmarks.frontier.methods import OURS, UNCACHED
from benchmarks.frontier.quality import Quality
from benchmarks.frontier.rival_methods import OTHERS
from benchmarks.frontier.tasks import Group

WHERE: dict[Group, str] = {"editing": "outside the edited region", "copying": "on the whole picture"}
"""Where a group is judged; ``Row.judged`` gives the number."""

COSTS = (0.2, 0.25, 0.3, 0.4, 0.5, 0.6)
"""Shares of an uncached sampling's evaluations: 4, 5, 6, 8, 10 and 12 of 20."""

RATIOS = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0)

OUR_BUDGET, THEIR_BUDGET = 0.25, 0.5
"""The goal: with so much of an uncached sampling's evaluations, as good as the best of the others with so much."""

Expense = Callable[[Row], float]
"""What a row costs; lower is better."""


def by_evaluations(row: Row) -> float:
    """Full evaluations."""
    return row.evaluations


def by_time(row: Row) -> float:
    """Wall time: the negative ratio, so that the line between two points is straight in the ratio that is shown."""
    return -row.ratio


@dataclass(frozen=True)
class Point:
    """One row of a Pareto front: its expense and the PSNR that its group is judged by."""

    expense: float
    psnr: float
    row: Row


def front(rows: Sequence[Row], group: Group, expense: Expense = by_evaluations) -> list[Point]:
    """Return the rows that no other beats in one and equals in the other, from the cheapest on."""
    points = []
    for row in rows:
        psnr = row.judged(group)
        if psnr is not None:
            points.append(Point(expense(row), psnr, row))
    points.sort(key=lambda point: (point.expense, -point.psnr))
    found: list[Point] = []
    for point in points:
        if not found or point.psnr > found[-1].psnr:
            found.append(point)
    return found


@dataclass(frozen=True)
class Reading:
    """A PSNR read off a front, and the point at or before it."""

    psnr: float
    row: Row


def read(points: Sequence[Point], expense: float) -> Reading | None:
    """Read a front on the lines between its points; None before the cheapest, the best from the dearest on."""
    cheaper = [point for point in points if point.expense <= expense]
    if not cheaper:
        return None
    found = np.interp(expense, [point.expense for point in points], [point.psnr for point in points])
    return Reading(float(found), cheaper[-1].row)


def of(rows: Sequence[Row], families: Sequence[str]) -> list[Row]:
    """Return the rows of some families."""
    return [row for row in rows if row.family in families]


def full_evaluations(rows: Sequence[Row]) -> float:
    """Return what the uncached sampling costs."""
    return next(row.evaluations for row in rows if row.family == UNCACHED)


def comparison(rows: Sequence[Row], group: Group, expense: Expense = by_evaluations) -> str:
    """Best of this project's beside the best of the others, at several costs."""
    full = full_evaluations(rows)
    if expense is by_evaluations:
        places = [(f"{share * full:.3g}", share * full) for share in COSTS]
        head = f"| evaluations of {full:g} |"
    else:
        places = [(f"{ratio:g}×", -ratio) for ratio in RATIOS]
        head = "| times faster |"
    ours, others = front(of(rows, OURS), group, expense), front(of(rows, OTHERS), group, expense)
    lines = [head + " this project | the others | difference |", "|---:|---|---|---:|"]
    for name, place in places:
        readings = read(ours, place), read(others, place)
        cells = [_reading(one) for one in readings]
        gap = f"{readings[0].psnr - readings[1].psnr:+.1f} dB" if readings[0] and readings[1] else "–"
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {gap} |")
    return "\n".join(lines)


def _reading(reading: Reading | None) -> str:
    return "not reached" if reading is None else f"{reading.psnr:.1f} dB ({reading.row.family})"


def goal(rows: Sequence[Row], group: Group) -> str:
    """Say whether a quarter of the evaluations gives what the best of the others gives with half of them."""
    full = full_evaluations(rows)
    ours, others = OUR_BUDGET * full, THEIR_BUDGET * full
    mine, theirs = _best(of(rows, OURS), group, ours), _best(of(rows, OTHERS), group, others)
    if mine is None or theirs is None:
        who = "this project's settings" if mine is None else "the others"
        return f"The goal cannot be judged: none of {who} costs so little."
    gap = mine.psnr - theirs.psnr
    reached = "Goal reached" if gap >= 0 else f"Goal missed by {-gap:.1f} dB"
    return (
        f"{reached}: with at most {ours:g} of {full:g} evaluations, *{mine.row.family}, {mine.row.label}* "
        f"({mine.row.evaluations:.1f}) has {mine.psnr:.1f} dB {WHERE[group]}; with at most {others:g}, the best of "
        f"the others, *{theirs.row.family}, {theirs.row.label}* ({theirs.row.evaluations:.1f}), has "
        f"{theirs.psnr:.1f} dB."
    )


def _best(rows: Sequence[Row], group: Group, budget: float) -> Point | None:
    affordable = [point for point in front(rows, group) if point.expense <= budget]
    return affordable[-1] if affordable else None


def table(rows: Sequence[Row]) -> str:
    """One line a setting; areas that no task has are left out."""
    areas = [area for area in ("whole", "inside", "outside") if any(getattr(row, area) for row in rows)]
    heads = ["method", "setting", "evaluations", "s", "faster", "quartiles"]
    heads += [f"{name}, {area}" for name in ("PSNR", "SSIM", "FLIP") for area in areas]
    lines = [f"| {' | '.join(heads)} |", "|---|---|" + "---:|" * (len(heads) - 2)]
    for row in rows:
        low, high = row.quartiles
        cells = [row.family, row.label, f"{row.evaluations:.1f}", f"{row.seconds:.2f}"]
        cells += [f"{row.ratio:.2f}×", f"{low:.2f}–{high:.2f}"]
        shown: list[Quality | None] = [None if row.family == UNCACHED else getattr(row, area) for area in areas]
        cells += [f"{one.psnr:.1f}" if one else "–" for one in shown]
        cells += [f"{one.ssim:.4f}" if one else "–" for one in shown]
        cells += [f"{one.flip:.4f}" if one else "–" for one in shown]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
