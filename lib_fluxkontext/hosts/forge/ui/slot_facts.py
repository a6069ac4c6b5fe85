"""What stands under an image slot: its size, the size it will be used at, what the crop removes. Plain HTML."""

from __future__ import annotations

import json
from typing import Any

from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.hosts.forge.integration import options
from lib_fluxkontext.hosts.forge.lifecycle.inputs import open_source
from lib_fluxkontext.hosts.forge.ui.markup import line
from lib_fluxkontext.i18n import translate
from lib_fluxkontext.images.decode import WHITE, colour, decode_reference
from lib_fluxkontext.images.sizing import SizePlan, nearest_bfl_size, plan_size
from lib_fluxkontext.infotext import image_to_infotext
from lib_fluxkontext.settings import Sizing

OUTPUT_STEP = 16
OUTPUT_MIN, OUTPUT_MAX = 64, 2048
"""Range of Forge's size sliders, in pixels."""


def slot_facts(
    image: Any, name: str, sizing: Sizing, half_size: bool, output: tuple[int, int], muted: bool, replaced: bool
) -> str:
    """HTML for one slot; an image that would be refused says why here, before anything runs."""
    if replaced:
        return line(translate("The init image is reference 1; this slot is not used."), "fk-muted")
    if image is None:
        return line(translate("Empty"), "fk-muted")
    try:
        reference = decode_reference(open_source(image, name), name)
        plan = plan_size(reference.size, sizing, half_size, output, name)
    except KontextError as error:
        return line(error.reason, "fk-error")
    facts = line(_size_text(plan), "fk-muted" if muted else "")
    if muted:
        return facts + line(translate("Muted: kept here, not used."), "fk-muted")
    return facts + _crop_line(plan)


def output_size(image: Any, name: str, sizing: Sizing) -> tuple[int, int] | None:
    """Width and height for Forge's sliders from a reference, or None where it cannot be read.

    The size of BFL's table if references are sized to it, else the image's own, on the sliders' grid and range.
    """
    try:
        width, height = decode_reference(open_source(image, name), name).size
    except KontextError:
        return None
    if sizing == "to BFL recommended":
        return nearest_bfl_size(width, height)
    scale = min(1.0, OUTPUT_MAX / max(width, height))
    return _on_grid(width * scale), _on_grid(height * scale)


def tokens_of(image: Any, name: str, sizing: Sizing, half_size: bool, output: tuple[int, int]) -> int:
    """Tokens that an image will have as a reference; 0 where it would be refused."""
    try:
        reference = decode_reference(open_source(image, name), name)
        return plan_size(reference.size, sizing, half_size, output, name).tokens
    except KontextError:
        return 0


def missing_images(expected: str, images: dict[str, Any]) -> str:
    """Which of a pasted infotext's references are not in their slots, as HTML; empty where none is missing.

    Args:
        expected: JSON of setting name → ``"digest W×H"``, and of ``"background"``; or an empty text.
        images: setting name → what its slot holds.
    """
    try:
        wanted = json.loads(expected or "{}")
        background = colour(wanted.pop("background", WHITE))
    except ValueError:
        return ""
    lines = []
    for name, mark in wanted.items():
        if _mark_of(images.get(name), name, background) != mark:
            digest, _, size = str(mark).partition(" ")
            what = translate(
                "Reference {number} of the pasted parameters is missing: a {size} picture, content hash {digest}.",
                number=name[-1:],
                size=size,
                digest=digest,
            )
            lines.append(line(what, "fk-error"))
    return "".join(lines)


def _mark_of(image: Any, name: str, background: str) -> str | None:
    if image is None:
        return None
    try:
        return image_to_infotext(decode_reference(open_source(image, name), name, background))
    except KontextError:
        return None


def _size_text(plan: SizePlan) -> str:
    sizes = f"{plan.source[0]}×{plan.source[1]} → {plan.target[0]}×{plan.target[1]}"
    return translate("{sizes}, {count} tokens", sizes=sizes, count=f"{plan.tokens:,}")


def _crop_line(plan: SizePlan) -> str:
    left, top, right, bottom = plan.removed
    places = (
        (left, translate("{count} px left", count=left)),
        (top, translate("{count} px top", count=top)),
        (right, translate("{count} px right", count=right)),
        (bottom, translate("{count} px bottom", count=bottom)),
    )
    sides = ", ".join(words for removed, words in places if removed)
    if sides:
        share = plan.removed_share
        text = translate("Crop removes {sides}", sides=sides)
        if share >= 0.005:
            text = translate("Crop removes {share}: {sides}", share=f"{share:.0%}", sides=sides)
        return line(text, "fk-warning" if share > 0.1 else "")
    if plan.target != plan.resized:
        background = options.current().background
        padding = translate("white") if background == WHITE else background
        size = f"{plan.resized[0]}×{plan.resized[1]}"
        return line(translate("Nothing cropped; padded with {colour} around {size}", colour=padding, size=size))
    return line(translate("Nothing cropped"))


def _on_grid(side: float) -> int:
    return int(min(OUTPUT_MAX, max(OUTPUT_MIN, round(side / OUTPUT_STEP) * OUTPUT_STEP)))
