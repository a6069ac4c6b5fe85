"""From the gallery of results into a reference slot, to edit an image again, and from the panel to img2img."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.processing_utils import save_file_to_cache

from lib_fluxkontext.hosts.forge.ui.element_ids import TITLE
from lib_fluxkontext.hosts.forge.ui.panel import Panel
from lib_fluxkontext.hosts.forge.ui.reference_controls import FIRST_ROW

LAST_SEND_TO_BUTTON = "send_to_extras"
"""Element id, behind the tab, of the last of the gallery's own buttons; ours are placed after it."""

NO_PICTURE = "There is no picture in the gallery yet: generate one first."

_CHOSEN = "const chosen = extract_image_from_gallery(gallery);"
"""Forge's own choice: the selected image, or the first; ``[null]`` from an empty gallery."""


def add_buttons(panel: Panel, gallery: Component) -> None:
    """Add "→ Kontext 1" and "→ Kontext 2" to the row of buttons that is being built, and connect them.

    Args:
        panel: of the same tab.
        gallery: of results, in the same tab.
    """
    unfold = f"gradioApp().getElementById('{panel.ids.accordion}').onChecked(true)"  # Forge's, on every InputAccordion
    toolbar = panel.advanced.toolbar
    for number, (slot, options) in enumerate(zip(panel.slots.all[:FIRST_ROW], toolbar.options, strict=False), 1):
        button = gr.Button(
            f"→ Kontext {number}",
            elem_id=panel.ids.of(f"to_slot{number}"),
            elem_classes="fk-to-slot",
            size="sm",
            tooltip=f"Use this picture as reference {number} of {TITLE}, and turn that on.",
        )
        # Controls that would keep the image from being used are turned off.
        blockers = [options.mute, *([panel.advanced.sizing.init_image_as_reference] if number == 1 else [])]
        button.click(
            partial(put_into_slot, slot.image.GRADIO_CACHE, len(blockers)),
            js=f"(gallery) => {{ {_CHOSEN} if (chosen[0]) {unfold}; return chosen; }}",
            inputs=[gallery],
            outputs=[slot.image, panel.enabled, *blockers],
            show_progress="hidden",
        )


def put_into_slot(cache_dir: str, blockers: int, chosen: list[Any] | None) -> list[Any]:
    """Return the slot's image, the panel turned on, and its blockers turned off.

    Args:
        cache_dir: gradio's, of the slot.
        blockers: how many.
        chosen: (image, caption) of the gallery, or empty.
    """
    if not chosen:
        gr.Warning(NO_PICTURE)
        return [gr.update()] * (2 + blockers)
    return [_copy_of_file(chosen[0][0], cache_dir), True, *[False] * blockers]


def connect_img2img(panel: Panel, gallery: Component) -> None:
    """Connect the panel's button to img2img's init image, once both tabs are built.

    It does with the image what Forge's own button under the gallery does, but leaves img2img's prompt and settings.
    """
    from modules import infotext_utils

    destination = infotext_utils.paste_fields["img2img"]
    sizes = [component for component, name in destination["fields"] if name in ("Size-1", "Size-2")]
    panel.advanced.toolbar.to_img2img.click(
        partial(send_to_img2img, len(sizes)),
        js=f"(gallery) => {{ {_CHOSEN} if (chosen[0]) switch_to_img2img(); return chosen; }}",
        inputs=[gallery],
        outputs=[destination["init_img"], *sizes],
        show_progress="hidden",
    )


def send_to_img2img(sizes: int, chosen: list[Any] | None) -> Any:
    """Return img2img's init image and its width and height.

    Args:
        sizes: how many size sliders img2img has.
        chosen: (image, caption) of the gallery, or empty.
    """
    from modules import infotext_utils

    if not chosen:
        gr.Warning(NO_PICTURE)
        return [gr.update()] * (1 + sizes)
    return infotext_utils.send_image_and_dimensions(chosen)


def _copy_of_file(image: Any, cache_dir: str) -> Any:
    """Copy the image's own file, so that pixels, transparency and generation data stay as they are.

    The slot still has it after the image is deleted from the output folder.
    """
    path = getattr(image, "filename", "")
    return save_file_to_cache(path, cache_dir) if path else image
