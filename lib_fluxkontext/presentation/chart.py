"""A sampling's steps in SVG: their times as bars, and below them their changes beside the threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from statistics import median

from lib_fluxkontext.i18n import translate
from lib_fluxkontext.presentation import text
from lib_fluxkontext.telemetry.records import StepRecord

BAR_HEIGHT = 96
"""Of the slowest step, in the chart's units."""

BAR_PITCH = 22
"""From bar to bar."""

MAX_LABELLED = 40
"""Steps: with more, bars get narrower and have no letters."""

MIN_BAR_PITCH = 3.0
LETTER_LINE, NUMBER_LINE = 12, 25
"""Baselines below the bars."""

PLOT_HEIGHT, PLOT_GAP = 64, 16
"""Of the plot of changes below the bars, and the space between."""

PLOT_RANGE = 3.0
"""Changes are drawn up to so many times the threshold or their median; larger ones stand at the top as triangles."""

LETTERS = {"computed": "C", "kept": "K", "reused": "R", "mixed": "M"}

_PATTERNS = """
<defs>
<pattern id="{id}-reused" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
<rect width="6" height="6" class="fk-reused-ground"/><line x1="0" y1="0" x2="0" y2="6" class="fk-reused-stripe"/>
</pattern>
<pattern id="{id}-kept" width="5" height="5" patternUnits="userSpaceOnUse">
<rect width="5" height="5" class="fk-kept-ground"/><line x1="0" y1="0" x2="5" y2="0" class="fk-kept-stripe"/>
</pattern>
<pattern id="{id}-mixed" width="6" height="6" patternUnits="userSpaceOnUse">
<rect width="6" height="6" class="fk-mixed-ground"/><circle cx="3" cy="3" r="1.5" class="fk-mixed-dot"/>
</pattern>
</defs>"""


def step_chart(steps: Sequence[StepRecord], chart_id: str, threshold: float | None = None) -> str:
    """Draw the steps as bars, with a scale and a description for screen readers.

    Args:
        steps: of one pass.
        chart_id: unique in the page; the patterns are named after it.
        threshold: First Block Cache's, which adds a plot of the changes it compared; None where it was off.
    """
    if not steps:
        return f'<p class="fk-empty">{escape(translate("No step finished."))}</p>'
    slowest = max(step.seconds for step in steps) or 1.0
    labelled = len(steps) <= MAX_LABELLED
    pitch = BAR_PITCH if labelled else max(MIN_BAR_PITCH, BAR_PITCH * MAX_LABELLED / len(steps))
    width = pitch * len(steps)
    bars_height = height = BAR_HEIGHT + (28 if labelled else 4)
    description = translate(
        "Chart of {steps} steps: {counts}; slowest {time}",
        steps=len(steps),
        counts=text.counts(steps),
        time=text.seconds(slowest),
    )
    plot = legend = ""
    if threshold is not None and any(step.distance is not None for step in steps):
        plot = _changes(steps, pitch, bars_height + PLOT_GAP, threshold)
        height += PLOT_GAP + PLOT_HEIGHT + 4
        description += f". {_describe_changes(steps, threshold)}"
        legend = _changes_legend(threshold)
    bars = []
    for position, step in enumerate(steps):
        x = position * pitch
        labels = _bar_labels(step, x + pitch / 2) if labelled else ""
        bars.append(f"<g><title>{escape(_bar_hint(step))}</title>{_bar(step, x, pitch, slowest, chart_id)}{labels}</g>")
    return (
        f'<div class="fk-chart"><span class="fk-scale">{text.seconds(slowest)}</span>'
        f'<svg role="img" aria-label="{escape(description)}" viewBox="0 0 {width:g} {height}" '
        f'style="max-width:{width:g}px" preserveAspectRatio="xMinYMax meet">'
        f"{_PATTERNS.format(id=chart_id)}{''.join(bars)}{plot}</svg>{legend}</div>"
    )


