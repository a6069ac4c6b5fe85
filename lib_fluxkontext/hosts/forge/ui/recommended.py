"""One click to what the authors of FLUX.1 Kontext recommend, and back."""

from __future__ import annotations

from typing import Any

from lib_fluxkontext.hosts.forge.ui.slot_facts import output_size

FORGE_FIELDS = ("sampling", "scheduler", "steps", "cfg_scale", "distilled_cfg_scale", "width", "height")
"""Element ids of Forge's own controls, behind ``txt2img_`` or ``img2img_``."""

RECOMMENDED: dict[str, Any] = {
    "sampling": "Euler",
    "scheduler": "Simple",
    "steps": 20,
    "cfg_scale": 1.0,
    "distilled_cfg_scale": 3.5,
}
"""Beside the size. Black Forest Labs' own pipeline: Euler, guidance 2.5 to 3.5, no CFG."""


def recommended(image1: Any, image2: Any, width: Any, height: Any) -> list[Any]:
    """Values for ``FORGE_FIELDS``; the size is BFL's nearest to the first reference there is, else as it was."""
    size = None
    for name, image in (("image1", image1), ("image2", image2)):
        if size is None and image is not None:
            size = output_size(image, name, "to BFL recommended")
    return [*RECOMMENDED.values(), *(size or (width, height))]
