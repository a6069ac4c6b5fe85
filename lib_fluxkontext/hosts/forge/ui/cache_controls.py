"""The panel's controls under *Advanced* for First Block Cache and reference reuse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import gradio as gr
from gradio.components import Component

from lib_fluxkontext.hosts.forge.ui.element_ids import ElementIds


@dataclass(frozen=True)
class CacheControls:
    """The caches' settings that are seldom changed; the attributes are named after them."""

    cache_warmup_steps: gr.Slider
    cache_max_consecutive: gr.Slider
    cache_compute_last: gr.Checkbox
    cache_forecast: gr.Checkbox
    cache_correct: gr.Checkbox
    reference_refresh: gr.Slider

    @property
    def controls(self) -> dict[str, Component]:
        """Controls by setting name."""
        return dict(vars(self))


def build_cache(ids: ElementIds, initial: Mapping[str, object]) -> CacheControls:
    """Create the controls.

    Args:
        ids: of the tab.
        initial: values by setting name.
    """
    with gr.Group(elem_classes="fk-cache"):
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
        cache_warmup_steps=cache_warmup_steps,
        cache_max_consecutive=cache_max_consecutive,
        cache_compute_last=cache_compute_last,
        cache_forecast=cache_forecast,
        cache_correct=cache_correct,
        reference_refresh=reference_refresh,
    )
