"""Events of the report: shown while a generation runs and when it ends, and the suggestion that it makes."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr

from lib_fluxkontext.hosts.forge.lifecycle import live_reports
from lib_fluxkontext.hosts.forge.ui.element_ids import ElementIds
from lib_fluxkontext.hosts.forge.ui.markup import line
from lib_fluxkontext.hosts.forge.ui.panel import Panel
from lib_fluxkontext.hosts.forge.ui.report_content import last_report_html, last_report_spoken
from lib_fluxkontext.presentation import text
from lib_fluxkontext.presentation.advice import suggested_threshold
from lib_fluxkontext.presentation.html import live_html


def connect_report(panel: Panel) -> None:
    """Connect the hidden buttons that the script presses."""
    outputs = panel.report.outputs
    panel.hidden.refresh.click(partial(show_last_report, panel.ids), outputs=outputs, show_progress="hidden")
    panel.hidden.live.click(partial(show_live_report, panel.ids), outputs=outputs, show_progress="hidden")
    speed = panel.speed
    panel.hidden.use_advice.click(
        partial(use_advice, panel.ids), outputs=[speed.cache, speed.cache_threshold], show_progress="hidden"
    )


def show_last_report(ids: ElementIds) -> list[str]:
    """Return the last report, as HTML to see and to be spoken."""
    return [last_report_html(ids), last_report_spoken(ids)]


def show_live_report(ids: ElementIds) -> list[Any]:
    """Return the running generation's report; no change between generations."""
    live = live_reports.live_report(ids.tab)
    if live is None:
        return [gr.update(), gr.update()]
    report, steps = live
    return [live_html(report, steps, ids.accordion), line(text.progress(report, steps))]


def use_advice(ids: ElementIds) -> list[Any]:
    """Return the cache turned on and the threshold that the last report suggests; no change where there is none."""
    report = live_reports.last_report(ids.tab)
    threshold = suggested_threshold(report) if report is not None else None
    return [True, threshold] if threshold is not None else [gr.update(), gr.update()]
