"""The panel's controls for speed at first sight: the presets, First Block Cache and its threshold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import gradio as gr
from gradio.components import Component

from lib_fluxkontext.hosts.forge.ui.element_ids import ElementIds
from lib_fluxkontext.settings import PRESETS, Preset, preset_of


@dataclass(frozen=True)
class SpeedControls:
    """What most people need of the caches.

    Attributes:
        presets: a button for each, which sets all of the caches' controls.
        cache: whether First Block Cache is on.
        cache_threshold: its threshold.
    """

    presets: Mapping[Preset, gr.Button]
    cache: gr.Checkbox
    cache_threshold: gr.Slider

    @property
    def controls(self) -> dict[str, Component]:
        """Controls by setting name."""
        return {"cache": self.cache, "cache_threshold": self.cache_threshold}


HINTS: dict[Preset, str] = {
    "Off": "Computes every step: the picture as the model makes it",
    "Quality": "Reuses only the steps that change least: for final pictures",
    "Balanced": "The default: reuses steps that change little",
    "Fast": "Reuses more steps and corrects for them; references run less often",
    "Fastest": "Computes about 4 of 20 steps: for trying prompts and seeds",
}
"""What a preset does, shown when the pointer rests on its button."""


def build_speed(ids: ElementIds, initial: Mapping[str, object]) -> SpeedControls:
    """Create the controls.

    Args:
        ids: of the tab.
        initial: values by setting name.
    """
    with gr.Group(elem_classes="fk-cache"):
        presets = _build_presets(ids, preset_of(initial))
        with gr.Row(elem_classes="fk-threshold"):
            cache = gr.Checkbox(
                initial["cache"],
                label="First Block Cache",
                info="Reuse a step when its first block says that little has changed",
                elem_id=ids.of("cache"),
                elem_classes="fk-check",
                min_width=140,
            )
            cache_threshold = gr.Slider(
                0.0,
                1.0,
                step=0.01,
                value=initial["cache_threshold"],
                label="Threshold",
                info="0 never reuses, 0.05–0.10 careful, 0.14 balanced, over 0.2 visible",
                elem_id=ids.of("threshold"),
                scale=2,
                min_width=200,
            )
    return SpeedControls(presets, cache, cache_threshold)


def _build_presets(ids: ElementIds, current: str) -> dict[Preset, gr.Button]:
    """Create a button for each preset.

    Not a radio: gradio's reports a value that the page itself has set as if the user had chosen it.
    """
    with gr.Row(elem_id=ids.of("presets"), elem_classes="fk-toolbar fk-presets"):
        gr.HTML('<span class="fk-facts">Speed</span>', elem_classes="fk-name")
        return {
            preset: gr.Button(
                preset,
                elem_id=ids.of(f"preset_{preset.lower()}"),
                size="sm",
                min_width=60,
                variant=preset_variant(preset, current),
                tooltip=HINTS[preset],
            )
            for preset in PRESETS
        }


def preset_variant(preset: str, current: str) -> str:
    """Return the variant of a preset's button while the settings are those of ``current``."""
    return "primary" if preset == current else "secondary"
