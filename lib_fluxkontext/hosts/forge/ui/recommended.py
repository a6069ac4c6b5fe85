"""The button that sets Forge's own controls as recommended for FLUX.1 Kontext, and the one that takes it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from lib_fluxkontext.hosts.forge.ui.panel import Panel
from lib_fluxkontext.hosts.forge.ui.slot_facts import output_size
from lib_fluxkontext.settings import IMAGE_FIELDS

RECOMMENDED: dict[str, Any] = {
    "sampling": "Euler",
    "scheduler": "Simple",
    "steps": 20,
    "cfg_scale": 1.0,
    "distilled_cfg_scale": 3.5,
}
"""Control → value, beside the size. Black Forest Labs' own pipeline: Euler, guidance 2.5 to 3.5, no CFG."""

FORGE_CONTROLS = (*RECOMMENDED, "width", "height")
"""Element ids of Forge's own controls, behind ``txt2img_`` or ``img2img_``."""


def connect_recommended(panel: Panel, forge: Mapping[str, Component]) -> None:
    """Connect both buttons."""
    controls = [forge[name] for name in FORGE_CONTROLS]
    previous = gr.State(None)
    undo = panel.actions.undo
    panel.actions.recommend.click(
        apply_recommended,
        inputs=[*(slot.image for slot in panel.slots.all), *controls],
        outputs=[*controls, previous, undo],
        show_progress="hidden",
    )
    undo.click(undo_recommended, inputs=[previous], outputs=[*controls, previous, undo], show_progress="hidden")


def apply_recommended(*values: Any) -> list[Any]:
    """Return the recommended values, the previous ones to go back to, and *Undo* enabled.

    Args:
        values: what each slot holds, then of ``FORGE_CONTROLS``.
    """
    images, previous = values[: len(IMAGE_FIELDS)], values[len(IMAGE_FIELDS) :]
    return [*recommended_values(images, *previous[-2:]), list(previous), gr.update(interactive=True)]


def undo_recommended(previous: list[Any] | None) -> list[Any]:
    """Return the previous values, none to go back to, and *Undo* disabled."""
    values = previous or [gr.update()] * len(FORGE_CONTROLS)
    return [*values, None, gr.update(interactive=False)]


def recommended_values(images: Sequence[object], width: Any, height: Any) -> list[Any]:
    """Return values for ``FORGE_CONTROLS``; the size is BFL's nearest to the first reference, else as it was.

    Args:
        images: what each slot holds, or None.
        width: of the output as it is, in pixels.
        height: likewise.
    """
    size = None
    for name, image in zip(IMAGE_FIELDS, images, strict=True):
        if size is None and image is not None:
            size = output_size(image, name, "to BFL recommended")
    return [*RECOMMENDED.values(), *(size or (width, height))]
