"""Events of the presets: a button sets the cache's controls, and whatever sets them, the matching button lights up."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr

from lib_fluxkontext.hosts.forge.ui.panel import Panel
from lib_fluxkontext.hosts.forge.ui.speed_controls import preset_variant
from lib_fluxkontext.settings import PRESET_FIELDS, PRESETS, Preset, preset_of


def connect_presets(panel: Panel) -> None:
    """Connect the buttons and the controls."""
    controls = [panel.controls[name] for name in PRESET_FIELDS]
    buttons = panel.speed.presets
    for preset, button in buttons.items():
        button.click(partial(preset_values, preset), outputs=controls, show_progress="hidden")
    for control in controls:
        control.change(
            light_up_preset,
            inputs=controls,
            outputs=list(buttons.values()),
            show_progress="hidden",
            trigger_mode="always_last",
        )


def preset_values(preset: Preset) -> list[bool | int | float]:
    """Return a preset's values, in the order of ``PRESET_FIELDS``."""
    return [PRESETS[preset][name] for name in PRESET_FIELDS]


def light_up_preset(*values: Any) -> list[dict[str, Any]]:
    """Return the presets' buttons, the one of these values highlighted."""
    current = preset_of(dict(zip(PRESET_FIELDS, values, strict=True)))
    return [gr.update(variant=preset_variant(preset, current)) for preset in PRESETS]
