"""The panel's controls for references: the slots, and under *Advanced* what can be done with each and with all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr
from gradio.components import Component
from gradio.layouts import Row

from lib_fluxkontext.hosts.forge.ui.element_ids import ElementIds
from lib_fluxkontext.hosts.forge.ui.reference_image import ReferenceImage
from lib_fluxkontext.settings import IMAGE_FIELDS, default_of

FIRST_ROW = 2
"""Slots that are always there; the others appear when these are full."""


@dataclass(frozen=True)
class ReferenceSlot:
    """One reference.

    Attributes:
        name: of the image's setting.
        image: the reference.
        facts: its size, and what a crop would remove.
    """

    name: str
    image: ReferenceImage
    facts: gr.HTML

    @property
    def controls(self) -> dict[str, Component]:
        """Controls by setting name."""
        return {self.name: self.image}


@dataclass(frozen=True)
class Slots:
    """All slots, and what stands between them and the report.

    Attributes:
        all: in order.
        more: the row of those that appear when the first are full.
        stitched: the stitched picture as it will be used; empty unless references are stitched.
        restore_text: generation data found in a reference, hidden.
        restore_row: asks whether to restore its settings.
        restore: button that does.
        keep: button that declines.
        moved: written by our script when a reference was dragged to another slot, hidden.
    """

    all: tuple[ReferenceSlot, ...]
    more: Row
    stitched: gr.HTML
    restore_text: gr.Textbox
    restore_row: Row
    restore: gr.Button
    keep: gr.Button
    moved: gr.Textbox


def build_slots(ids: ElementIds) -> Slots:
    """Create the slots."""
    with gr.Row(elem_classes="fk-slots"):
        slots = [_build_slot(ids, number) for number in range(1, FIRST_ROW + 1)]
    with gr.Row(elem_classes="fk-slots fk-more", elem_id=ids.of("more_slots"), visible=False) as more:
        slots += [_build_slot(ids, number) for number in range(FIRST_ROW + 1, len(IMAGE_FIELDS) + 1)]
    stitched = gr.HTML("", elem_id=ids.of("stitched"), elem_classes="fk-when-filled")
    with gr.Row(elem_classes="fk-toolbar fk-restore", elem_id=ids.of("restore_row"), visible=False) as restore_row:
        gr.HTML('<p class="fk-facts">This picture was made with Flux Kontext.</p>', elem_id=ids.of("restore_question"))
        restore = gr.Button("Restore its settings", elem_id=ids.of("restore"), size="sm", min_width=120)
        keep = gr.Button("Keep mine", elem_id=ids.of("restore_no"), size="sm", min_width=80)
    return Slots(
        all=tuple(slots),
        more=more,
        stitched=stitched,
        restore_text=gr.Textbox("", elem_id=ids.of("restore_text"), elem_classes="fk-hidden", show_label=False),
        restore_row=restore_row,
        restore=restore,
        keep=keep,
        moved=gr.Textbox("", elem_id=ids.of("moved"), elem_classes="fk-hidden", show_label=False),
    )


def _build_slot(ids: ElementIds, number: int) -> ReferenceSlot:
    """Create the slot of a reference; numbers start at 1."""
    name = IMAGE_FIELDS[number - 1]
    with gr.Column(min_width=160, elem_id=ids.of(f"slot{number}")):
        image = ReferenceImage(
            label=f"Reference {number}",
            elem_id=ids.of(name),
            type="pil",
            image_mode=None,  # anything else would drop transparency before it could be flattened
            sources=["upload", "clipboard"],
            height=200,
            show_download_button=False,
        )
        facts = gr.HTML('<p class="fk-facts fk-muted">Empty</p>', elem_id=ids.of(f"facts{number}"))
    return ReferenceSlot(name, image, facts)


@dataclass(frozen=True)
class SlotOptions:
    """What can be done with one reference.

    Attributes:
        name: of the image's setting.
        use_size: button that sets the output size from it.
        mute: whether the reference stays in its slot unused.
        move: button that exchanges it with the reference before it; None for the first two, which have *Swap*.
    """

    name: str
    use_size: gr.Button
    mute: gr.Checkbox
    move: gr.Button | None

    @property
    def controls(self) -> dict[str, Component]:
        """Controls by setting name."""
        return {f"mute_{self.name}": self.mute}


@dataclass(frozen=True)
class Toolbar:
    """What can be done with all references.

    Attributes:
        swap: exchanges the first two references.
        clear: empties all slots.
        to_img2img: makes the image in the gallery img2img's init image.
        options: of each slot.
        more: the row of options of the slots that appear when the first are full.
    """

    swap: gr.Button
    clear: gr.Button
    to_img2img: gr.Button
    options: Sequence[SlotOptions]
    more: Row


def build_toolbar(ids: ElementIds) -> Toolbar:
    """Create the buttons for references under *Advanced*."""
    with gr.Row(elem_classes="fk-toolbar"):
        swap = gr.Button("⇄ Swap", elem_id=ids.of("swap"), size="sm", min_width=80)
        clear = gr.Button("✕ Clear all", elem_id=ids.of("clear"), size="sm", min_width=80)
        to_img2img = gr.Button(
            "Result → img2img",
            elem_id=ids.of("to_img2img"),
            size="sm",
            min_width=120,
            tooltip="Make the picture in the gallery img2img's init image; its prompt and settings stay.",
        )
    with gr.Row():
        options = [_build_options(ids, number) for number in range(1, FIRST_ROW + 1)]
    with gr.Row(visible=False) as more:
        options += [_build_options(ids, number) for number in range(FIRST_ROW + 1, len(IMAGE_FIELDS) + 1)]
    return Toolbar(swap, clear, to_img2img, options, more)


def _build_options(ids: ElementIds, number: int) -> SlotOptions:
    name = IMAGE_FIELDS[number - 1]
    with gr.Row(elem_classes="fk-toolbar", elem_id=ids.of(f"options{number}")):
        gr.HTML(f'<span class="fk-facts">Reference {number}</span>', elem_classes="fk-name")
        use_size = gr.Button(
            "Use its size",
            elem_id=ids.of(f"use_size{number}"),
            size="sm",
            min_width=80,
            tooltip="Set Width and Height from it",
        )
        move = None
        if number > FIRST_ROW:
            move = gr.Button(
                f"⇄ {number - 1}", elem_id=ids.of(f"move{number}"), size="sm", min_width=40, tooltip="Move it up"
            )
        mute = gr.Checkbox(
            default_of(f"mute_{name}"),
            label="Mute",
            elem_id=ids.of(f"mute{number}"),
            min_width=70,
            scale=0,
            elem_classes="fk-check",
        )
        mute.do_not_save_to_config = True  # ui-config.json names controls by their label, and four have this one
    return SlotOptions(name, use_size, mute, move)
