"""Plots of quality against cost: a panel for each number of references, a curve for each family's Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from benchmarks.frontier.conditions import CONDITIONS
from benchmarks.frontier.measure import Row
from benchmarks.frontier.methods import BOTH, BOTH_CORRECTED, CORRECTED, FORECAST, OURS, PLAIN, PRESET
from benchmarks.frontier.rival_methods import OTHERS
from benchmarks.frontier.tables import WHERE, front, full_evaluations, of
from benchmarks.frontier.tasks import Group

matplotlib.use("Agg")
from matplotlib import pyplot as plt

OUR_COLOURS = {
    PRESET: "#b91c1c",
    PLAIN: "#93c5fd",
    FORECAST: "#3b82f6",
    CORRECTED: "#1d4ed8",
    BOTH: "#fb923c",
    BOTH_CORRECTED: "#ea580c",
}
"""Strong colours for this project's; of a family that is not here, black."""

OTHER_COLOURS = ("#64748b", "#0f766e", "#a16207", "#7c3aed", "#be185d")
OTHER_STYLES = ("--", ":", "-.")
"""The others are thin and told apart by both."""


def plot(tables: Mapping[str, Sequence[Row]], group: Group, path: Path) -> bool:
    """Draw the complete conditions of a group that were measured; False, and nothing drawn, if none was.

    Args:
        tables: rows by key of the condition.
        group: copying or editing.
        path: of the PNG.
    """
    shown = [one for one in CONDITIONS if one.group == group and one.complete and one.key in tables]
    if not shown:
        return False
    size = (5.4 * len(shown) + 3.2, 5.2)
    figure, panels = plt.subplots(
        1, len(shown), figsize=size, sharey=True, squeeze=False, layout="constrained", facecolor="white"
    )
    named: dict[str, Line2D] = {}
    for axes, condition in zip(panels[0], shown, strict=True):
        _panel(axes, tables[condition.key], group, named)
        axes.set_title(("No references", "One reference", "Two references")[condition.references])
    panels[0][0].set_ylabel(f"PSNR against uncached {WHERE[group]}, dB")
    figure.legend(list(named.values()), list(named), loc="outside right center", fontsize=9, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True


def _panel(axes: Axes, rows: Sequence[Row], group: Group, named: dict[str, Line2D]) -> None:
    full = full_evaluations(rows)
    for number, family in enumerate((*OTHERS, *OURS)):
        points = front(of(rows, [family]), group)
        if not points:
            continue
        if family in OURS:
            colour = OUR_COLOURS.get(family, "#000000")
            style: dict[str, Any] = {"color": colour, "linewidth": 2.4, "marker": "o", "markersize": 5, "zorder": 3}
            if family == PRESET:
                style |= {"linestyle": "none", "marker": "*", "markersize": 13, "zorder": 4}
        else:
            style = {
                "color": OTHER_COLOURS[number % len(OTHER_COLOURS)],
                "linestyle": OTHER_STYLES[number % len(OTHER_STYLES)],
                "linewidth": 1.2,
                "marker": "x",
                "markersize": 4,
            }
        (line,) = axes.plot([point.expense for point in points], [point.psnr for point in points], **style)
        named.setdefault(family, line)
    axes.set(xlabel=f"full evaluations of {full:g}", xlim=(0.1 * full, 0.75 * full))
    axes.grid(alpha=0.3)
