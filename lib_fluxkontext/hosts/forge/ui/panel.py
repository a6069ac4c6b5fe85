"""The panel in txt2img and img2img: what is on it, in the order of the argument table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from modules.ui_components import InputAccordion

from lib_fluxkontext.hosts.forge.integration.options import PANEL_FIELDS
from lib_fluxkontext.hosts.forge.lifecycle import live_reports as latest
from lib_fluxkontext.hosts.forge.ui.element_ids import TITLE, ElementIds
from lib_fluxkontext.hosts.forge.ui.run_panel import build_runs
from lib_fluxkontext.presentation.html import report_html
from lib_fluxkontext.settings import FIELD_NAMES, PRESETS, SIZINGS, KontextSettings, preset_of


@dataclass
class Panel:
    """The components of one panel; ``controls`` by setting name, the rest by what it shows."""

    ids: ElementIds
    controls: dict[str, Any]
    facts: dict[str, gr.HTML]
    use_size: dict[str, Any]
    swap: Any
    clear: Any
    to_img2img: Any
    recommend: Any
    undo: Any
    presets: dict[str, gr.Button]
    expected: gr.Textbox
    missing: gr.HTML
    checkpoint: gr.HTML
    report: gr.HTML
    spoken: gr.HTML
    refresh: gr.Button
    live: gr.Button

    def arguments(self) -> list[Any]:
        """Components in the order of the API's positional arguments."""
        return [self.controls[name] for name in FIELD_NAMES]


def build_panel(is_img2img: bool, defaults: Mapping[str, Any]) -> Panel:
    """Create the components; called several times, it changes nothing else.

    Args:
        is_img2img: which tab it is for.
        defaults: values to begin with, by setting name; for other settings the API's.
    """
    start = {name: _default(name) for name in FIELD_NAMES} | dict(defaults)
    ids = ElementIds("img2img" if is_img2img else "txt2img")
    controls: dict[str, Any] = {}
    with InputAccordion(_default("enabled"), label=TITLE, elem_id=ids.accordion) as controls["enabled"]:
        missing = gr.HTML("", elem_id=ids.of("missing"))
        facts: dict[str, gr.HTML] = {}
        use_size: dict[str, Any] = {}
        with gr.Row(elem_classes="fk-slots"):
            for number in (1, 2):
                _slot(ids, number, controls, facts, use_size)
        with gr.Row(elem_classes="fk-toolbar"):
            swap = gr.Button("⇄ Swap", elem_id=ids.of("swap"), size="sm", min_width=80)
            clear = gr.Button("✕ Clear both", elem_id=ids.of("clear"), size="sm", min_width=80)
            to_img2img = gr.Button(
                "Result → img2img",
                elem_id=ids.of("to_img2img"),
                size="sm",
                min_width=120,
                tooltip="Make the picture in the gallery img2img's init image; its prompt and settings stay.",
            )
            recommend = gr.Button("Recommended settings", elem_id=ids.of("recommend"), size="sm", min_width=140)
            undo = gr.Button("Undo", elem_id=ids.of("undo"), size="sm", min_width=60, interactive=False)
        controls["init_image_as_reference"] = gr.Checkbox(
            _default("init_image_as_reference"),
            label="Use the init image as reference 1",
            elem_id=ids.of("init_image"),
            visible=is_img2img,
            elem_classes="fk-check",
        )
        _sizing(ids, controls, start, is_img2img)
        presets = _cache(ids, controls, start)
        checkpoint = gr.HTML("", elem_id=ids.of("checkpoint"))
        # A function is called whenever the page is opened; a value would stay the one of Forge's start.
        report = gr.HTML(lambda: report_html(latest.get(ids.tab), ids.accordion), elem_id=ids.of("report"))
        spoken = gr.HTML("", elem_id=ids.of("spoken"), elem_classes="fk-spoken")
        build_runs(ids)
        # Hidden by style rather than visible=False, which would keep them out of the page and their events with them.
        expected = gr.Textbox("", elem_id=ids.of("expected"), elem_classes="fk-hidden", show_label=False)
        refresh = gr.Button("Refresh report", elem_id=ids.of("refresh"), elem_classes="fk-hidden")
        live = gr.Button("Live report", elem_id=ids.of("live"), elem_classes="fk-hidden")
    for name in PANEL_FIELDS:
        # Forge writes every control's first value into ui-config.json and from then on begins with that copy: what
        # is chosen in Settings → Flux Kontext would never be seen. So these have their default there alone.
        controls[name].do_not_save_to_config = True
    return Panel(
        ids=ids,
        controls=controls,
        facts=facts,
        use_size=use_size,
        swap=swap,
        clear=clear,
        to_img2img=to_img2img,
        recommend=recommend,
        undo=undo,
        presets=presets,
        expected=expected,
        missing=missing,
        checkpoint=checkpoint,
        report=report,
        spoken=spoken,
        refresh=refresh,
        live=live,
    )


