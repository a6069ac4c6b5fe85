"""Write settings and results as infotext (the generation parameters in an image file), and read settings back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lib_fluxkontext.images.decode import WHITE, Reference
from lib_fluxkontext.presentation import text
from lib_fluxkontext.settings import CHOICES, FIELD_NAMES, IMAGE_FIELDS, KontextSettings, default_of
from lib_fluxkontext.telemetry.records import GenerationReport

LABELS: dict[str, str] = {
    "enabled": "Kontext",
    "sizing": "Kontext sizing",
    "half_size": "Kontext half size",
    "cache": "Kontext cache",
    "cache_threshold": "Kontext cache threshold",
    "cache_warmup_steps": "Kontext cache warm-up",
    "cache_max_consecutive": "Kontext cache longest run",
    "cache_compute_last": "Kontext cache compute last",
    "mute_image1": "Kontext mute 1",
    "mute_image2": "Kontext mute 2",
    "init_image_as_reference": "Kontext init image as reference",
    "hires_references": "Kontext hires references",
    "reference_refresh": "Kontext reference refresh",
    "cache_forecast": "Kontext cache forecast",
    "cache_correct": "Kontext cache correct",
    "mute_image3": "Kontext mute 3",
    "mute_image4": "Kontext mute 4",
    "placement": "Kontext placement",
    "stitch": "Kontext stitch",
    "keep_outside_mask": "Kontext keep outside mask",
}
"""Setting → label in infotext; images have labels of their own."""

ALWAYS_WRITTEN = frozenset(FIELD_NAMES[: FIELD_NAMES.index("cache_compute_last") + 1])
"""Settings that are always written. The others are written where they are not the default, so that infotext stays
short."""

IMAGE_LABEL = "Kontext image"
"""Followed by the reference's number."""

IMAGE_CROP = f"{IMAGE_LABEL} crop"
"""Region of the init image that a reference was cropped to in inpainting "only masked"."""

BACKGROUND = "Kontext background"
"""Colour that transparent references were flattened on; written where it is not white."""

STEP_TIME = "Kontext step time"
STEPS_CACHED = "Kontext steps cached"
VRAM_PEAK = "Kontext VRAM peak"
REPORT = "Kontext report"
"""The whole report as an object, in the API's ``info`` alone."""

Value = bool | int | float | str
"""A setting's value, parsed from infotext."""

_IMAGE_PATTERN = re.compile(r"([0-9a-f]{12}) (\d+)×(\d+)")


def settings_to_infotext(settings: KontextSettings, references: Sequence[Reference]) -> dict[str, str]:
    """Write the settings, and each reference's digest and size in place of the image."""
    fields = {
        label: str(getattr(settings, name))
        for name, label in LABELS.items()
        if name in ALWAYS_WRITTEN or getattr(settings, name) != default_of(name)
    }
    for reference in references:
        number = reference.name.removeprefix("image")
        if number.isdigit():
            fields[f"{IMAGE_LABEL} {number}"] = image_to_infotext(reference)
        if reference.background != WHITE:
            fields[BACKGROUND] = reference.background
    return fields


def strip_own_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy without the fields that this module writes."""
    own = {*LABELS.values(), BACKGROUND, STEP_TIME, STEPS_CACHED, VRAM_PEAK, REPORT}
    return {label: value for label, value in fields.items() if label not in own and not label.startswith(IMAGE_LABEL)}


def infotext_line(fields: Mapping[str, object]) -> str:
    """Join fields: ``"Steps: 20, Size: 512x512"``; quote a value with a comma or colon, as Forge's parser expects."""
    return ", ".join(f"{label}: {_quote(str(value))}" for label, value in fields.items())


def _quote(value: str) -> str:
    needs_quotes = any(character in value for character in ",:\n")
    return json.dumps(value, ensure_ascii=False) if needs_quotes else value


def crop_to_infotext(region: tuple[int, int, int, int]) -> str:
    """Describe a region (left, top, right, bottom) by size and corner: ``"312×312 at 40 80"``."""
    left, top, right, bottom = region
    return f"{right - left}×{bottom - top} at {left} {top}"


def image_to_infotext(reference: Reference) -> str:
    """Identify a reference by digest and size: ``"3fa9c1d20b44 640×480"``."""
    width, height = reference.size
    return f"{reference.digest} {width}×{height}"


def report_to_infotext(report: GenerationReport) -> dict[str, str]:
    """Write the results included in every image's infotext."""
    fields = {STEP_TIME: text.step_time(report), STEPS_CACHED: text.steps_cached(report)}
    if report.memory is not None:
        fields[VRAM_PEAK] = text.memory_peak(report)
    return fields


def parser(name: str) -> Callable[[Mapping[str, object]], Value | None]:
    """Return a function from pasted parameters to the value of one control; None leaves the control as it is."""
    label = LABELS[name]

    def parse(params: Mapping[str, object]) -> Value | None:
        if label not in params and LABELS["enabled"] in params:  # omitted because it was the default
            default: Value = default_of(name)
            return default
        return parse_value(name, params.get(label))

    return parse


def parse_value(name: str, value: object) -> Value | None:
    """Parse one setting; None where it is missing or damaged.

    Booleans need care: Forge would call ``bool("False")``, which is true.
    """
    if value is None:
        return None
    written = str(value)
    number: int | float
    try:
        match default_of(name):
            case bool():
                return {"True": True, "False": False}.get(written)
            case int():
                number = int(float(written))
            case float():
                number = float(written)
            case _:
                return written if written in CHOICES[name] else None
        KontextSettings.from_mapping({name: number})
    except (ValueError, OverflowError):
        return None
    return number


def fill_in_background(params: dict[str, Any]) -> None:
    """Add white, which is not written, to pasted parameters: the user's own setting may be another colour."""
    if LABELS["enabled"] in params:
        params.setdefault(BACKGROUND, WHITE)


def expected_images(params: Mapping[str, object]) -> dict[str, str]:
    """Return the references of pasted parameters: setting → ``"digest W×H"``."""
    images = {}
    for name in IMAGE_FIELDS:
        match = _IMAGE_PATTERN.fullmatch(str(params.get(f"{IMAGE_LABEL} {name[-1]}", "")))
        if match:
            images[name] = match.group(0)
    return images
