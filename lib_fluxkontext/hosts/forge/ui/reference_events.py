"""Events of what is told of the references: the facts below the slots, what is missing, and the output size."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component

from lib_fluxkontext.hosts.forge.ui.panel import Panel
from lib_fluxkontext.hosts.forge.ui.references_in_use import FIELDS, stitched_preview
from lib_fluxkontext.hosts.forge.ui.slot_facts import missing_images, output_size, slot_facts
from lib_fluxkontext.settings import IMAGE_FIELDS, Sizing

UNKNOWN_OUTPUT = (1024, 1024)
"""Width and height that are assumed where a size slider is empty."""


def connect_missing(panel: Panel) -> None:
    """Connect the note on references of pasted parameters that are not in their slots."""
    expected = panel.hidden.expected
    images = [slot.image for slot in panel.slots.all]
    for component in (*images, expected):
        component.change(show_missing, inputs=[expected, *images], outputs=[panel.missing], show_progress="hidden")


def show_missing(expected: str, *images: object) -> str:
    """Return the note, as HTML."""
    return missing_images(expected, dict(zip(IMAGE_FIELDS, images, strict=True)))


def connect_sizes(panel: Panel, forge: Mapping[str, Component]) -> None:
    """Connect the facts below the slots and the buttons that set the output size."""
    width, height = forge["width"], forge["height"]
    sizing = panel.advanced.sizing
    for slot, options in zip(panel.slots.all, panel.advanced.toolbar.options, strict=True):
        inputs = [slot.image, sizing.sizing, sizing.half_size, width, height, options.mute]
        if slot.name == "image1":
            inputs.append(sizing.init_image_as_reference)
        for component in inputs:
            component.change(
                partial(show_facts, slot.name),
                inputs=inputs,
                outputs=[slot.facts],
                show_progress="hidden",
                trigger_mode="always_last",
            )
        options.use_size.click(
            partial(use_size, slot.name),
            inputs=[slot.image, sizing.sizing],
            outputs=[width, height],
            show_progress="hidden",
        )


def connect_stitched(panel: Panel, forge: Mapping[str, Component]) -> None:
    """Connect the stitched picture below the slots."""
    inputs = [forge["width"], forge["height"], *(panel.controls[name] for name in FIELDS)]
    for component in inputs:
        component.change(
            show_stitched,
            inputs=inputs,
            outputs=[panel.slots.stitched],
            show_progress="hidden",
            trigger_mode="always_last",
        )


def show_stitched(width: float | None, height: float | None, *values: Any) -> str:
    """Return the stitched picture, as HTML; empty where nothing is stitched.

    Args:
        width: of the output, in pixels; None where a number field is empty.
        height: likewise.
        values: of ``references_in_use.FIELDS``.
    """
    return stitched_preview(dict(zip(FIELDS, values, strict=True)), output_of(width, height))


def show_facts(
    name: str,
    image: object,
    sizing: Sizing,
    half_size: bool,
    width: float | None,
    height: float | None,
    muted: bool,
    replaced: bool = False,
) -> str:
    """Return the facts below a slot, as HTML."""
    return slot_facts(image, name, sizing, half_size, output_of(width, height), muted, replaced)


def use_size(name: str, image: object, sizing: Sizing) -> tuple[Any, Any]:
    """Return width and height for Forge's sliders, unchanged where the slot has no usable image."""
    size = output_size(image, name, sizing) if image is not None else None
    return size if size is not None else (gr.update(), gr.update())


def output_of(width: float | None, height: float | None) -> tuple[int, int]:
    """Return the output size in pixels."""
    return (int(width), int(height)) if width and height else UNKNOWN_OUTPUT
