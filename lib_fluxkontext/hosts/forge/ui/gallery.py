"""From the result gallery into a slot, to edit a picture again and again, and from the panel back to img2img."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache

from lib_fluxkontext.hosts.forge.ui.element_ids import TITLE
from lib_fluxkontext.hosts.forge.ui.panel import Panel

LAST_SEND_TO_BUTTON = "send_to_extras"
"""Element id, behind the tab, of the gallery's button that ours stand beside."""

NO_PICTURE = "There is no picture in the gallery yet: generate one first."

_CHOSEN = "const chosen = extract_image_from_gallery(gallery);"
"""Forge's own choice: the selected picture, or the first; ``[null]`` from an empty gallery."""


def add_buttons(panel: Panel, gallery: Any) -> None:
    """Put "→ Kontext 1" and "→ Kontext 2" into the row of buttons that is being built, and connect them.

    Args:
        panel: of the same tab.
        gallery: of results, in the same tab.
    """
    controls = panel.controls
    unfold = f"gradioApp().getElementById('{panel.ids.accordion}').onChecked(true)"  # Forge's, on every InputAccordion
    for number in (1, 2):
        button = gr.Button(
            f"→ Kontext {number}",
            elem_id=panel.ids.of(f"to_slot{number}"),
            elem_classes="fk-to-slot",
            size="sm",
            tooltip=f"Use this picture as reference {number} of {TITLE}, and turn that on.",
        )
        slot = controls[f"image{number}"]
        # What would keep the picture from being used is turned off.
        off = [controls[f"mute_image{number}"], *([controls["init_image_as_reference"]] if number == 1 else [])]
        button.click(
            _into_slot_function(slot.GRADIO_CACHE, len(off)),
            js=f"(gallery) => {{ {_CHOSEN} if (chosen[0]) {unfold}; return chosen; }}",
            inputs=[gallery],
            outputs=[slot, controls["enabled"], *off],
            show_progress="hidden",
        )


def connect_img2img(panel: Panel, gallery: Any) -> None:
    """Connect the panel's button to img2img's init image; both tabs are built by now.

    It does what Forge's own button under the gallery does with the picture, and leaves img2img's prompt and settings.
    """
    from modules import infotext_utils

    destination = infotext_utils.paste_fields["img2img"]
    sizes = [component for component, name in destination["fields"] if name in ("Size-1", "Size-2")]

    def to_img2img(chosen: Any) -> Any:
        if not chosen:
            gr.Warning(NO_PICTURE)
            return [gr.update()] * (1 + len(sizes))
        return infotext_utils.send_image_and_dimensions(chosen)

    panel.to_img2img.click(
        to_img2img,
        js=f"(gallery) => {{ {_CHOSEN} if (chosen[0]) switch_to_img2img(); return chosen; }}",
        inputs=[gallery],
        outputs=[destination["init_img"], *sizes],
        show_progress="hidden",
    )


def _into_slot_function(cache: str, switches: int) -> Any:
    def into_slot(chosen: Any) -> list[Any]:
        if not chosen:
            gr.Warning(NO_PICTURE)
            return [gr.update()] * (2 + switches)
        return [_own_file(chosen[0][0], cache), True, *[False] * switches]

    return into_slot


def _own_file(image: Any, cache: str) -> Any:
    """A copy of the very file, so that pixels, transparency and generation data stay as they are.

    The slot keeps it when the picture is deleted from the output folder.
    """
    path = getattr(image, "filename", "")
    return save_file_to_cache(path, cache) if path else image
