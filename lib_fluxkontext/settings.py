"""What the user asked for: one model for the panel, the API, the infotext and the command line.

The fields stand in the order of the API's positional arguments. That order is a contract: new fields are appended,
never inserted.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lib_fluxkontext.errors import KontextError

Sizing = Literal["to BFL recommended", "to output", "no change", "fit inside output"]
SIZINGS: tuple[Sizing, ...] = get_args(Sizing)

Placement = Literal["offset", "index", "uxo"]
PLACEMENTS: tuple[Placement, ...] = get_args(Placement)
"""How references get their position ids; see ``references.placement``."""

Stitch = Literal["off", "row", "column", "auto"]
STITCHES: tuple[Stitch, ...] = get_args(Stitch)
"""Whether references become one picture, and how they stand in it; see ``images.stitch``."""

DEFAULT_THRESHOLD = 0.14
"""First Block Cache's default threshold: its relative change of the first block's residual."""


def whole_float_to_int(value: object) -> object:
    """Let 1.0 pass as 1: JavaScript, and so JSON, does not tell them apart."""
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return value


Count = Annotated[int, BeforeValidator(whole_float_to_int)]

_BOOLEAN = "true or false"
_IMAGE = "a base64 text, a data URI, an http(s) URL where Forge allows it, or null"


def _one_of(names: Sequence[str]) -> str:
    return "one of " + ", ".join(f'"{name}"' for name in names)


class KontextSettings(BaseModel):
    """One generation's settings. A field's ``description`` says what is allowed; error messages quote it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)

    enabled: bool = Field(False, description=_BOOLEAN)
    image1: Any = Field(None, description=_IMAGE)
    image2: Any = Field(None, description=_IMAGE)
    sizing: Sizing = Field("to BFL recommended", description=_one_of(SIZINGS))
    half_size: bool = Field(False, description=_BOOLEAN)
    cache: bool = Field(True, description=_BOOLEAN)
    cache_threshold: float = Field(
        DEFAULT_THRESHOLD, ge=0, le=1, allow_inf_nan=False, description="a number from 0 to 1"
    )
    cache_warmup_steps: Count = Field(1, ge=1, description="a whole number, 1 or more")
    cache_max_consecutive: Count = Field(0, ge=0, description="a whole number, 0 (no limit) or more")
    cache_compute_last: bool = Field(False, description=_BOOLEAN)
    mute_image1: bool = Field(False, description=_BOOLEAN)
    mute_image2: bool = Field(False, description=_BOOLEAN)
    init_image_as_reference: bool = Field(False, description=_BOOLEAN)
    hires_references: bool = Field(True, description=_BOOLEAN)
    reference_refresh: Count = Field(0, ge=0, description="a whole number, 0 (off) or more")
    cache_forecast: bool = Field(True, description=_BOOLEAN)
    cache_correct: bool = Field(False, description=_BOOLEAN)
    image3: Any = Field(None, description=_IMAGE)
    image4: Any = Field(None, description=_IMAGE)
    mute_image3: bool = Field(False, description=_BOOLEAN)
    mute_image4: bool = Field(False, description=_BOOLEAN)
    placement: Placement = Field("offset", description=_one_of(PLACEMENTS))
    stitch: Stitch = Field("off", description=_one_of(STITCHES))
    keep_outside_mask: bool = Field(False, description=_BOOLEAN)

    @property
    def cache_active(self) -> bool:
        """Whether First Block Cache can reuse a step: with threshold 0 it never does, so nothing is hooked at all."""
        return self.cache and self.cache_threshold > 0

    @property
    def reuse_active(self) -> bool:
        """Whether the reference K/V cache is read: not where references run in every step and no step is reused."""
        return self.reference_refresh > (0 if self.cache_active else 1)

    @classmethod
    def from_arguments(cls, arguments: Sequence[object]) -> KontextSettings:
        """Validate the positional form, or a single object in first place.

        Args:
            arguments: values in the order of ``FIELD_NAMES`` (missing ones keep their defaults), or a sequence
                whose first item is a mapping of names to values; what follows the mapping is not read.

        Raises:
            KontextError: an unknown name, a wrong type or a value out of range; the message names the field,
                what came and what is allowed.
        """
        if len(arguments) > len(FIELD_NAMES) and not isinstance(arguments[0], Mapping):
            raise KontextError(f"got {len(arguments)} arguments; at most {len(FIELD_NAMES)} are known", "args")
        return cls.from_mapping(by_name(arguments))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> KontextSettings:
        """Validate named values; see ``from_arguments`` for the errors."""
        for name in values:
            if name not in FIELD_NAMES:
                raise KontextError(unknown_name(name), str(name))
        try:
            return cls(**values)
        except ValidationError as error:
            name = str(error.errors()[0]["loc"][0])
            allowed = cls.model_fields[name].description
            raise KontextError(f"got {describe(values[name])}; allowed: {allowed}", name) from None


