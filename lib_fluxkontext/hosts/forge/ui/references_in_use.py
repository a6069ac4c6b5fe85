"""The references that a generation would use, by what the panel holds: for memory, and for the stitched picture."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from PIL import Image

from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.hosts.forge.ui.markup import line
from lib_fluxkontext.hosts.forge.ui.slot_facts import decode_slot
from lib_fluxkontext.i18n import translate
from lib_fluxkontext.images.decode import Reference
from lib_fluxkontext.images.sizing import SizePlan, plan_size
from lib_fluxkontext.images.stitch import plan_stitch, reference_token_count, stitch_references
from lib_fluxkontext.presentation.data_uri import jpeg_uri
from lib_fluxkontext.settings import IMAGE_FIELDS

FIELDS: tuple[str, ...] = (
    *IMAGE_FIELDS,
    *(f"mute_{name}" for name in IMAGE_FIELDS),
    "init_image_as_reference",
    "sizing",
    "half_size",
    "stitch",
)
"""Settings that decide which references there are, and of what size."""

THUMBNAIL = (640, 112)
"""Largest width and height of the stitched picture on the panel, in pixels."""


def count_tokens(values: Mapping[str, Any], output: tuple[int, int]) -> int:
    """Count the tokens of all references.

    Args:
        values: at least ``FIELDS``.
        output: width and height of the generated image, in pixels.
    """
    plans = [plan for _, plan in _in_use(values, output)]
    try:
        return reference_token_count(plans, values["stitch"])
    except KontextError:  # the generation will be refused
        return 0


def stitched_preview(values: Mapping[str, Any], output: tuple[int, int]) -> str:
    """Show the stitched picture as it will be used, and what it saves, as HTML; empty where nothing is stitched.

    Args:
        values: at least ``FIELDS``.
        output: width and height of the generated image, in pixels.
    """
    if values["stitch"] == "off":
        return ""
    references, plans = zip(*in_use, strict=True) if (in_use := _in_use(values, output)) else ((), ())
    try:
        plan = plan_stitch(plans, values["stitch"])
    except KontextError as error:
        return line(error.reason, "fk-error")
    if plan is None:
        return line(translate("Stitching takes two references or more."), "fk-muted")
    picture = stitch_references(references, plans, plan).image
    picture.thumbnail(THUMBNAIL)
    facts = translate(
        "Stitched: {size}, {count} tokens instead of {separate}",
        size=f"{plan.size[0]}×{plan.size[1]}",
        count=f"{plan.tokens:,}",
        separate=f"{sum(one.tokens for one in plans):,}",
    )
    name = escape(translate("The stitched picture"))
    return f'<img class="fk-stitched" src="{jpeg_uri(picture, quality=85)}" alt="{name}">{line(facts)}'


def _in_use(values: Mapping[str, Any], output: tuple[int, int]) -> list[tuple[Reference, SizePlan]]:
    """Decode and plan what is in the slots and neither muted nor unusable."""
    images = {name: None if values[f"mute_{name}"] else values[name] for name in IMAGE_FIELDS}
    if values["init_image_as_reference"]:  # it is elsewhere on the page, and usually has the output's shape
        images["image1"] = Image.new("RGB", output, "grey")
    found = []
    for name, image in images.items():
        if image is not None:
            try:
                reference = decode_slot(image, name)
                plan = plan_size(reference.size, values["sizing"], values["half_size"], output, name)
            except KontextError:
                continue
            found.append((reference, plan))
    return found
