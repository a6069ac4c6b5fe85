"""Events of the reference slots: moved, cleared, more of them, and generation data found in a reference."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component
from PIL import Image

from lib_fluxkontext import infotext
from lib_fluxkontext.hosts.forge.ui.generation_data import generation_data
from lib_fluxkontext.hosts.forge.ui.panel import Panel
from lib_fluxkontext.hosts.forge.ui.reference_controls import FIRST_ROW
from lib_fluxkontext.images.decode import to_rgb
from lib_fluxkontext.settings import IMAGE_FIELDS

SLOTS = len(IMAGE_FIELDS)


def connect_slots(panel: Panel) -> None:
    """Connect the slots and the buttons for references under *Advanced*."""
    toolbar = panel.advanced.toolbar
    images: list[Component] = [slot.image for slot in panel.slots.all]
    everything = [*images, *(options.mute for options in toolbar.options)]
    toolbar.swap.click(partial(exchange, 0, 1), inputs=everything, outputs=everything, show_progress="hidden")
    for index, options in enumerate(toolbar.options):
        if options.move is not None:
            move = partial(exchange, index - 1, index)
            options.move.click(move, inputs=everything, outputs=everything, show_progress="hidden")
    moved = panel.slots.moved
    moved.input(
        exchange_dragged,
        inputs=[moved, *everything],
        outputs=everything,
        show_progress="hidden",
        trigger_mode="multiple",
    )
    toolbar.clear.click(clear_references, outputs=images, show_progress="hidden")
    for image in images:
        image.change(
            show_more,
            inputs=images,
            outputs=[panel.slots.more, toolbar.more],
            show_progress="hidden",
            trigger_mode="always_last",
        )
    _connect_restore(panel)


def exchange(first: int, second: int, *values: Any) -> list[Any]:
    """Return the references with two of them in exchanged places, and no change of the others.

    Args:
        first: place of the one, from 0.
        second: place of the other.
        values: what each slot holds, then whether each is muted.
    """
    exchanged: list[Any] = [gr.update()] * len(values)
    for one, other in ((first, second), (second, first)):
        exchanged[one], exchanged[SLOTS + one] = _storable(values[other]), values[SLOTS + other]
    return exchanged


def _storable(image: Any) -> Any:
    """Return an image that gradio can write as PNG, which it does with every image that it is given."""
    return to_rgb(image) if isinstance(image, Image.Image) and image.mode in ("CMYK", "YCbCr", "LAB", "HSV") else image


def exchange_dragged(moved: str, *values: Any) -> list[Any]:
    """Return the references after one was dragged to another slot.

    Args:
        moved: our script's ``"from to count"``, numbers from 1; the count makes each drag another text.
        values: what each slot holds, then whether each is muted.
    """
    numbers = [int(number) - 1 for number in moved.split()[:2] if number.isdigit()]
    if len(numbers) != 2 or not all(0 <= number < SLOTS for number in numbers):
        return [gr.update()] * len(values)
    return exchange(numbers[0], numbers[1], *values)


def clear_references() -> list[None]:
    """Return empty slots."""
    return [None] * SLOTS


def show_more(*images: object) -> list[dict[str, Any]]:
    """Return whether the second row of slots, and of their options, is shown: when the first is full."""
    wanted = all(image is not None for image in images[:FIRST_ROW]) or any(
        image is not None for image in images[FIRST_ROW:]
    )
    return [gr.update(visible=wanted)] * 2


def _connect_restore(panel: Panel) -> None:
    slots = panel.slots
    for slot in slots.all:
        slot.image.upload(
            offer_to_restore,
            inputs=[slot.image],
            outputs=[slots.restore_text, slots.restore_row],
            show_progress="hidden",
        )
    emptied = [slot.image.clear for slot in slots.all]
    for trigger in (slots.restore.click, slots.keep.click, panel.advanced.toolbar.clear.click, *emptied):
        trigger(stop_asking, outputs=[slots.restore_row], show_progress="hidden")


def offer_to_restore(image: object) -> list[Any]:
    """Return the generation data of a reference made with Kontext, and the question; of others no change."""
    data = generation_data(image)
    if f"{infotext.LABELS['enabled']}: True" not in data:
        return [gr.update(), gr.update()]
    return [data, gr.update(visible=True)]


def stop_asking() -> dict[str, Any]:
    """Return the update that hides the question."""
    return gr.update(visible=False)


def register_restore(panel: Panel) -> None:
    """Let Forge restore a reference's settings as its own *paste* button would; before Forge connects those."""
    from modules import infotext_utils

    infotext_utils.register_paste_params_button(
        infotext_utils.ParamBinding(
            paste_button=panel.slots.restore,
            tabname=panel.ids.tab,
            source_text_component=panel.slots.restore_text,
        )
    )
