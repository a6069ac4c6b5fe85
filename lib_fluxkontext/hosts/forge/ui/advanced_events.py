"""Events of *Advanced*: its label says what differs from the default."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_fluxkontext.hosts.forge.ui.advanced_label import ADVANCED_FIELDS, advanced_label
from lib_fluxkontext.hosts.forge.ui.panel import Panel


def connect_advanced(panel: Panel) -> None:
    """Connect the controls under *Advanced* with its label."""
    controls = [panel.controls[name] for name in ADVANCED_FIELDS]
    for control in controls:
        control.change(
            show_label,
            inputs=controls,
            outputs=[panel.advanced.fold],
            show_progress="hidden",
            trigger_mode="always_last",
        )


def show_label(*values: Any) -> dict[str, Any]:
    """Return the update of the label.

    Args:
        values: of ``ADVANCED_FIELDS``.
    """
    return gr.update(label=advanced_label(dict(zip(ADVANCED_FIELDS, values, strict=True))))
