"""The panel in txt2img and img2img."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import gradio as gr
from gradio.components import Component
from modules.ui_components import InputAccordion

from lib_fluxkontext.hosts.forge.integration.options import PANEL_FIELDS
from lib_fluxkontext.hosts.forge.lifecycle import live_reports
from lib_fluxkontext.hosts.forge.ui.cache_controls import CacheControls, build_cache
from lib_fluxkontext.hosts.forge.ui.element_ids import TITLE, ElementIds
from lib_fluxkontext.hosts.forge.ui.reference_controls import (
    ReferenceSlot,
    SizingControls,
    Toolbar,
    build_sizing,
    build_slot,
    build_toolbar,
)
from lib_fluxkontext.hosts.forge.ui.run_log_controls import build_run_log
from lib_fluxkontext.presentation.html import report_html
from lib_fluxkontext.settings import FIELD_NAMES, default_of


@dataclass(frozen=True)
class ReportArea:
    """The report.

    Attributes:
        html: what is seen.
        spoken: what a screen reader says.
    """

    html: gr.HTML
    spoken: gr.HTML

    @property
    def outputs(self) -> list[Component]:
        """What an event that shows a report writes to."""
        return [self.html, self.spoken]


@dataclass(frozen=True)
class HiddenControls:
    """Controls without a place on the page.

    Attributes:
        expected: the references of pasted parameters, as JSON.
        refresh: pressed by our script when a generation ends; shows its report.
        live: pressed by our script while one is running; shows its progress.
    """

    expected: gr.Textbox
    refresh: gr.Button
    live: gr.Button


@dataclass(frozen=True)
class Panel:
    """One tab's panel, in the order in which it is built.

    Attributes:
        ids: of the tab.
        enabled: the accordion, which is a checkbox too.
        missing: names references of pasted parameters that are not in their slots.
        slots: one for each reference.
        toolbar: buttons below the slots.
        sizing: sizing controls.
        cache: the caches' controls.
        checkpoint: facts on the chosen checkpoint.
        report: of the last generation, or of the running one.
        hidden: controls that events need.
    """

    ids: ElementIds
    enabled: InputAccordion
    missing: gr.HTML
    slots: tuple[ReferenceSlot, ...]
    toolbar: Toolbar
    sizing: SizingControls
    cache: CacheControls
    checkpoint: gr.HTML
    report: ReportArea
    hidden: HiddenControls

    @property
    def controls(self) -> dict[str, Component]:
        """Controls by setting name."""
        controls: dict[str, Component] = {"enabled": self.enabled}
        sections: tuple[ReferenceSlot | SizingControls | CacheControls, ...] = (*self.slots, self.sizing, self.cache)
        for section in sections:
            controls |= section.controls
        return controls

    def arguments(self) -> list[Component]:
        """Return the controls in the order of the API's positional arguments."""
        controls = self.controls
        return [controls[name] for name in FIELD_NAMES]


def build_panel(is_img2img: bool, defaults: Mapping[str, object]) -> Panel:
    """Create the components. Called several times; it has no other effect.

    Args:
        is_img2img: which tab it is for.
        defaults: initial values by setting name; other settings start with the API's defaults.
    """
    initial = {name: default_of(name) for name in FIELD_NAMES} | dict(defaults)
    ids = ElementIds("img2img" if is_img2img else "txt2img")
    with InputAccordion(default_of("enabled"), label=TITLE, elem_id=ids.accordion) as enabled:
        missing = gr.HTML("", elem_id=ids.of("missing"))
        with gr.Row(elem_classes="fk-slots"):
            slots = tuple(build_slot(ids, number) for number in (1, 2))
        with gr.Row(elem_classes="fk-slots", elem_id=ids.of("more_slots"), visible=False):
            slots += tuple(build_slot(ids, number) for number in (3, 4))
        toolbar = build_toolbar(ids)
        sizing = build_sizing(ids, initial, is_img2img)
        cache = build_cache(ids, initial)
        checkpoint = gr.HTML("", elem_id=ids.of("checkpoint"))
        report = _build_report(ids)
        build_run_log(ids)
        hidden = _build_hidden(ids)
    panel = Panel(
        ids=ids,
        enabled=enabled,
        missing=missing,
        slots=slots,
        toolbar=toolbar,
        sizing=sizing,
        cache=cache,
        checkpoint=checkpoint,
        report=report,
        hidden=hidden,
    )
    controls = panel.controls
    for name in PANEL_FIELDS:
        # Forge writes every control's first value into ui-config.json and starts from that copy ever after, so that
        # Settings → Flux Kontext would have no effect. These controls have their defaults there alone.
        controls[name].do_not_save_to_config = True
    return panel


def _build_report(ids: ElementIds) -> ReportArea:
    def last_report() -> str:
        return report_html(live_reports.last_report(ids.tab), ids.accordion)

    return ReportArea(
        # gradio calls a function whenever the page is opened; a value would stay the one of Forge's start.
        html=gr.HTML(last_report, elem_id=ids.of("report")),
        spoken=gr.HTML("", elem_id=ids.of("spoken"), elem_classes="fk-spoken"),
    )


def _build_hidden(ids: ElementIds) -> HiddenControls:
    # Hidden by style: with visible=False they would not be in the page, and their events could not be triggered.
    return HiddenControls(
        expected=gr.Textbox("", elem_id=ids.of("expected"), elem_classes="fk-hidden", show_label=False),
        refresh=gr.Button("Refresh report", elem_id=ids.of("refresh"), elem_classes="fk-hidden"),
        live=gr.Button("Live report", elem_id=ids.of("live"), elem_classes="fk-hidden"),
    )
