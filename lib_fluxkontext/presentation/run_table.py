"""Runs as a table: for the panel, as CSV, as Markdown, and side by side."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable, Sequence
from html import escape

from lib_fluxkontext.history.record import Run
from lib_fluxkontext.i18n import translate
from lib_fluxkontext.presentation import text

Runs = Sequence[tuple[int, Run]]

SHOWN: dict[str, Callable[[Run], str]] = {
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
    "Seed": lambda run: str(run.seed),
    "Prompt": lambda run: " ".join(run.prompt.split()),
}
"""Heading → cell."""

TRANSLATED_COLUMNS = ("Cache", "Refresh")
"""Columns whose cells are words, separated by commas: ``"0.14, forecast"``."""

SORTABLE = {
    "Newest": ("id", True),
    "Fastest sampling": ("sampling_seconds", False),
    "Fastest step": ("computed_seconds", False),
    "Least memory": ("memory_bytes", False),
    "Checkpoint": ("checkpoint", False),
}
"""What the panel offers → column and whether descending."""


def as_csv(runs: Runs) -> str:
    """CSV with plain numbers in SI units, for a spreadsheet."""
    out = io.StringIO()
    writer = csv.writer(out)
    left_out = {"thumbnail", "settings"} | (set() if _with_prompt(runs) else {"prompt"})
    plain = [name for name in Run.__annotations__ if name not in left_out]
    writer.writerow(["run", *plain])
    for number, run in runs:
        writer.writerow([number, *(getattr(run, name) for name in plain)])
    return out.getvalue()


def as_markdown(runs: Runs) -> str:
    """A Markdown table of what the panel shows; columns that are the same dash everywhere are left out."""
    names = [name for name, cell in SHOWN.items() if any(cell(run) not in ("", "–", "off") for _, run in runs)]
    lines = ["| " + " | ".join(["Run", *names]) + " |", "|" + "---|" * (len(names) + 1)]
    for number, run in runs:
        cells = [str(number), *(SHOWN[name](run).replace("|", "\\|") for name in names)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def as_html(runs: Runs, total: int) -> str:
    """The panel's table.

    Args:
        runs: those to show.
        total: how many there are.
    """
    if not runs:
        return _line(translate("No runs yet: every finished generation with Flux Kontext adds one."))
    shown = _shown(runs)
    head = "".join(f'<th scope="col">{escape(translate(name))}</th>' for name in ("Run", "Picture", *shown))
    rows = "".join(
        f'<tr><th scope="row">{number}</th><td>{_thumbnail(number, run)}</td>'
        + "".join(_cell(name, cell(run)) for name, cell in shown.items())
        + "</tr>"
        for number, run in runs
    )
    words = translate("{shown} of {total} runs", shown=len(runs), total=f"{total:,}")
    more = _line(words) if total > len(runs) else ""
    return _scrolling(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>") + more


def side_by_side(runs: Runs) -> str:
    """Two or more runs as columns; what differs stands out, times with their ratio to the first."""
    if len(runs) < 2:
        return _line(translate("Choose two or more runs."))
    first = runs[0][1]
    head = "".join(
        f'<th scope="col">{escape(translate("Run {number}", number=number))}<br>{_thumbnail(number, run)}</th>'
        for number, run in runs
    )
    rows = []
    for name, cell in _shown(runs).items():
        cells = [cell(run) for _, run in runs]
        differs = len(set(cells)) > 1
        css, sign = (' class="fk-differs"', " ≠") if differs else ("", "")
        heading = f'<th scope="row">{escape(translate(name))}{sign}</th>'
        rows.append(f"<tr{css}>{heading}{''.join(_cell(name, one) for one in cells)}</tr>")
    ratios = "".join(f"<td>{_ratio(first.sampling_seconds, run.sampling_seconds)}</td>" for _, run in runs)
    rows.append(f'<tr><th scope="row">{escape(translate("Faster than the first"))}</th>{ratios}</tr>')
    bars = "".join(f"<td>{_bar(run, max(one.sampling_seconds for _, one in runs))}</td>" for _, run in runs)
    rows.append(
        f'<tr aria-hidden="true"><th>{escape(translate("Sampling"))}</th>{bars}</tr>'
    )  # a row above says it in words
    return _scrolling(f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>")


def _line(words: str) -> str:
    return f'<p class="fk-facts fk-muted">{escape(words)}</p>'


def _scrolling(table: str) -> str:
    return f'<div class="fk-runs" role="region" aria-label="{escape(translate("Runs"))}" tabindex="0">{table}</div>'


def _with_prompt(runs: Runs) -> bool:
    return any(run.prompt for _, run in runs)


def _shown(runs: Runs) -> dict[str, Callable[[Run], str]]:
    """``SHOWN``, without a column of prompts where none is stored."""
    return {name: cell for name, cell in SHOWN.items() if name != "Prompt" or _with_prompt(runs)}


def _cell(name: str, content: str) -> str:
    written = escape(", ".join(map(translate, content.split(", "))) if name in TRANSLATED_COLUMNS else content)
    return f'<td><div class="fk-prompt">{written}</div></td>' if name == "Prompt" else f"<td>{written}</td>"


def _ratio(first: float, other: float) -> str:
    return f"{first / other:.2f}×" if other > 0 else "–"


def _bar(run: Run, longest: float) -> str:
    width = 100 * run.sampling_seconds / longest if longest > 0 else 0
    return f'<div class="fk-run-bar" style="width:{width:.1f}%" title="{text.seconds(run.sampling_seconds)}"></div>'


def _thumbnail(number: int, run: Run) -> str:
    if not run.thumbnail:
        return ""
    data = base64.b64encode(run.thumbnail).decode("ascii")
    alt = escape(translate("Picture of run {number}", number=number))
    return f'<img alt="{alt}" loading="lazy" src="data:image/jpeg;base64,{data}">'
