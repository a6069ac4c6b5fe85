"""Reports as HTML fragments, put together from their parts. Everything is escaped; styles are included."""

from __future__ import annotations

from functools import cache
from html import escape
from pathlib import Path

from lib_fluxkontext.i18n import translate
from lib_fluxkontext.presentation import text
from lib_fluxkontext.presentation.advice import advice_html
from lib_fluxkontext.presentation.chart import step_chart
from lib_fluxkontext.presentation.strip import finished_strip, live_strip
from lib_fluxkontext.telemetry.records import GenerationReport, PassReport, StepRecord


def report_html(report: GenerationReport | None, chart_id: str, *, comparison: str = "", on_panel: bool = True) -> str:
    """Render a report: its numbers at a glance, what the user should know, and below them all that was measured.

    Args:
        report: of a finished generation; None renders a placeholder.
        chart_id: unique in the page; the charts' patterns are named after it.
        comparison: HTML that compares the result with a reference.
        on_panel: whether it stands on the panel, where what was measured is folded at first and a suggestion has a
            button.
    """
    if report is None or not report.passes:
        placeholder = translate("Steps, seconds and memory of the next generation will stand here.")
        return f'{_style()}<p class="fk-empty">{escape(placeholder)}</p>'
    measured = fold("steps", translate("Steps and memory"), _measured(report, chart_id), folded=on_panel)
    parts = [finished_strip(report), _notes(report), advice_html(report, button=on_panel), comparison, measured]
    return f'{_style()}<div class="fk-report">{"".join(parts)}</div>'


def live_html(report: GenerationReport, steps: int, chart_id: str) -> str:
    """Render a generation that is under way: its numbers, and the chart as it grows.

    Args:
        report: of the pass that runs.
        steps: how many it will have.
        chart_id: unique in the page.
    """
    current = report.passes[-1]
    chart = (_chart(current, chart_id) if current.calls else "") + _legend(report)
    measured = fold("steps", translate("Steps and memory"), chart, folded=True)
    return f'{_style()}<div class="fk-report fk-live">{live_strip(report, steps)}{_notes(report)}{measured}</div>'


def fold(key: str, summary: str, content: str, folded: bool) -> str:
    """Render a part that can be folded; the page's script keeps it as the user left it, by its key."""
    state = "" if folded else " open"
    return f'<details data-fk-fold="{key}"{state}><summary>{escape(summary)}</summary>{content}</details>'


def _chart(sampling: PassReport, chart_id: str) -> str:
    threshold = sampling.first_block.threshold if sampling.first_block is not None else None
    return step_chart(sampling.steps, chart_id, threshold)


def _measured(report: GenerationReport, chart_id: str) -> str:
    """Charts, legend, sums and table."""
    parts = []
    for index, sampling in enumerate(report.passes):
        title = f"<h4>{escape(text.label(sampling.label))}</h4>" if len(report.passes) > 1 else ""
        parts += [title, _chart(sampling, f"{chart_id}-{index}"), _reference_facts(sampling)]
        if sampling.working_memory is not None and sampling.working_memory.free is not None:
            parts.append(f'<p class="fk-facts">{escape(text.working_memory(sampling.working_memory))}</p>')
    return "".join([*parts, _legend(report), _totals(report), _step_table(report)])


@cache
def _style() -> str:
    return f"<style>{Path(__file__).with_name('report.css').read_text(encoding='utf-8')}</style>"


def _totals(report: GenerationReport) -> str:
    """Name, value and explanation of the numbers that the strip leaves out, as a definition list."""
    cells = [("Computed step", text.seconds(report.computed_seconds), "Median")]
    if report.kept_seconds is not None:
        hint = "Median of the steps computed without their tokens"
        cells.append(("References kept", text.seconds(report.kept_seconds), hint))
    cells.append(("Reused step", text.seconds(report.reused_seconds), "Median"))
    memory = report.memory
    if memory is not None and memory.device is not None:
        in_use = translate("{used} of {total}", used=text.gigabytes(memory.in_use), total=text.gigabytes(memory.total))
        cells += [
            ("VRAM peak", text.gigabytes(memory.allocated), "Tensors, by torch"),
            ("Reserved", text.gigabytes(memory.reserved), "Held by torch's allocator"),
            ("Card in use", in_use, "All programs, by the driver (NVML), sampled at each step"),
        ]
    items = "".join(
        f'<div title="{escape(translate(hint))}"><dt>{escape(translate(name))}</dt><dd>{escape(value)}</dd></div>'
        for name, value, hint in cells
    )
    return f'<dl class="fk-sums">{items}</dl>'


def _reference_facts(sampling: PassReport) -> str:
    if not sampling.reference_tokens:
        return f'<p class="fk-facts">{escape(translate("No references."))}</p>'
    origins = []
    if sampling.host_references:
        origins.append(translate("{count} by Forge itself", count=sampling.host_references))
    if sampling.encoded:
        time = text.seconds(sampling.encode_seconds)
        origins.append(translate("{count} encoded in {time}", count=sampling.encoded, time=time))
    if sampling.cached:
        origins.append(translate("{count} kept from before", count=sampling.cached))
    facts = translate(
        "Picture {picture} tokens, references {references}; {how}.",
        picture=f"{sampling.image_tokens:,}",
        references=" + ".join(f"{count:,}" for count in sampling.reference_tokens),
        how=", ".join(origins),
    )
    if sampling.key_values is not None and sampling.key_values.refreshes:
        streamed = sampling.key_values.place == "host"
        facts += " " + translate(
            "Their keys and values: {size} {where}, refreshed {count} times.",
            size=text.gigabytes(sampling.key_values.peak_bytes),
            where=translate("in host memory, streamed") if streamed else translate("beside the model"),
            count=sampling.key_values.refreshes,
        )
    return f'<p class="fk-facts">{escape(facts)}</p>'


_LEGEND = {
    "computed": "C computed",
    "kept": "K computed, references kept from an earlier step",
    "reused": "R reused",
    "mixed": "M mixed: the images of the batch went different ways",
}


def _legend(report: GenerationReport) -> str:
    """Explain the kinds of step that occur."""
    kinds = {step.kind for step in report.steps}
    items = "".join(
        f'<span class="fk-key fk-key-{kind}">{escape(translate(explanation))}</span>'
        for kind, explanation in _LEGEND.items()
        if kind in kinds
    )
    return f'<p class="fk-legend">{items}</p>'


def _notes(report: GenerationReport) -> str:
    return "".join(f'<p class="fk-note">{escape(translate(note))}</p>' for note in text.notes(report))


def _step_table(report: GenerationReport) -> str:
    names = ("Pass", "Step", "Kind", "Time", "Sigma", "Change", "Calls")
    head = "".join(f"<th scope='col'>{escape(translate(name))}</th>" for name in names)
    rows = "".join(_step_row(sampling, step) for sampling in report.passes for step in sampling.steps)
    return (
        f"<details data-fk-fold='table'><summary>{escape(translate('All steps as a table'))}</summary>"
        f'<div class="fk-scroll" role="region" aria-label="{escape(translate("All steps"))}" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _step_row(sampling: PassReport, step: StepRecord) -> str:
    cells = (
        translate(text.KINDS[step.kind]),
        text.seconds(step.seconds),
        f"{step.sigma:.4f}",
        "–" if step.distance is None else f"{step.distance:.4f}",
        str(step.calls),
    )
    return (
        f"<tr class='fk-row-{step.kind}'><td>{escape(text.label(sampling.label))}</td>"
        f"<th scope='row'>{step.index + 1}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
    )
