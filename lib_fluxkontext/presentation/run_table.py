"""Runs as tables: HTML for the panel, side by side to compare, CSV and Markdown.

The HTML has no style of its own, unlike the report's: it appears on Forge's page alone, and its rules, in
``style.css``, build on that page's.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from html import escape

from lib_fluxkontext.history.record import COLUMNS, Run
from lib_fluxkontext.i18n import translate
from lib_fluxkontext.presentation import text
from lib_fluxkontext.presentation.data_uri import data_uri

Runs = Sequence[tuple[int, Run]]
"""(id, run) pairs."""

CELLS: dict[str, Callable[[Run], str]] = {
    "Made": lambda run: run.made,
    "Checkpoint": lambda run: run.checkpoint,
    "Low bits": lambda run: run.low_bits,
    "LoRAs": lambda run: run.loras,
    "Sampler": lambda run: f"{run.sampler}, {run.scheduler}",
    "Steps": lambda run: str(run.steps),
    "Size": lambda run: run.size,
    "Reference tokens": lambda run: str(run.reference_tokens),
    "Cache": lambda run: run.cache,
    "Refresh": lambda run: str(run.reference_refresh) if run.reference_refresh else "off",
    "Reused": lambda run: f"{run.reused_share:.0%}",
    "Step": lambda run: text.seconds(run.computed_seconds),
    "Kept step": lambda run: text.seconds(run.kept_seconds),
    "Reused step": lambda run: text.seconds(run.reused_seconds),
    "Sampling": lambda run: text.seconds(run.sampling_seconds),
    "Encoding": lambda run: text.seconds(run.encode_seconds),
    "Memory": lambda run: text.gigabytes(run.memory_bytes) + ("" if run.on_card else " (no CUDA)"),
    "Estimated/reserved/taken": lambda run: _estimate(run),
    "Seed": lambda run: str(run.seed),
    "Prompt": lambda run: " ".join(run.prompt.split()),
}
"""Heading → cell, in the order of the table."""

TRANSLATED_COLUMNS = ("Cache", "Refresh")
"""Columns whose cells are lists of translatable parts: ``"0.14, forecast"``."""

SORTABLE = {
    "Newest": ("id", True),
    "Fastest sampling": ("sampling_seconds", False),
    "Fastest step": ("computed_seconds", False),
    "Least memory": ("memory_bytes", False),
    "Checkpoint": ("checkpoint", False),
}
"""Order → column of the run log, and whether descending."""


def as_csv(runs: Runs) -> str:
    """Render CSV for spreadsheets: plain numbers, in seconds and bytes."""
    table = io.StringIO()
    writer = csv.writer(table)
    omitted = {"thumbnail", "settings"} | (set() if _has_prompt(runs) else {"prompt"})
    names = [name for name in COLUMNS if name not in omitted]
    writer.writerow(["run", *names])
    for number, run in runs:
        writer.writerow([number, *(getattr(run, name) for name in names)])
    return table.getvalue()


def as_markdown(runs: Runs) -> str:
    """Render the panel's columns as a Markdown table; columns without any value are left out."""
    names = [name for name, cell in CELLS.items() if any(cell(run) not in ("", "–", "off") for _, run in runs)]
    lines = ["| " + " | ".join(["Run", *names]) + " |", "|" + "---|" * (len(names) + 1)]
    for number, run in runs:
        cells = [str(number), *(CELLS[name](run).replace("|", "\\|") for name in names)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def as_html(runs: Runs, total: int) -> str:
    """Render the panel's table.

    Args:
        runs: the rows.
        total: number of runs in the log.
    """
    if not runs:
        return _muted_line(translate("No runs yet: every finished generation with Flux Kontext adds one."))
    columns = _columns(runs)
    head = "".join(f'<th scope="col">{escape(translate(name))}</th>' for name in ("Run", "Picture", *columns))
    rows = "".join(
        f'<tr><th scope="row">{number}</th><td>{_thumbnail(number, run)}</td>'
        + "".join(_cell(name, cell(run)) for name, cell in columns.items())
        + "</tr>"
        for number, run in runs
    )
    table = _scrollable(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")
    if total > len(runs):
        table += _muted_line(translate("{shown} of {total} runs", shown=len(runs), total=f"{total:,}"))
    return table


def side_by_side(runs: Runs) -> str:
    """Render two or more runs as columns: differences are marked, times have their ratio to the first run's."""
    if len(runs) < 2:
        return _muted_line(translate("Choose two or more runs."))
    head = "".join(
        f'<th scope="col">{escape(translate("Run {number}", number=number))}<br>{_thumbnail(number, run)}</th>'
        for number, run in runs
    )
    rows = []
    for name, cell in _columns(runs).items():
        contents = [cell(run) for _, run in runs]
        css, sign = (' class="fk-differs"', " ≠") if len(set(contents)) > 1 else ("", "")
        heading = f'<th scope="row">{escape(translate(name))}{sign}</th>'
        rows.append(f"<tr{css}>{heading}{''.join(_cell(name, content) for content in contents)}</tr>")
    seconds = [run.sampling_seconds for _, run in runs]
    ratios = "".join(f"<td>{_ratio(seconds[0], run_seconds)}</td>" for run_seconds in seconds)
    rows.append(f'<tr><th scope="row">{escape(translate("Faster than the first"))}</th>{ratios}</tr>')
    bars = "".join(f"<td>{_bar(run_seconds, max(seconds))}</td>" for run_seconds in seconds)
    # Hidden from screen readers: a row above has the same times as text.
    rows.append(f'<tr aria-hidden="true"><th>{escape(translate("Sampling"))}</th>{bars}</tr>')
    return _scrollable(f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>")


def _muted_line(line: str) -> str:
    return f'<p class="fk-facts fk-muted">{escape(line)}</p>'


def _scrollable(table: str) -> str:
    return f'<div class="fk-runs" role="region" aria-label="{escape(translate("Runs"))}" tabindex="0">{table}</div>'


def _estimate(run: Run) -> str:
    """What was estimated beside the weights, what was reserved of it, and what it took: ``"2.90/1.40/2.71 GB"``."""
    if run.estimated_bytes is None:
        return "–"
    sizes = (run.estimated_bytes, run.reserved_bytes, run.used_bytes)
    return "/".join("–" if size is None else f"{size / 2**30:.2f}" for size in sizes) + " GB"


def _has_prompt(runs: Runs) -> bool:
    return any(run.prompt for _, run in runs)


def _columns(runs: Runs) -> dict[str, Callable[[Run], str]]:
    """Select the columns: all, but prompts only where one is stored, and estimates only where a card had one."""
    omitted = set() if _has_prompt(runs) else {"Prompt"}
    if all(run.estimated_bytes is None for _, run in runs):
        omitted.add("Estimated/reserved/taken")
    return {name: cell for name, cell in CELLS.items() if name not in omitted}


def _cell(name: str, content: str) -> str:
    if name in TRANSLATED_COLUMNS:
        content = ", ".join(map(translate, content.split(", ")))
    return (
        f'<td><div class="fk-prompt">{escape(content)}</div></td>'
        if name == "Prompt"
        else f"<td>{escape(content)}</td>"
    )


def _ratio(first_seconds: float, seconds: float) -> str:
    return f"{first_seconds / seconds:.2f}×" if seconds > 0 else "–"


def _bar(seconds: float, longest: float) -> str:
    width = 100 * seconds / longest if longest > 0 else 0
    return f'<div class="fk-run-bar" style="width:{width:.1f}%" title="{text.seconds(seconds)}"></div>'


def _thumbnail(number: int, run: Run) -> str:
    if not run.thumbnail:
        return ""
    alt = escape(translate("Picture of run {number}", number=number))
    return f'<img alt="{alt}" loading="lazy" src="{data_uri(run.thumbnail, "jpeg")}">'
