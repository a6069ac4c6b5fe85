"""The run log on the panel: a table of the latest runs, runs side by side, and files to download.

Nothing is read before the user asks for it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from lib_fluxkontext.history.store import LogError
from lib_fluxkontext.hosts.forge.integration import options
from lib_fluxkontext.hosts.forge.integration.run_log import run_log
from lib_fluxkontext.hosts.forge.ui.element_ids import ElementIds
from lib_fluxkontext.hosts.forge.ui.markup import line
from lib_fluxkontext.i18n import translate
from lib_fluxkontext.presentation.run_table import SORTABLE, Runs, as_csv, as_html, as_markdown, side_by_side

LOG_OFF = "The run log is off (Settings, Flux Kontext): no runs are added."
MAX_ROWS = 50
"""Rows on the page, however many the log has."""

_CONFIRM_CLEAR = "(order) => { if (!confirm('Forget all runs?')) throw new Error('kept'); return [order]; }"


@dataclass(frozen=True)
class RunLogControls:
    """The section's components.

    Attributes:
        order: how the table is sorted.
        chosen: runs to compare.
        show: button for the table.
        compare: button for the chosen runs side by side.
        csv: button for a download.
        markdown: button for a download.
        clear: button that deletes all runs.
        file: the download.
        table: what was asked for.
    """

    order: gr.Dropdown
    chosen: gr.Dropdown
    show: gr.Button
    compare: gr.Button
    csv: gr.Button
    markdown: gr.Button
    clear: gr.Button
    file: gr.File
    table: gr.HTML


def build_run_log(ids: ElementIds) -> None:
    """Create the section and connect its events, which need nothing else on the page."""
    with gr.Accordion("Run log", open=False, elem_id=ids.of("runs")):
        controls = _build_controls(ids)
    _connect(controls)


def _build_controls(ids: ElementIds) -> RunLogControls:
    with gr.Row(elem_classes="fk-toolbar"):
        order = gr.Dropdown(
            [(translate(name), name) for name in SORTABLE],
            value="Newest",
            label="Order",
            elem_id=ids.of("runs_sort"),
            min_width=120,
        )
        chosen = gr.Dropdown(
            [], value=[], multiselect=True, label="Runs to compare", elem_id=ids.of("runs_chosen"), scale=3
        )
    with gr.Row(elem_classes="fk-toolbar"):
        show = gr.Button("Show runs", elem_id=ids.of("runs_show"), size="sm", min_width=80)
        compare = gr.Button("Compare", elem_id=ids.of("runs_compare"), size="sm", min_width=80)
        csv = gr.Button("CSV", elem_id=ids.of("runs_csv"), size="sm", min_width=60)
        markdown = gr.Button("Markdown", elem_id=ids.of("runs_markdown"), size="sm", min_width=60)
        clear = gr.Button("Clear log", elem_id=ids.of("runs_clear"), size="sm", min_width=80)
    file = gr.File(visible=False, label="Download", elem_id=ids.of("runs_file"))
    table = gr.HTML("", elem_id=ids.of("runs_table"))
    return RunLogControls(order, chosen, show, compare, csv, markdown, clear, file, table)


def _connect(controls: RunLogControls) -> None:
    shown: list[Component] = [controls.table, controls.chosen]
    for trigger in (controls.show.click, controls.order.change):
        trigger(_or_message(show_runs), inputs=[controls.order], outputs=shown, show_progress="hidden")
    controls.compare.click(_or_message(compare_runs), inputs=[controls.chosen], outputs=shown, show_progress="hidden")
    controls.csv.click(export_csv, outputs=[controls.file], show_progress="hidden")
    controls.markdown.click(export_markdown, outputs=[controls.file], show_progress="hidden")
    controls.clear.click(
        _or_message(clear_runs), inputs=[controls.order], outputs=shown, show_progress="hidden", js=_CONFIRM_CLEAR
    )


def show_runs(order: str) -> list[Any]:
    """Return the table of the first runs in an order, and the choices for a comparison."""
    log = run_log()
    column, descending = SORTABLE[order]
    runs = log.latest(MAX_ROWS, column, descending)
    labels = [
        (f"{number} · {run.checkpoint} · {run.cache} · {run.sampling_seconds:.1f} s", number) for number, run in runs
    ]
    table = as_html(runs, log.count())
    if not options.current().log:
        table = line(translate(LOG_OFF), "fk-warning") + (table if runs else "")
    return [table, gr.update(choices=labels)]


def compare_runs(chosen: list[int] | None) -> list[Any]:
    """Return the chosen runs side by side, and no change of the choices."""
    return [side_by_side(run_log().get([int(number) for number in chosen or []])), gr.update()]


def clear_runs(order: str) -> list[Any]:
    """Delete all runs; return the empty table and no choices."""
    run_log().clear()
    return [show_runs(order)[0], gr.update(choices=[], value=[])]


def export_csv() -> dict[str, Any]:
    """Write all runs as CSV; return the update that shows the download."""
    return _export("csv", as_csv, "utf-8-sig")  # Excel reads UTF-8 only after a byte order mark


def export_markdown() -> dict[str, Any]:
    """Write all runs as a Markdown table; return the update that shows the download."""
    return _export("md", as_markdown)


def _export(suffix: str, render: Callable[[Runs], str], encoding: str = "utf-8") -> dict[str, Any]:
    try:
        log = run_log()
        content = render(log.latest(log.count()))
    except LogError as error:
        raise gr.Error(str(error)) from None
    path = Path(tempfile.mkdtemp(prefix="flux-kontext-")) / f"flux-kontext-runs.{suffix}"
    path.write_bytes(content.encode(encoding))  # not as text: Windows would double the line ends of CSV
    return gr.update(value=str(path), visible=True)


def _or_message(action: Callable[[Any], list[Any]]) -> Callable[[Any], list[Any]]:
    """Wrap an action so that an error of the log is shown in place of the table."""

    def guarded(value: Any) -> list[Any]:
        try:
            return action(value)
        except LogError as error:
            return [line(str(error), "fk-error"), gr.update()]

    return guarded