def _bar(step: StepRecord, x: float, pitch: float, slowest: float, chart_id: str) -> str:
    height = max(2.0, BAR_HEIGHT * step.seconds / slowest)
    fill = "" if step.kind == "computed" else f' fill="url(#{chart_id}-{step.kind})"'
    return (
        f'<rect x="{x + pitch * 0.1:g}" y="{BAR_HEIGHT - height:.1f}" width="{pitch * 0.8:g}" '
        f'height="{height:.1f}" class="fk-{step.kind}"{fill}/>'
    )


def _bar_hint(step: StepRecord) -> str:
    parts = [
        translate("Step {step}: {kind}", step=step.index + 1, kind=translate(text.KINDS[step.kind])),
        text.seconds(step.seconds),
    ]
    if not math.isnan(step.sigma):
        parts.append(f"{translate('sigma')} {step.sigma:.3f}")
    if step.distance is not None:
        parts.append(f"{translate('change')} {step.distance:.3f}")
    return ", ".join(parts)


def _bar_labels(step: StepRecord, middle: float) -> str:
    y, number = BAR_HEIGHT + NUMBER_LINE, step.index + 1
    return (
        f'<text x="{middle:g}" y="{BAR_HEIGHT + LETTER_LINE}" aria-hidden="true">{LETTERS[step.kind]}</text>'
        f'<text x="{middle:g}" y="{y}" class="fk-index" aria-hidden="true">{number}</text>'
    )


def _changes(steps: Sequence[StepRecord], pitch: float, top: float, threshold: float) -> str:
    """Draw each step's change, filled where it is below the threshold, and the threshold as a dashed line."""
    distances = [step.distance for step in steps if step.distance is not None]
    highest = min(max(*distances, threshold), PLOT_RANGE * max(threshold, median(distances))) * 1.1
    bottom, width = top + PLOT_HEIGHT, pitch * len(steps)
    line = bottom - PLOT_HEIGHT * min(1.0, threshold / highest)
    radius = min(4.0, pitch * 0.3)
    parts = [
        f'<rect x="0" y="{line:.1f}" width="{width:g}" height="{bottom - line:.1f}" class="fk-below"/>',
        f'<line x1="0" y1="{bottom}" x2="{width:g}" y2="{bottom}" class="fk-axis"/>',
        f'<line x1="0" y1="{line:.1f}" x2="{width:g}" y2="{line:.1f}" class="fk-threshold"/>',
    ]
    for position, step in enumerate(steps):
        if step.distance is None:
            continue
        x, y = pitch * (position + 0.5), bottom - PLOT_HEIGHT * step.distance / highest
        below = "fk-change-below" if step.distance < threshold else "fk-change-above"
        hint = f"<title>{escape(_bar_hint(step))}</title>"
        if y < top:
            y, r = top + radius, radius
            shape = f'<polygon points="{x:g},{y - r:g} {x - r:g},{y + r:g} {x + r:g},{y + r:g}" class="{below}"/>'
        else:
            shape = f'<circle cx="{x:g}" cy="{y:.1f}" r="{radius:g}" class="{below}"/>'
        parts.append(f"<g>{hint}{shape}</g>")
    return "".join(parts)


def _describe_changes(steps: Sequence[StepRecord], threshold: float) -> str:
    distances = [step.distance for step in steps if step.distance is not None]
    return translate(
        "Changes from {smallest} to {largest}; {below} of {measured} below the threshold {threshold}",
        smallest=f"{min(distances):.2f}",
        largest=f"{max(distances):.2f}",
        below=sum(distance < threshold for distance in distances),
        measured=len(distances),
        threshold=f"{threshold:g}",
    )


def _changes_legend(threshold: float) -> str:
    names = {
        "below": translate("change below the threshold"),
        "above": translate("above it"),
        "threshold": translate("threshold {threshold}", threshold=f"{threshold:g}"),
    }
    items = "".join(f'<span class="fk-mark-{kind}">{escape(name)}</span>' for kind, name in names.items())
    return f'<p class="fk-legend fk-change-legend" aria-hidden="true">{items}</p>'
