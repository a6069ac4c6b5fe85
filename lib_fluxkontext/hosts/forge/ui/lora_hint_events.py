"""Events of the suggestion for distilled LoRAs: shown as the prompt rests, and as what is suggested changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio.components import Component

from lib_fluxkontext.hosts.forge.ui.lora_hint import Speed, has_references, lora_hint_html
from lib_fluxkontext.hosts.forge.ui.panel import Panel
from lib_fluxkontext.settings import IMAGE_FIELDS

FORGE_CONTROLS = ("prompt", "steps")
"""Element ids of Forge's own controls, behind ``txt2img_`` or ``img2img_``."""

CACHE_FIELDS = ("cache", "cache_threshold", "reference_refresh")
"""Settings that the suggestion is about."""

MUTE_FIELDS = tuple(f"mute_{name}" for name in IMAGE_FIELDS)

INIT_IMAGE = "init_image_as_reference"


def connect_lora_hint(panel: Panel, forge: Mapping[str, Component]) -> None:
    """Connect the suggestion.

    Which slots hold a picture is kept beside the page: gradio would decode all pictures whenever the prompt rests.
    """
    filled = gr.State([False] * len(IMAGE_FIELDS))
    images = [panel.controls[name] for name in IMAGE_FIELDS]
    controls = [*(panel.controls[name] for name in (*CACHE_FIELDS, *MUTE_FIELDS, INIT_IMAGE)), filled]
    changes = [component.change for component in (forge["steps"], *controls)]
    for trigger in (panel.prompt_help.count.click, *changes):
        trigger(
            show_lora_hint,
            inputs=[*(forge[name] for name in FORGE_CONTROLS), *controls],
            outputs=[panel.lora_hint],
            show_progress="hidden",
            trigger_mode="always_last",
        )
    for image in images:
        image.change(filled_slots, inputs=images, outputs=[filled], show_progress="hidden", trigger_mode="always_last")


def filled_slots(*images: object) -> list[bool]:
    """Return of each slot whether it holds a picture."""
    return [image is not None for image in images]


def show_lora_hint(prompt: str | None, steps: float | None, *values: Any) -> str:
    """Return the suggestion as HTML.

    Args:
        prompt: as typed.
        steps: Forge's; None where the number field is empty.
        values: of ``CACHE_FIELDS``, of ``MUTE_FIELDS``, whether the init image is a reference, and which slots hold a
            picture.
    """
    from modules.processing_scripts.comments import strip_comments

    cache, cache_threshold, reference_refresh, *muted, init_image, filled = values
    in_use = has_references(init_image, filled, muted)
    return lora_hint_html(strip_comments(prompt or ""), Speed(steps, cache, cache_threshold, reference_refresh, in_use))
