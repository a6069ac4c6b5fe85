"""Events of the suggestion for distilled LoRAs: shown as the prompt rests, and as what is suggested changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradio.components import Component

from lib_fluxkontext.hosts.forge.ui.lora_hint import Speed, lora_hint_html
from lib_fluxkontext.hosts.forge.ui.panel import Panel

FORGE_CONTROLS = ("prompt", "steps")
"""Element ids of Forge's own controls, behind ``txt2img_`` or ``img2img_``."""

CACHE_FIELDS = ("cache", "cache_threshold", "reference_refresh")
"""Settings that the suggestion is about."""


def connect_lora_hint(panel: Panel, forge: Mapping[str, Component]) -> None:
    """Connect the suggestion."""
    controls = [panel.controls[name] for name in CACHE_FIELDS]
    changes = [component.change for component in (forge["steps"], *controls)]
    for trigger in (panel.prompt_help.count.click, *changes):
        trigger(
            show_lora_hint,
            inputs=[*(forge[name] for name in FORGE_CONTROLS), *controls],
            outputs=[panel.lora_hint],
            show_progress="hidden",
            trigger_mode="always_last",
        )


def show_lora_hint(prompt: str | None, *values: Any) -> str:
    """Return the suggestion as HTML.

    Args:
        prompt: as typed.
        values: of the number of steps, then of ``CACHE_FIELDS``.
    """
    from modules.processing_scripts.comments import strip_comments

    return lora_hint_html(strip_comments(prompt or ""), Speed(*values))
