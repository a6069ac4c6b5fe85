"""The panel's controls for First Block Cache and reference reuse, and the buttons of the presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import gradio as gr
from gradio.components import Component

from lib_fluxkontext.hosts.forge.ui.element_ids import ElementIds
from lib_fluxkontext.settings import PRESET_FIELDS, PRESETS, Preset, preset_of


@dataclass(frozen=True)
class CacheControls:
    """The caches' settings, by whose names the attributes go, and the presets.

    Attributes:
        presets: a button for each, which sets all the others.
    """

    presets: Mapping[Preset, gr.Button]
    cache: gr.Checkbox
    cache_threshold: gr.Slider
    cache_warmup_steps: gr.Slider
    cache_max_consecutive: gr.Slider
    cache_compute_last: gr.Checkbox
    cache_forecast: gr.Checkbox
    cache_correct: gr.Checkbox
    reference_refresh: gr.Slider

    @property
    def controls(self) -> dict[str, Component]:
        """Controls by setting name, in the order of ``PRESET_FIELDS``."""
        return {name: getattr(self, name) for name in PRESET_FIELDS}


def build_cache(ids: ElementIds, initial: Mapping[str, object]) -> CacheControls:
    """Create the cache's controls.

    Args:
        ids: of the tab.
        initial: values by setting name.
    """
    with gr.Group(elem_classes="fk-cache"):
        presets = _build_presets(ids, preset_of(initial))
        with gr.Row():
            cache = gr.Checkbox(
                initial["cache"],
                label="First Block Cache",
                info="Reuse a step when its first block says that little has changed",
                elem_id=ids.of("cache"),
                elem_classes="fk-check",
            )
            cache_threshold = gr.Slider(
                0.0,
                1.0,
                step=0.01,
                value=initial["cache_threshold"],
                label="Threshold",
                info="How much may change: 0 never reuses, 0.05–0.10 careful, 0.14 balanced, over 0.2 visible",
                elem_id=ids.of("threshold"),
                scale=2,
            )
        with gr.Row():
            cache_warmup_steps = gr.Slider(
                1,
                20,
                step=1,
                value=initial["cache_warmup_steps"],
                label="Warm-up steps",
                info="Always computed; they decide the composition",
                elem_id=ids.of("warmup"),
            )
            cache_max_consecutive = gr.Slider(
                0,
                20,
                step=1,
                value=initial["cache_max_consecutive"],
                label="Longest run of reused steps",
                info="0: no limit",
                elem_id=ids.of("max_consecutive"),
            )
            cache_compute_last = gr.Checkbox(
                initial["cache_compute_last"],
                label="Compute the last step",
                info="Finest detail, one more computed step",
                elem_id=ids.of("compute_last"),
                elem_classes="fk-check",
            )
        with gr.Row():
            cache_forecast = gr.Checkbox(
                initial["cache_forecast"],
                label="Forecast",
                info="Follow the trend of the last two computed steps instead of repeating the last",
                elem_id=ids.of("forecast"),
                elem_classes="fk-check",
            )
            cache_correct = gr.Checkbox(
                initial["cache_correct"],
                label="Correct",
                info="A computed step makes up for what the reused ones before it got wrong",
                elem_id=ids.of("correct"),
                elem_classes="fk-check",
            )
        with gr.Row():
            reference_refresh = gr.Slider(
                0,
                20,
                step=1,
                value=initial["reference_refresh"],
                label="Reuse references: refresh every … steps",
                info="0: off. 1: they run in every computed step. 2–4: not in all of those either",
                elem_id=ids.of("reference_refresh"),
            )
    return CacheControls(
        presets=presets,
        cache=cache,
        cache_threshold=cache_threshold,
        cache_warmup_steps=cache_warmup_steps,
        cache_max_consecutive=cache_max_consecutive,
        cache_compute_last=cache_compute_last,
        cache_forecast=cache_forecast,
        cache_correct=cache_correct,
        reference_refresh=reference_refresh,
    )


def _build_presets(ids: ElementIds, current: str) -> dict[Preset, gr.Button]:
    """Create a button for each preset.

    Not a radio: gradio's reports a value that the page itself has set as if the user had chosen it.
    """
    with gr.Row(elem_id=ids.of("presets"), elem_classes="fk-toolbar fk-presets"):
        gr.HTML('<span class="fk-facts">Speed</span>')
        return {
            preset: gr.Button(
                preset,
                elem_id=ids.of(f"preset_{preset.lower()}"),
                size="sm",
                min_width=80,
                variant=preset_variant(preset, current),
            )
            for preset in PRESETS
        }


def preset_variant(preset: str, current: str) -> str:
    """Return the variant of a preset's button while the settings are those of ``current``."""
    return "primary" if preset == current else "secondary"
