"""The report as a fragment of HTML: sums, a bar chart of the steps, a table. Escaped, self-contained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path

from lib_fluxkontext.i18n import translate
from lib_fluxkontext.presentation import text
from lib_fluxkontext.telemetry.records import GenerationReport, PassReport, StepRecord

CHART_HEIGHT = 96
BAR_PITCH = 22
MAX_PITCHED = 40
_LETTER = {"computed": "C", "kept": "K", "reused": "R", "mixed": "M"}

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


def report_html(report: GenerationReport | None, chart_id: str) -> str:
    """The report's HTML.

    Args:
        report: None gives a line that says what will stand here.
        chart_id: unique in the page; the charts' patterns are named after it.
    """
    if report is None or not report.passes:
        empty = translate("Steps, seconds and memory of the next generation will stand here.")
        return f'{_style()}<p class="fk-empty">{escape(empty)}</p>'
    parts = [_sums(report)]
    for place, one in enumerate(report.passes):
        title = f"<h4>{escape(text.label(one.label))}</h4>" if len(report.passes) > 1 else ""
        parts += [title, _chart(one, f"{chart_id}-{place}"), _references(one)]
    parts += [_legend(report), _notes(report), _table(report)]
    return f'{_style()}<div class="fk-report">{"".join(parts)}</div>'


def live_html(report: GenerationReport, steps: int, chart_id: str) -> str:
    """A generation that is under way: how far, how long still, memory now, and the chart as it grows.

    Args:
        report: of the pass that runs.
        steps: how many it will have.
        chart_id: unique in the page.
    """
    one = report.passes[-1]
    done = one.steps
    now = min(len(done) + 1, steps)
    parts = [
        translate("{label}: step {step} of {steps}", label=text.label(one.label), step=now, steps=steps),
        translate("{time} so far", time=text.seconds(one.seconds)),
    ]
    left = time_left(done, steps)
    if left is not None:
        parts.append(translate("about {time} left", time=text.seconds(left)))
    memory = report.memory
    if memory is not None:
        used, total = text.gigabytes(memory.in_use or memory.reserved), text.gigabytes(memory.total)
        in_process = translate("{memory} process memory", memory=text.gigabytes(memory.process))
        parts.append(
            in_process if memory.device is None else translate("{used} of {total} on the card", used=used, total=total)
        )
    chart = _chart(one, chart_id) if done else ""
    line = f'<p class="fk-facts">{escape(" · ".join(parts))}</p>'
    return f'{_style()}<div class="fk-report fk-live">{line}{chart}{_legend(report)}{_notes(report)}</div>'


def time_left(done: Sequence[StepRecord], steps: int) -> float | None:
    """Seconds for the steps to come, by the mean of the latest five, so that reused ones count; None before any."""
    recent = [step.seconds for step in done[-5:]]
    return sum(recent) / len(recent) * max(0, steps - len(done)) if recent else None


@cache
def _style() -> str:
    return f"<style>{Path(__file__).with_name('report.css').read_text(encoding='utf-8')}</style>"


def _sums(report: GenerationReport) -> str:
    kept = ("References kept", text.seconds(report.kept_seconds), "Median of the steps computed without their tokens")
    cells = [
        ("Sampling", text.seconds(report.sampling_seconds), "Wall time of all steps of all batches"),
        ("Computed step", text.seconds(report.computed_seconds), "Median"),
        *([kept] if report.kept_seconds is not None else []),
        ("Reused step", text.seconds(report.reused_seconds), "Median"),
        ("Reused", _reused_of(report), "Steps that First Block Cache did not compute"),
        ("Speed-up", _speed_up(report.speed_up), "Against computing every step at the median computed step's time"),
    ]
    memory = report.memory
    if memory is not None and memory.device is None:
        cells.append(("Process memory", text.gigabytes(memory.process), "No CUDA device: this is main memory"))
    elif memory is not None:
        cells.append(("VRAM peak", text.gigabytes(memory.allocated), "Tensors, by torch"))
        cells.append(("Reserved", text.gigabytes(memory.reserved), "Held by torch's allocator"))
        of_total = translate(
            "{used} of {total}", used=text.gigabytes(memory.in_use), total=text.gigabytes(memory.total)
        )
        cells.append(("Card in use", of_total, "All programs, by the driver (NVML), sampled at each step"))
    shown = "".join(
        f'<div title="{escape(translate(hint))}"><dt>{escape(translate(name))}</dt><dd>{escape(value)}</dd></div>'
        for name, value, hint in cells
    )
    return f'<dl class="fk-sums">{shown}</dl>'


def _reused_of(report: GenerationReport) -> str:
    text = translate("{reused} of {steps}", reused=report.reused_steps, steps=len(report.steps))
    if any(0 < step.reused < step.images for step in report.steps):
        text += translate(" ({share} of all images' steps)", share=f"{report.reused_share:.0%}")
    return text


def _chart(one: PassReport, chart_id: str) -> str:
    steps = one.steps
    if not steps:
        return f'<p class="fk-empty">{escape(translate("No step finished."))}</p>'
    slowest = max(step.seconds for step in steps) or 1.0
    lettered = len(steps) <= MAX_PITCHED
    pitch = BAR_PITCH if lettered else max(3.0, BAR_PITCH * MAX_PITCHED / len(steps))
    width = pitch * len(steps)
    bars = "".join(_bar(step, place * pitch, pitch, slowest, chart_id, lettered) for place, step in enumerate(steps))
    label = translate(
        "Chart of {steps} steps: {counts}; slowest {time}",
        steps=len(steps),
        counts=text.counts(steps),
        time=text.seconds(slowest),
    )
    height = CHART_HEIGHT + (28 if lettered else 4)
    return (
        f'<div class="fk-chart"><span class="fk-scale">{text.seconds(slowest)}</span>'
        f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {width:g} {height}" '
        f'style="max-width:{width:g}px" preserveAspectRatio="xMinYMax meet">'
        f"{_PATTERNS.format(id=chart_id)}{bars}</svg></div>"
    )


def _bar(step: StepRecord, x: float, pitch: float, slowest: float, chart_id: str, lettered: bool) -> str:
    height = max(2.0, CHART_HEIGHT * step.seconds / slowest)
    fill = "" if step.kind == "computed" else f' fill="url(#{chart_id}-{step.kind})"'
    hint = translate("Step {step}: {kind}", step=step.index + 1, kind=translate(text.KINDS[step.kind]))
    hint += f", {text.seconds(step.seconds)}"
    if not math.isnan(step.sigma):
        hint += f", {translate('sigma')} {step.sigma:.3f}"
    if step.distance is not None:
        hint += f", {translate('change')} {step.distance:.3f}"
    letter = ""
    if lettered:
        middle = x + pitch / 2
        letter = (
            f'<text x="{middle:g}" y="{CHART_HEIGHT + 12}" aria-hidden="true">{_LETTER[step.kind]}</text>'
            f'<text x="{middle:g}" y="{CHART_HEIGHT + 25}" class="fk-index" aria-hidden="true">{step.index + 1}</text>'
        )
    return (
        f"<g><title>{escape(hint)}</title>"
        f'<rect x="{x + pitch * 0.1:g}" y="{CHART_HEIGHT - height:.1f}" width="{pitch * 0.8:g}" '
        f'height="{height:.1f}" class="fk-{step.kind}"{fill}/>{letter}</g>'
    )


def _references(one: PassReport) -> str:
    if not one.reference_tokens:
        return f'<p class="fk-facts">{escape(translate("No references."))}</p>'
    tokens = " + ".join(f"{count:,}" for count in one.reference_tokens)
    time = text.seconds(one.encode_seconds)
    encoded = translate("{count} encoded in {time}", count=one.encoded, time=time) if one.encoded else ""
    kept = translate("{count} kept from before", count=one.kept) if one.kept else ""
    how = ", ".join(part for part in (encoded, kept) if part)
    facts = translate(
        "Picture {picture} tokens, references {references}; {how}.",
        picture=f"{one.image_tokens:,}",
        references=tokens,
        how=how,
    )
    if one.key_values is not None and one.key_values.refreshes:
        where = (
            translate("in host memory, streamed") if one.key_values.place == "host" else translate("beside the model")
        )
        facts += " " + translate(
            "Their keys and values: {size} {where}, refreshed {count} times.",
            size=text.gigabytes(one.key_values.peak_bytes),
            where=where,
            count=one.key_values.refreshes,
        )
    return f'<p class="fk-facts">{escape(facts)}</p>'


def _legend(report: GenerationReport) -> str:
    words = {
        "computed": "C computed",
        "kept": "K computed, references kept from an earlier step",
        "reused": "R reused",
        "mixed": "M mixed: the images of the batch went different ways",
    }
    kinds = {step.kind for step in report.steps}
    items = "".join(
        f'<span class="fk-key fk-key-{kind}">{escape(translate(words[kind]))}</span>' for kind in words if kind in kinds
    )
    return f'<p class="fk-legend">{items}</p>'


def _notes(report: GenerationReport) -> str:
    return "".join(f'<p class="fk-note">{escape(translate(note))}</p>' for note in text.notes(report))


def _table(report: GenerationReport) -> str:
    rows = "".join(
        f"<tr class='fk-row-{step.kind}'><td>{escape(text.label(one.label))}</td><th scope='row'>{step.index + 1}</th>"
        f"<td>{escape(translate(text.KINDS[step.kind]))}</td><td>{text.seconds(step.seconds)}</td><td>{step.sigma:.4f}</td>"
        f"<td>{'–' if step.distance is None else f'{step.distance:.4f}'}</td><td>{step.calls}</td></tr>"
        for one in report.passes
        for step in one.steps
    )
    names = ("Pass", "Step", "Kind", "Time", "Sigma", "Change", "Calls")
    head = "".join(f"<th scope='col'>{escape(translate(name))}</th>" for name in names)
    return (
        f"<details><summary>{escape(translate('All steps as a table'))}</summary>"
        '<div class="fk-scroll" role="region" aria-label="' + escape(translate("All steps")) + '" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _speed_up(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}×"
