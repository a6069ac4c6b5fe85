"""The panel's controls under *Advanced* for how references are sized, placed and where they are used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import gradio as gr
from gradio.components import Component

from lib_fluxkontext.hosts.forge.ui.element_ids import ElementIds
from lib_fluxkontext.settings import PLACEMENTS, SIZINGS, STITCHES, default_of


@dataclass(frozen=True)
class SizingControls:
    """How references are used; the attributes are named after their settings."""

    init_image_as_reference: gr.Checkbox
    sizing: gr.Dropdown
    half_size: gr.Checkbox
    hires_references: gr.Checkbox
    placement: gr.Dropdown
    stitch: gr.Dropdown
    keep_outside_mask: gr.Checkbox

    @property
    def controls(self) -> dict[str, Component]:
        """Controls by setting name."""
        return dict(vars(self))


def build_sizing(ids: ElementIds, initial: Mapping[str, object], is_img2img: bool) -> SizingControls:
    """Create the controls.

    Args:
        ids: of the tab.
        initial: values by setting name.
        is_img2img: which tab it is for; some controls are hidden in the other.
    """
    init_image_as_reference = gr.Checkbox(
        default_of("init_image_as_reference"),
        label="Use the init image as reference 1",
        elem_id=ids.of("init_image"),
        visible=is_img2img,
        elem_classes="fk-check",
    )
    keep_outside_mask = gr.Checkbox(
        default_of("keep_outside_mask"),
        label="Keep outside the mask exactly",
        info="Inpaint: the original's own pixels; the mask's blur stays inside it",
        elem_id=ids.of("keep_outside_mask"),
        visible=is_img2img,
        elem_classes="fk-check",
    )
    with gr.Row():
        sizing = gr.Dropdown(
            list(SIZINGS),
            value=initial["sizing"],
            label="Reference size",
            info="BFL recommended and output crop to the shape; fit inside pads; no change keeps every pixel",
            elem_id=ids.of("sizing"),
            scale=2,
        )
        half_size = gr.Checkbox(
            initial["half_size"],
            label="Half size",
            info="A quarter of the tokens: much faster, less detail",
            elem_id=ids.of("half_size"),
            elem_classes="fk-check",
        )
    with gr.Row():
        stitch = gr.Dropdown(
            list(STITCHES),
            value=initial["stitch"],
            label="Stitch",
            info="References become one picture, side by side: fewer tokens, faster steps, less detail",
            elem_id=ids.of("stitch"),
        )
        placement = gr.Dropdown(
            list(PLACEMENTS),
            value=initial["placement"],
            label="Placement",
            info="Offset, unless a LoRA was trained with index or uxo",
            elem_id=ids.of("placement"),
        )
    hires_references = gr.Checkbox(
        default_of("hires_references") if is_img2img else initial["hires_references"],  # img2img has no such pass
        label="References in the hires pass too",
        info="Off: the second pass of hires fix costs what it costs without references",
        elem_id=ids.of("hires_references"),
        visible=not is_img2img,
        elem_classes="fk-check",
    )
    return SizingControls(
        init_image_as_reference, sizing, half_size, hires_references, placement, stitch, keep_outside_mask
    )
