"""The panel's controls for references: two slots, the buttons below them, and the sizing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import gradio as gr
from gradio.components import Component

from lib_fluxkontext.hosts.forge.ui.element_ids import ElementIds
from lib_fluxkontext.settings import PLACEMENTS, SIZINGS, STITCHES, default_of


@dataclass(frozen=True)
class ReferenceSlot:
    """One reference.

    Attributes:
        name: of the image's setting.
        image: the reference.
        facts: its size, and what a crop would remove.
        use_size: button that sets the output size from it.
        mute: whether the reference stays in its slot unused.
    """

    name: str
    image: gr.Image
    facts: gr.HTML
    use_size: gr.Button
    mute: gr.Checkbox

    @property
    def controls(self) -> dict[str, Component]:
        """Controls by setting name."""
        return {self.name: self.image, f"mute_{self.name}": self.mute}


def build_slot(ids: ElementIds, number: int) -> ReferenceSlot:
    """Create the slot of a reference; numbers start at 1."""
    name = f"image{number}"
    with gr.Column(min_width=200, elem_id=ids.of(f"slot{number}")):
        image = gr.Image(
            label=f"Reference {number}",
            elem_id=ids.of(name),
            type="pil",
            image_mode=None,  # anything else would drop transparency before it could be flattened
            sources=["upload", "clipboard"],
            height=240,
            show_download_button=False,
        )
        facts = gr.HTML('<p class="fk-facts fk-muted">Empty</p>', elem_id=ids.of(f"facts{number}"))
        with gr.Row(elem_classes="fk-toolbar"):
            use_size = gr.Button(
                "Use its size",
                elem_id=ids.of(f"use_size{number}"),
                size="sm",
                tooltip="Set Width and Height from it",
            )
            mute = gr.Checkbox(
                default_of(f"mute_{name}"),
                label="Mute",
                elem_id=ids.of(f"mute{number}"),
                min_width=80,
                scale=0,
                elem_classes="fk-check",
            )
    return ReferenceSlot(name, image, facts, use_size, mute)


@dataclass(frozen=True)
class Toolbar:
    """The buttons below the slots.

    Attributes:
        swap: exchanges the references.
        clear: empties both slots.
        to_img2img: makes the image in the gallery img2img's init image.
        recommend: sets Forge's own controls as recommended for Kontext.
        undo: takes that back.
    """

    swap: gr.Button
    clear: gr.Button
    to_img2img: gr.Button
    recommend: gr.Button
    undo: gr.Button


def build_toolbar(ids: ElementIds) -> Toolbar:
    """Create the buttons below the slots."""
    with gr.Row(elem_classes="fk-toolbar"):
        return Toolbar(
            swap=gr.Button("⇄ Swap", elem_id=ids.of("swap"), size="sm", min_width=80),
            clear=gr.Button("✕ Clear both", elem_id=ids.of("clear"), size="sm", min_width=80),
            to_img2img=gr.Button(
                "Result → img2img",
                elem_id=ids.of("to_img2img"),
                size="sm",
                min_width=120,
                tooltip="Make the picture in the gallery img2img's init image; its prompt and settings stay.",
            ),
            recommend=gr.Button("Recommended settings", elem_id=ids.of("recommend"), size="sm", min_width=140),
            undo=gr.Button("Undo", elem_id=ids.of("undo"), size="sm", min_width=60, interactive=False),
        )


@dataclass(frozen=True)
class SizingControls:
    """How references are sized and where they are used; the attributes are named after their settings."""

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
    """Create the sizing controls.

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
    hires_references = gr.Checkbox(
        default_of("hires_references") if is_img2img else initial["hires_references"],  # img2img has no such pass
        label="References in the hires pass too",
        info="Off: the second pass of hires fix costs what it costs without references",
        elem_id=ids.of("hires_references"),
        visible=not is_img2img,
        elem_classes="fk-check",
    )
    with gr.Row():
        placement = gr.Dropdown(
            list(PLACEMENTS),
            value=initial["placement"],
            label="Placement",
            info="offset unless a LoRA was trained otherwise",
            elem_id=ids.of("placement"),
        )
        stitch = gr.Dropdown(
            list(STITCHES),
            value=initial["stitch"],
            label="Stitch",
            info="References become one picture side by side",
            elem_id=ids.of("stitch"),
        )
    keep_outside_mask = gr.Checkbox(
        initial["keep_outside_mask"],
        label="Keep outside the mask exactly",
        elem_id=ids.of("keep_outside_mask"),
        visible=is_img2img,
        elem_classes="fk-check",
    )
    return SizingControls(
        init_image_as_reference, sizing, half_size, hires_references, placement, stitch, keep_outside_mask
    )