FIELD_NAMES: tuple[str, ...] = tuple(KontextSettings.model_fields)
IMAGE_FIELDS: tuple[str, ...] = ("image1", "image2", "image3", "image4")
CHOICES: dict[str, tuple[str, ...]] = {"sizing": SIZINGS, "placement": PLACEMENTS, "stitch": STITCHES}
"""Setting → what it can be, of those that are one of several names."""


def by_name(arguments: Sequence[object]) -> Mapping[str, Any]:
    """Return arguments by setting name, whichever form they have (``KontextSettings.from_arguments``); not checked."""
    if arguments and isinstance(arguments[0], Mapping):
        return arguments[0]
    return dict(zip(FIELD_NAMES, arguments, strict=False))


def default_of(name: str) -> Any:
    """Return the default of a setting.

    Raises:
        KeyError: no such setting.
    """
    return KontextSettings.model_fields[name].default


Preset = Literal["Off", "Quality", "Balanced", "Fast", "Fastest"]
PresetValues = dict[str, bool | int | float]
CUSTOM = "Custom"
"""What settings are called that are no preset."""

PRESET_FIELDS: tuple[str, ...] = (
    "cache",
    "cache_threshold",
    "cache_forecast",
    "cache_correct",
    "cache_warmup_steps",
    "cache_max_consecutive",
    "cache_compute_last",
    "reference_refresh",
)

_DEFAULTS: PresetValues = {name: default_of(name) for name in PRESET_FIELDS}

PRESETS: dict[Preset, PresetValues] = {
    "Off": _DEFAULTS | {"cache": False},
    "Quality": _DEFAULTS | {"cache_threshold": 0.08},
    "Balanced": _DEFAULTS,
    "Fast": _DEFAULTS | {"cache_threshold": 0.2, "cache_correct": True, "reference_refresh": 1},
    "Fastest": _DEFAULTS
    | {"cache_threshold": 0.28, "cache_correct": True, "cache_max_consecutive": 6, "reference_refresh": 1},
}
"""Preset → setting → value. *Balanced* is the default of panel and API. *Fast* and *Fastest* use what the literature
has not shown on the real model: reference reuse and correction. *Fastest* reuses at most 6 in a row: by its threshold
alone it would compute most of its few steps near the end."""


def preset_of(values: Mapping[str, Any]) -> str:
    """Return the preset that these settings are, or ``CUSTOM``.

    Args:
        values: at least ``PRESET_FIELDS``; None where a number field on the panel is empty.
    """
    if not values["cache"] and (values["reference_refresh"] or 0) < 2:  # nothing is reused, so the rest has no effect
        return "Off"
    for preset, preset_values in PRESETS.items():
        if all(values[name] == value for name, value in preset_values.items()):
            return preset
    return CUSTOM


def preset_values(name: object) -> PresetValues:
    """Return a preset's settings; its name in capitals or not.

    Raises:
        KontextError: there is no such preset.
    """
    for preset, values in PRESETS.items():
        if isinstance(name, str) and name.lower() == preset.lower():
            return values
    raise KontextError(f"got {describe(name)}; allowed: one of {', '.join(PRESETS)}", "preset")


def describe(value: object, limit: int = 40) -> str:
    """Describe a value so that a person recognises it, short enough for a one-line message."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return f'the text "{value[:limit]}…"' if len(value) > limit else f'the text "{value}"'
        case int() if value.bit_length() > 128:  # Python refuses to write the longest
            return f"a number of {value.bit_length()} bits"
        case int() | float():
            return f"the number {value!r}"
        case Mapping():
            return "an object"
        case list() | tuple():
            return "a list"
    return f"a {type(value).__name__}"


def unknown_name(name: object, allowed: Sequence[str] = FIELD_NAMES) -> str:
    """Say that a name is unknown, which it may have been meant to be, and what is allowed."""
    similar = difflib.get_close_matches(str(name)[:100], allowed, n=1)
    hint = f'did you mean "{similar[0]}"? ' if similar else ""
    return f"unknown name; {hint}allowed: {', '.join(allowed)}"
