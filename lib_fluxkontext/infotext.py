"""Settings and results as infotext, and back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lib_fluxkontext.images.decode import WHITE, Reference
from lib_fluxkontext.presentation import text
from lib_fluxkontext.settings import FIELD_NAMES, IMAGE_FIELDS, SIZINGS, KontextSettings
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
}
"""Infotext's name of every setting but the images."""

TABLE = frozenset(FIELD_NAMES[: FIELD_NAMES.index("cache_compute_last") + 1])
"""Written always; what is rarer, only where it is not the default, to keep the infotext short."""

IMAGE_LABEL = "Kontext image"
"""Followed by the reference's number."""

BACKGROUND = "Kontext background"
"""What transparent references were flattened on; only where it was not white. The setting's name in infotext, too."""

STEP_TIME = "Kontext step time"
STEPS_CACHED = "Kontext steps cached"
VRAM_PEAK = "Kontext VRAM peak"
REPORT = "Kontext report"
"""Only in the API's ``info``, as an object: every call, every step, the sums."""

_IMAGE = re.compile(r"([0-9a-f]{12}) (\d+)×(\d+)")


def settings_to_infotext(settings: KontextSettings, references: Sequence[Reference]) -> dict[str, str]:
    """Infotext of the settings, and of each reference its digest and size: the images themselves do not fit."""
    fields = {
        label: str(getattr(settings, name))
        for name, label in LABELS.items()
        if name in TABLE or getattr(settings, name) != KontextSettings.model_fields[name].default
    }
    for reference in references:
        number = reference.name.removeprefix("image")
        if number.isdigit():
            fields[f"{IMAGE_LABEL} {number}"] = image_to_infotext(reference)
        if reference.background != WHITE:
            fields[BACKGROUND] = reference.background
    return fields


def strip_own_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without anything that this module writes."""
    ours = {*LABELS.values(), BACKGROUND, STEP_TIME, STEPS_CACHED, VRAM_PEAK, REPORT}
    return {key: value for key, value in fields.items() if key not in ours and not key.startswith(IMAGE_LABEL)}


def infotext_line(fields: Mapping[str, Any]) -> str:
    """``"Steps: 20, Size: 512x512, …"``; a value with a comma or colon is quoted, as Forge's reader expects."""
    return ", ".join(f"{key}: {_quoted(str(value))}" for key, value in fields.items())


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ",:\n") else value


def image_to_infotext(reference: Reference) -> str:
    """``"3fa9c1d20b44 640×480"``."""
    width, height = reference.size
    return f"{reference.digest} {width}×{height}"


def report_to_infotext(report: GenerationReport) -> dict[str, str]:
    """The three results that every picture carries."""
    fields = {STEP_TIME: text.step_time(report), STEPS_CACHED: text.steps_cached(report)}
    if report.memory is not None:
        fields[VRAM_PEAK] = text.memory_peak(report.memory)
    return fields


def parser(name: str) -> Callable[[Mapping[str, Any]], Any]:
    """A function from pasted parameters to the value of one control; None leaves the control as it is."""
    label = LABELS[name]

    def parse(params: Mapping[str, Any]) -> Any:
        if label not in params and LABELS["enabled"] in params:  # left out because it was the default
            return KontextSettings.model_fields[name].default
        return parse_value(name, params.get(label))

    return parse


def parse_value(name: str, value: Any) -> Any:
    """One setting's value from infotext, or None where it is missing or damaged.

    Booleans need care: Forge would call ``bool("False")``, which is true.
    """
    if value is None:
        return None
    written = str(value)
    default = KontextSettings.model_fields[name].default
    try:
        match default:
            case bool():
                return {"True": True, "False": False}.get(written)
            case int():
                number: Any = int(float(written))
            case float():
                number = float(written)
            case _:
                return written if written in SIZINGS else None
        KontextSettings.from_mapping({name: number})
    except (ValueError, OverflowError):
        return None
    return number


def fill_in_background(params: dict[str, Any]) -> None:
    """White was left out; where the user's own setting is another, pasted parameters must bring it back."""
    if LABELS["enabled"] in params:
        params.setdefault(BACKGROUND, WHITE)


def expected_images(params: Mapping[str, Any]) -> dict[str, str]:
    """Which references pasted parameters were made with: setting name → ``"digest W×H"``."""
    found = {}
    for name in IMAGE_FIELDS:
        match = _IMAGE.fullmatch(str(params.get(f"{IMAGE_LABEL} {name[-1]}", "")))
        if match:
            found[name] = match.group(0)
    return found
