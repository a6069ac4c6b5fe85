"""The panel in txt2img and img2img."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import gradio as gr
from gradio.components import Component
from gradio.layouts import Accordion
from modules.ui_components import InputAccordion

from lib_fluxkontext.hosts.forge.integration.options import PANEL_FIELDS
from lib_fluxkontext.hosts.forge.ui.advanced_label import advanced_label
from lib_fluxkontext.hosts.forge.ui.cache_controls import CacheControls, build_cache
from lib_fluxkontext.hosts.forge.ui.element_ids import TITLE, ElementIds
from lib_fluxkontext.hosts.forge.ui.prompt_help import PromptHelp, build_prompt_help
from lib_fluxkontext.hosts.forge.ui.reference_controls import Slots, Toolbar, build_slots, build_toolbar
from lib_fluxkontext.hosts.forge.ui.report_content import last_report_html
from lib_fluxkontext.hosts.forge.ui.run_log_controls import build_run_log
from lib_fluxkontext.hosts.forge.ui.sizing_controls import SizingControls, build_sizing
from lib_fluxkontext.hosts.forge.ui.speed_controls import SpeedControls, build_speed
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
        align: pressed by our script for the report's *Align*; adds the aligned result to the gallery.
        use_advice: pressed by our script for the report's suggestion; sets the threshold.
    """

    expected: gr.Textbox
    refresh: gr.Button
    live: gr.Button
    align: gr.Button
    use_advice: gr.Button


@dataclass(frozen=True)
class Actions:
    """The row of buttons for a first picture.

    Attributes:
        recommend: sets Forge's own controls as recommended for Kontext.
        undo: takes that back.
    """

    recommend: gr.Button
    undo: gr.Button


@dataclass(frozen=True)
class Advanced:
    """What is folded at first.

    Attributes:
        fold: the accordion; its label says what differs from the default.
        toolbar: what can be done with references.
        sizing: how references are used.
        cache: the caches' other controls.
        checkpoint: facts on the chosen checkpoint.
    """

    fold: Accordion
    toolbar: Toolbar
    sizing: SizingControls
    cache: CacheControls
    checkpoint: gr.HTML


@dataclass(frozen=True)
class Panel:
    """One tab's panel, in the order in which it is built.

    Attributes:
        ids: of the tab.
        enabled: the accordion, which is a checkbox too.
        missing: names references of pasted parameters that are not in their slots.
        slots: for the references.
        report: of the last generation, or of the running one.
        speed: presets, First Block Cache and its threshold.
        actions: buttons for a first picture.
        prompt_help: patterns of instructions, and the prompt's length.
        lora_hint: what suits a LoRA of the prompt that is distilled for few steps; empty without one.
        warning: what is wrong with the chosen checkpoint, or does not fit; empty where nothing is.
        advanced: all else.
        hidden: controls that events need.
    """

    ids: ElementIds
    enabled: InputAccordion
    missing: gr.HTML
    slots: Slots
    report: ReportArea
    speed: SpeedControls
    actions: Actions
    prompt_help: PromptHelp
    lora_hint: gr.HTML
    warning: gr.HTML
    advanced: Advanced
    hidden: HiddenControls

    @property
    def controls(self) -> dict[str, Component]:
        """Controls by setting name."""
        controls: dict[str, Component] = {"enabled": self.enabled}
        for slot in self.slots.all:
            controls |= slot.controls
        for options in self.advanced.toolbar.options:
            controls |= options.controls
        return controls | self.speed.controls | self.advanced.sizing.controls | self.advanced.cache.controls

    def arguments(self) -> list[Component]:
        """Return the controls in the order of the API's positional arguments."""
        controls = self.controls
        return [controls[name] for name in FIELD_NAMES]


