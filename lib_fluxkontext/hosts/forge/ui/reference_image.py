"""A slot's picture. What gradio cannot open goes on to the extension's own decoder, which says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr


class ReferenceImage(gr.Image):
    """gradio's picture, but a damaged file is handed on as its path.

    gradio would raise before any function of ours is called: *Generate* seems dead, and nothing says which picture is
    at fault.
    """

    webui_do_not_create_gradio_pyi_thank_you = True  # Forge's; gradio would write a file beside this one

    def get_block_name(self) -> str:
        return "image"  # the page knows no other

    def preprocess(self, payload: Any) -> Any:
        parent: Any = super()
        try:
            return parent.preprocess(payload)
        except Exception:  # on damaged files Pillow raises exceptions of any type
            return Path(payload.path)