def _slot(
    ids: ElementIds, number: int, controls: dict[str, Any], facts: dict[str, gr.HTML], use_size: dict[str, Any]
) -> None:
    name = f"image{number}"
    with gr.Column(min_width=200, elem_id=ids.of(f"slot{number}")):
        controls[name] = gr.Image(
            label=f"Reference {number}",
            elem_id=ids.of(name),
            type="pil",
            image_mode=None,  # anything else would drop transparency before it could be flattened
            sources=["upload", "clipboard"],
            height=240,
            show_download_button=False,
        )
        facts[name] = gr.HTML('<p class="fk-facts fk-muted">Empty</p>', elem_id=ids.of(f"facts{number}"))
        with gr.Row(elem_classes="fk-toolbar"):
            use_size[name] = gr.Button(
                "Use its size",
                elem_id=ids.of(f"use_size{number}"),
                size="sm",
                tooltip="Set Width and Height from it",
            )
            controls[f"mute_{name}"] = gr.Checkbox(
                _default(f"mute_{name}"),
                label="Mute",
                elem_id=ids.of(f"mute{number}"),
                min_width=80,
                scale=0,
                elem_classes="fk-check",
            )


def _sizing(ids: ElementIds, controls: dict[str, Any], start: Mapping[str, Any], is_img2img: bool) -> None:
    with gr.Row():
        controls["sizing"] = gr.Dropdown(
            list(SIZINGS),
            value=start["sizing"],
            label="Reference size",
            info="BFL recommended and output crop to the shape; fit inside pads; no change keeps every pixel",
            elem_id=ids.of("sizing"),
            scale=2,
        )
        controls["half_size"] = gr.Checkbox(
            start["half_size"],
            label="Half size",
            info="A quarter of the tokens: much faster, less detail",
            elem_id=ids.of("half_size"),
            elem_classes="fk-check",
        )
    controls["hires_references"] = gr.Checkbox(
        _default("hires_references") if is_img2img else start["hires_references"],  # img2img has no such pass
        label="References in the hires pass too",
        info="Off: the second pass of hires fix costs what it costs without references",
        elem_id=ids.of("hires_references"),
        visible=not is_img2img,
        elem_classes="fk-check",
    )


def _cache(ids: ElementIds, controls: dict[str, Any], start: Mapping[str, Any]) -> dict[str, gr.Button]:
    with gr.Group(elem_classes="fk-cache"):
        presets = _presets(ids, preset_of(start))
        with gr.Row():
            controls["cache"] = gr.Checkbox(
                start["cache"],
                label="First Block Cache",
                info="Reuse a step when its first block says that little has changed",
                elem_id=ids.of("cache"),
                elem_classes="fk-check",
            )
            controls["cache_threshold"] = gr.Slider(
                0.0,
                1.0,
                step=0.01,
                value=start["cache_threshold"],
                label="Threshold",
                info="How much may change: 0 never reuses, 0.05–0.10 careful, 0.14 balanced, over 0.2 visible",
                elem_id=ids.of("threshold"),
                scale=2,
            )
        with gr.Row():
            controls["cache_warmup_steps"] = gr.Slider(
                1,
                20,
                step=1,
                value=start["cache_warmup_steps"],
                label="Warm-up steps",
                info="Always computed; they decide the composition",
                elem_id=ids.of("warmup"),
            )
            controls["cache_max_consecutive"] = gr.Slider(
                0,
                20,
                step=1,
                value=start["cache_max_consecutive"],
                label="Longest run of reused steps",
                info="0: no limit",
                elem_id=ids.of("max_consecutive"),
            )
            controls["cache_compute_last"] = gr.Checkbox(
                start["cache_compute_last"],
                label="Compute the last step",
                info="Finest detail, one more computed step",
                elem_id=ids.of("compute_last"),
                elem_classes="fk-check",
            )
        with gr.Row():
            controls["cache_forecast"] = gr.Checkbox(
                start["cache_forecast"],
                label="Forecast",
                info="Follow the trend of the last two computed steps instead of repeating the last",
                elem_id=ids.of("forecast"),
                elem_classes="fk-check",
            )
            controls["cache_correct"] = gr.Checkbox(
                start["cache_correct"],
                label="Correct",
                info="A computed step makes up for what the reused ones before it got wrong",
                elem_id=ids.of("correct"),
                elem_classes="fk-check",
            )
        with gr.Row():
            controls["reference_refresh"] = gr.Slider(
                0,
                20,
                step=1,
                value=start["reference_refresh"],
                label="Reuse references: refresh every … steps",
                info="0: off. 1: they run in every computed step. 2–4: not in all of those either",
                elem_id=ids.of("reference_refresh"),
            )
    return presets


def _presets(ids: ElementIds, at_start: str) -> dict[str, gr.Button]:
    """Buttons rather than a radio: gradio's reports a value that the page itself set as if a hand had."""
    with gr.Row(elem_id=ids.of("presets"), elem_classes="fk-toolbar fk-presets"):
        gr.HTML('<span class="fk-facts">Speed</span>')
        return {
            name: gr.Button(
                name,
                elem_id=ids.of(f"preset_{name.lower()}"),
                size="sm",
                min_width=80,
                variant=preset_variant(name, at_start),
            )
            for name in PRESETS
        }


def preset_variant(name: str, current: str) -> str:
    """How a preset's button looks while the settings are ``current``."""
    return "primary" if name == current else "secondary"


def _default(name: str) -> Any:
    return KontextSettings.model_fields[name].default
