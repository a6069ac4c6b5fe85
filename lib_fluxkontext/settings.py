"""What the user asked for: one model for the panel, the API, the infotext and the command line.

The fields below stand in the order of the API's positional arguments. That order is a contract: new fields
are appended, never inserted.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lib_fluxkontext.errors import KontextError

Sizing = Literal["to BFL recommended", "to output", "no change", "fit inside output"]
SIZINGS: tuple[str, ...] = get_args(Sizing)


def _integral(value: Any) -> Any:
    """Let 1.0 pass as 1: JavaScript, and so JSON, does not tell them apart."""
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return value


Count = Annotated[int, BeforeValidator(_integral)]

_A_SWITCH = "true or false"
_AN_IMAGE = "a base64 text, a data URI, an http(s) URL where Forge allows it, or null"


class KontextSettings(BaseModel):
    """One generation's settings. ``description`` says what is allowed, in the words of the error message."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)

    enabled: bool = Field(False, description=_A_SWITCH)
    image1: Any = Field(None, description=_AN_IMAGE)
    image2: Any = Field(None, description=_AN_IMAGE)
    sizing: Sizing = Field("to BFL recommended", description="one of " + ", ".join(f'"{s}"' for s in SIZINGS))
    half_size: bool = Field(False, description=_A_SWITCH)
    cache: bool = Field(True, description=_A_SWITCH)
    cache_threshold: float = Field(0.14, ge=0, le=1, allow_inf_nan=False, description="a number from 0 to 1")
    cache_warmup_steps: Count = Field(1, ge=1, description="a whole number, 1 or more")
    cache_max_consecutive: Count = Field(0, ge=0, description="a whole number, 0 (no limit) or more")
    cache_compute_last: bool = Field(False, description=_A_SWITCH)
    mute_image1: bool = Field(False, description=_A_SWITCH)
    mute_image2: bool = Field(False, description=_A_SWITCH)
    init_image_as_reference: bool = Field(False, description=_A_SWITCH)
    hires_references: bool = Field(True, description=_A_SWITCH)
    reference_refresh: Count = Field(0, ge=0, description="a whole number, 0 (off) or more")
    cache_forecast: bool = Field(True, description=_A_SWITCH)
    cache_correct: bool = Field(False, description=_A_SWITCH)

    @property
    def cache_active(self) -> bool:
        """Whether any step could be reused: threshold 0 never reuses, so nothing is hooked at all."""
        return self.cache and self.cache_threshold > 0

    @property
    def reuse_active(self) -> bool:
        """Whether what is kept of the references is ever read: not where they run in every step and none is reused."""
        return self.reference_refresh > (0 if self.cache_active else 1)

    @classmethod
    def from_arguments(cls, arguments: Sequence[Any]) -> KontextSettings:
        """Read the positional form, or a single object in first place.

        Args:
            arguments: values in the order of ``FIELD_NAMES`` (missing ones keep their defaults), or a sequence
                whose first item is a mapping of names to values; what follows the mapping is not read.

        Raises:
            KontextError: an unknown name, a wrong type or a value out of range; the message names the field,
                what came and what is allowed.
        """
        if arguments and isinstance(arguments[0], Mapping):
            return cls.from_mapping(arguments[0])
        if len(arguments) > len(FIELD_NAMES):
            raise KontextError(f"got {len(arguments)} arguments; at most {len(FIELD_NAMES)} are known", "args")
        return cls.from_mapping(dict(zip(FIELD_NAMES, arguments, strict=False)))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> KontextSettings:
        """Validate named values; see ``from_arguments`` for the errors."""
        for name in values:
            if name not in FIELD_NAMES:
                raise KontextError(_unknown(name), str(name))
        try:
            return cls(**values)
        except ValidationError as error:
            name = str(error.errors()[0]["loc"][0])
            allowed = cls.model_fields[name].description
            raise KontextError(f"got {describe(values[name])}; allowed: {allowed}", name) from None


FIELD_NAMES: tuple[str, ...] = tuple(KontextSettings.model_fields)
IMAGE_FIELDS: tuple[str, str] = ("image1", "image2")


Preset = Literal["Off", "Quality", "Balanced", "Fast"]
CUSTOM = "Custom"

_CAREFUL: dict[str, Any] = {
    "cache": True,
    "cache_threshold": 0.14,
    "cache_forecast": True,
    "cache_correct": False,
    "cache_warmup_steps": 1,
    "cache_max_consecutive": 0,
    "cache_compute_last": False,
    "reference_refresh": 0,
}

PRESETS: dict[Preset, dict[str, Any]] = {
    "Off": _CAREFUL | {"cache": False},
    "Quality": _CAREFUL | {"cache_threshold": 0.08},
    "Balanced": _CAREFUL,
    "Fast": _CAREFUL | {"cache_threshold": 0.2, "cache_correct": True, "reference_refresh": 1},
}
"""Setting name → value. *Balanced* is the default of panel and API; *Fast* alone has what the literature has not shown
on the real model: reference reuse and correction."""

PRESET_FIELDS: tuple[str, ...] = tuple(PRESETS["Off"])


def preset_of(values: Mapping[str, Any]) -> str:
    """The preset that these settings are, or ``CUSTOM``. With nothing reused the rest does not matter."""
    if not values["cache"] and (values["reference_refresh"] or 0) < 2:
        return "Off"
    return next(
        (name for name, preset in PRESETS.items() if all(values[one] == preset[one] for one in PRESET_FIELDS)), CUSTOM
    )


def describe(value: Any, limit: int = 40) -> str:
    """A value as a person would recognise it, short enough for a one-line message."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return f'the text "{value[:limit]}…"' if len(value) > limit else f'the text "{value}"'
        case int() | float():
            return f"the number {value!r}"
        case Mapping():
            return "an object"
        case list() | tuple():
            return "a list"
    return f"a {type(value).__name__}"


def _unknown(name: Any) -> str:
    near = difflib.get_close_matches(str(name), FIELD_NAMES, n=1)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    return f"unknown name; {hint}allowed: {', '.join(FIELD_NAMES)}"