def build_panel(is_img2img: bool, defaults: Mapping[str, object], report_elsewhere: bool = False) -> Panel:
    """Create the components. Called several times; it has no other effect.

    Args:
        is_img2img: which tab it is for.
        defaults: initial values by setting name; other settings start with the API's defaults.
        report_elsewhere: leave the report for the caller to render.
    """
    initial = {name: default_of(name) for name in FIELD_NAMES} | dict(defaults)
    ids = ElementIds("img2img" if is_img2img else "txt2img")
    with InputAccordion(default_of("enabled"), label=TITLE, elem_id=ids.accordion) as enabled:
        missing = gr.HTML("", elem_id=ids.of("missing"), elem_classes="fk-when-filled")
        slots = build_slots(ids)
        report = _build_report(ids, render=not report_elsewhere)
        speed = build_speed(ids, initial)
        with gr.Row(elem_classes="fk-toolbar fk-actions"):
            actions = _build_actions(ids)
            prompt_help = build_prompt_help(ids)
        lora_hint = gr.HTML("", elem_id=ids.of("lora_hint"), elem_classes="fk-when-filled")
        warning = gr.HTML("", elem_id=ids.of("warning"), elem_classes="fk-when-filled")
        advanced = _build_advanced(ids, initial, is_img2img)
        hidden = _build_hidden(ids)
    panel = Panel(
        ids=ids,
        enabled=enabled,
        missing=missing,
        slots=slots,
        report=report,
        speed=speed,
        actions=actions,
        prompt_help=prompt_help,
        lora_hint=lora_hint,
        warning=warning,
        advanced=advanced,
        hidden=hidden,
    )
    controls = panel.controls
    for name in PANEL_FIELDS:
        # Forge writes every control's first value into ui-config.json and starts from that copy ever after, so that
        # Settings → Flux Kontext would have no effect. These controls have their defaults there alone.
        controls[name].do_not_save_to_config = True
    return panel


def _build_actions(ids: ElementIds) -> Actions:
    return Actions(
        recommend=gr.Button(
            "Recommended settings",
            elem_id=ids.of("recommend"),
            size="sm",
            min_width=140,
            tooltip="The size nearest to the first reference, Euler, Simple, 20 steps, CFG 1, Distilled CFG 3.5",
        ),
        undo=gr.Button("Undo", elem_id=ids.of("undo"), size="sm", min_width=60, interactive=False),
    )


def _build_advanced(ids: ElementIds, initial: Mapping[str, object], is_img2img: bool) -> Advanced:
    with gr.Accordion(advanced_label(initial), open=False, elem_id=ids.of("advanced")) as fold:
        toolbar = build_toolbar(ids)
        sizing = build_sizing(ids, initial, is_img2img)
        cache = build_cache(ids, initial)
        checkpoint = gr.HTML("", elem_id=ids.of("checkpoint"))
        build_run_log(ids)
    return Advanced(fold, toolbar, sizing, cache, checkpoint)


def _build_report(ids: ElementIds, render: bool) -> ReportArea:
    return ReportArea(
        # gradio calls a function whenever the page is opened; a value would stay the one of Forge's start.
        html=gr.HTML(partial(last_report_html, ids), elem_id=ids.of("report"), render=render),
        spoken=gr.HTML("", elem_id=ids.of("spoken"), elem_classes="fk-spoken"),
    )


def _build_hidden(ids: ElementIds) -> HiddenControls:
    # Hidden by style: with visible=False they would not be in the page, and their events could not be triggered.
    return HiddenControls(
        expected=gr.Textbox("", elem_id=ids.of("expected"), elem_classes="fk-hidden", show_label=False),
        refresh=gr.Button("Refresh report", elem_id=ids.of("refresh"), elem_classes="fk-hidden"),
        live=gr.Button("Live report", elem_id=ids.of("live"), elem_classes="fk-hidden"),
        align=gr.Button("Align to reference 1", elem_id=ids.of("align"), elem_classes="fk-hidden"),
        use_advice=gr.Button("Use the suggestion", elem_id=ids.of("use_advice"), elem_classes="fk-hidden"),
    )
