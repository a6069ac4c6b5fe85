"""The run log on the panel: the newest runs, sorted as asked, side by side, and as files. Closed, it costs nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from lib_fluxkontext.history.store import LogError
from lib_fluxkontext.hosts.forge.integration import options
from lib_fluxkontext.hosts.forge.integration.run_log import run_log
from lib_fluxkontext.hosts.forge.ui.element_ids import ElementIds
from lib_fluxkontext.hosts.forge.ui.markup import line
from lib_fluxkontext.i18n import translate
from lib_fluxkontext.presentation.run_table import SORTABLE, as_csv, as_html, as_markdown, side_by_side

OFF = "The run log is off (Settings, Flux Kontext): no runs are added."
SHOWN = 50
"""Rows on the page, however many the log has."""


def build_runs(ids: ElementIds) -> None:
    """The section with its own events."""
    with gr.Accordion("Run log", open=False, elem_id=ids.of("runs")):
        with gr.Row(elem_classes="fk-toolbar"):
            sort = gr.Dropdown(
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
            as_table = gr.Button("CSV", elem_id=ids.of("runs_csv"), size="sm", min_width=60)
            as_text = gr.Button("Markdown", elem_id=ids.of("runs_markdown"), size="sm", min_width=60)
            clear = gr.Button("Clear log", elem_id=ids.of("runs_clear"), size="sm", min_width=80)
        file = gr.File(visible=False, label="Download", elem_id=ids.of("runs_file"))
        table = gr.HTML("", elem_id=ids.of("runs_table"))
    shown = [table, chosen]
    for trigger in (show.click, sort.change):
        trigger(_or_message(_show), inputs=[sort], outputs=shown, show_progress="hidden")
    compare.click(_or_message(_compare), inputs=[chosen], outputs=shown, show_progress="hidden")
    as_table.click(lambda: _export("csv", as_csv, "utf-8-sig"), outputs=[file], show_progress="hidden")
    as_text.click(lambda: _export("md", as_markdown), outputs=[file], show_progress="hidden")
    clear.click(
        _or_message(_clear),
        inputs=[sort],
        outputs=shown,
        show_progress="hidden",
        js="(order) => { if (!confirm('Forget all runs?')) throw new Error('kept'); return [order]; }",
    )


def _show(sort: str) -> list[Any]:
    log = run_log()
    runs = log.latest(SHOWN, *SORTABLE[sort])
    labels = [
        (f"{number} · {run.checkpoint} · {run.cache} · {run.sampling_seconds:.1f} s", number) for number, run in runs
    ]
    table = as_html(runs, log.count())
    if not options.current().log:
        table = line(translate(OFF), "fk-warning") + (table if runs else "")
    return [table, gr.update(choices=labels)]


def _compare(chosen: list[int] | None) -> list[Any]:
    return [side_by_side(run_log().get([int(one) for one in chosen or []])), gr.update()]


def _clear(sort: str) -> list[Any]:
    run_log().clear()
    return [_show(sort)[0], gr.update(choices=[], value=[])]


def _export(suffix: str, write: Callable[[Any], str], encoding: str = "utf-8") -> Any:
    try:
        log = run_log()
        text = write(log.latest(log.count()))
    except LogError as error:
        raise gr.Error(str(error)) from None
    path = Path(tempfile.mkdtemp(prefix="flux-kontext-")) / f"flux-kontext-runs.{suffix}"
    path.write_bytes(text.encode(encoding))  # not as text: Windows would double the line ends of CSV
    return gr.update(value=str(path), visible=True)


def _or_message(action: Callable[[Any], list[Any]]) -> Callable[[Any], list[Any]]:
    """The action, or its one-line failure in place of the table."""

    def guarded(value: Any) -> list[Any]:
        try:
            return action(value)
        except LogError as error:
            return [line(str(error), "fk-error"), gr.update()]

    return guarded
