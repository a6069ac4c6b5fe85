"""The facts under a reference slot, as HTML: the size it will be used at, and what a crop removes."""

from __future__ import annotations

import json
from collections.abc import Mapping

from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.geometry import TOKEN_SIDE
from lib_fluxkontext.hosts.forge.integration import options
from lib_fluxkontext.hosts.forge.lifecycle.inputs import open_source
from lib_fluxkontext.hosts.forge.ui.markup import line
from lib_fluxkontext.i18n import translate
from lib_fluxkontext.images.decode import WHITE, Reference, colour, decode_reference
from lib_fluxkontext.images.sizing import SizePlan, nearest_bfl_size, plan_size
from lib_fluxkontext.infotext import image_to_infotext
from lib_fluxkontext.settings import Sizing

OUTPUT_STEP = TOKEN_SIDE
OUTPUT_MIN, OUTPUT_MAX = 64, 2048
"""Range of Forge's size sliders, in pixels."""

NOTABLE_CROP = 0.1
"""Share of an image: a crop that removes more is shown as a warning."""

SMALL_CROP = 0.005
"""Share of an image: a crop that removes less is shown without its share, which would be 0 %."""


def slot_facts(
    image: object, name: str, sizing: Sizing, half_size: bool, output: tuple[int, int], muted: bool, replaced: bool
) -> str:
    """Describe a reference; one that would be refused shows the reason here, before a generation starts.

    Args:
        image: what the slot holds, or None.
        name: of the image's setting.
        sizing: how references are sized.
        half_size: whether they are halved.
        output: width and height of the generated image, in pixels.
        muted: whether the reference is not used.
        replaced: whether the init image is used in its place.
    """
    if replaced:
        return line(translate("The init image is reference 1; this slot is not used."), "fk-muted")
    if image is None:
        return line(translate("Empty"), "fk-muted")
    try:
        plan = plan_size(decode_slot(image, name).size, sizing, half_size, output, name)
    except KontextError as error:
        return line(error.reason, "fk-error")
    if muted:
        return line(f"{_size_text(plan)} · {translate('Muted: kept here, not used.')}", "fk-muted")
    crop = _crop_text(plan)
    return line(f"{_size_text(plan)} · {crop}", "fk-warning" if plan.removed_share > NOTABLE_CROP else "")


def output_size(image: object, name: str, sizing: Sizing) -> tuple[int, int] | None:
    """Return width and height for Forge's size sliders from a reference, or None where it cannot be decoded.

    That is BFL's nearest size if references are sized to it, otherwise the image's own, on the sliders' grid.
    """
    try:
        width, height = decode_slot(image, name).size
    except KontextError:
        return None
    if sizing == "to BFL recommended":
        return nearest_bfl_size(width, height)
    scale = min(1.0, OUTPUT_MAX / max(width, height))
    return _on_grid(width * scale), _on_grid(height * scale)


def decode_slot(image: object, name: str, background: str = WHITE) -> Reference:
    """Decode what a slot holds; see ``decode_reference``, also for the errors."""
    return decode_reference(open_source(image, name), name, background)


def missing_images(expected: str, images: Mapping[str, object]) -> str:
    """Name the references of pasted parameters that are not in their slots, as HTML; empty where none is missing.

    Args:
        expected: JSON of setting name → ``"digest W×H"``, and of ``"background"``; or an empty text.
        images: setting name → what its slot holds.
    """
    try:
        identifiers = json.loads(expected or "{}")
        background = colour(identifiers.pop("background", WHITE))
    except ValueError:
        return ""
    lines = []
    for name, identifier in identifiers.items():
        if _identify(images.get(name), name, background) != identifier:
            digest, _, size = str(identifier).partition(" ")
            text = translate(
                "Reference {number} of the pasted parameters is missing: a {size} picture, content hash {digest}.",
                number=name[-1:],
                size=size,
                digest=digest,
            )
            lines.append(line(text, "fk-error"))
    return "".join(lines)


def _identify(image: object, name: str, background: str) -> str | None:
    """Return a slot's digest and size, or None where it is empty or cannot be decoded."""
    if image is None:
        return None
    try:
        return image_to_infotext(decode_slot(image, name, background))
    except KontextError:
        return None


def _size_text(plan: SizePlan) -> str:
    sizes = f"{plan.source[0]}×{plan.source[1]} → {plan.target[0]}×{plan.target[1]}"
    return translate("{sizes}, {count} tokens", sizes=sizes, count=f"{plan.tokens:,}")


def _crop_text(plan: SizePlan) -> str:
    left, top, right, bottom = plan.removed
    sides = (
        (left, translate("{count} px left", count=left)),
        (top, translate("{count} px top", count=top)),
        (right, translate("{count} px right", count=right)),
        (bottom, translate("{count} px bottom", count=bottom)),
    )
    removed_sides = ", ".join(text for pixels, text in sides if pixels)
    if removed_sides:
        share = plan.removed_share
        if share < SMALL_CROP:
            return translate("Crops {sides}", sides=removed_sides)
        return translate("Crops {share}: {sides}", share=f"{share:.0%}", sides=removed_sides)
    if plan.target != plan.resized:
        background = options.current().background
        padding = translate("white") if background == WHITE else background
        size = f"{plan.resized[0]}×{plan.resized[1]}"
        return translate("Nothing cropped; padded with {colour} around {size}", colour=padding, size=size)
    return translate("Nothing cropped")


def _on_grid(side: float) -> int:
    return int(min(OUTPUT_MAX, max(OUTPUT_MIN, round(side / OUTPUT_STEP) * OUTPUT_STEP)))
