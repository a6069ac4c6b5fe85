"""A row's fields, each checked alone, so that all its mistakes are reported and not just the first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from lib_fluxkontext.batch.columns import SETTING_COLUMNS
from lib_fluxkontext.batch.row import Lora, RowError
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.job import default_sizing
from lib_fluxkontext.settings import KontextSettings, default_of, describe, preset_values, unknown_name
from lib_fluxkontext.text_values import parse_number

T = TypeVar("T")

MAX_SHOWN_NAME = 60
"""Characters of an unknown column's name that are quoted."""

_MISSING_IN_A_BATCH = {
    "init_image_as_reference": "an init image",
    "keep_outside_mask": "a mask",
    "hires_references": "a hires fix",
}
"""Settings for what Forge has and a manifest cannot say: with any other value than their default they would promise
what nobody does."""


class Checks:
    """What is wrong with one row.

    Attributes:
        errors: in the order in which they were found.
    """

    def __init__(self, line: int) -> None:
        self._line = line
        self.errors: list[RowError] = []

    def add(self, field: str | None, reason: str) -> None:
        """Add a mistake."""
        self.errors.append(RowError(self._line, field, " ".join(reason.split())))

    def get(self, check: Callable[..., T], *arguments: Any) -> T | None:
        """Return what a check returns, or None where it raises a ``KontextError``, which is added."""
        try:
            return check(*arguments)
        except KontextError as error:
            self.add(error.field, error.reason)
            return None

    def names(self, values: Mapping[str, Any], allowed: Sequence[str]) -> None:
        """Add the names that are not allowed."""
        for name in values:
            if name not in allowed:
                self.add(" ".join(name[:MAX_SHOWN_NAME].split()), _unknown(name, tuple(allowed)))

    def texts(self, values: Mapping[str, Any]) -> None:
        """Add the texts that no file and no path can hold."""
        for name, value in values.items():
            if isinstance(value, str) and not value.isprintable():
                if "\0" in value:
                    self.add(name, "has a NUL character in it")
                elif any("\ud800" <= character <= "\udfff" for character in value):
                    self.add(name, "has half a surrogate pair in it, which is no character")


def settings_of(values: Mapping[str, Any], small_model: bool, checks: Checks) -> KontextSettings | None:
    """Return the row's settings, muted references and image fields left out; add what is wrong with them.

    Args:
        values: column → value; a preset's settings are taken where a column does not say otherwise.
        small_model: whether the small model makes the row.
        checks: to add to.
    """
    given = {name: values[name] for name in SETTING_COLUMNS if name in values}
    try:
        typed = tuple((name, type(value), value) for name, value in given.items())
        return _settings(typed, values.get("preset"), small_model)
    except (KontextError, TypeError):  # a list cannot be remembered
        pass
    if "preset" in values:
        checks.get(preset_values, values["preset"])
    for name, value in given.items():
        checks.get(_check_setting, name, value)
    return None


@lru_cache(1024)
def _settings(given: tuple[tuple[str, type, Any], ...], preset: object, small_model: bool) -> KontextSettings:
    """Return validated settings. Types are in the arguments because 1 and true would be remembered as one."""
    values: dict[str, Any] = {name: value for name, _, value in given}
    for name, value in values.items():
        _check_setting(name, value)
    values = {name: value for name, value in values.items() if not name.startswith("mute_")}
    filled = preset_values(preset) if preset is not None else {}
    return KontextSettings.from_mapping({"enabled": True, "sizing": default_sizing(small_model), **filled, **values})


def _check_setting(name: str, value: object) -> None:
    KontextSettings.from_mapping({name: value})
    if name in _MISSING_IN_A_BATCH and value != default_of(name):
        raise KontextError(f"got {describe(value)}; a batch does not have {_MISSING_IN_A_BATCH[name]}", name)


def loras_of(value: object) -> tuple[Lora, ...]:
    """Parse ``"FILE:WEIGHT"``, several by semicolons; without a weight it is 1.

    Raises:
        KontextError: no text, no name, or a weight that is no finite number.
    """
    if value is None:
        return ()
    if not isinstance(value, str):
        raise KontextError(f'got {describe(value)}; allowed: a text such as "a.safetensors:0.8;b.safetensors"', "lora")
    return tuple(_lora(part.strip()) for part in value.split(";") if part.strip())


def _lora(text: str) -> Lora:
    name, colon, weight = text.rpartition(":")
    if not colon or (len(name) == 1 and weight[:1] in ("\\", "/")):  # C:\loras\a.safetensors
        return Lora(text)
    number = parse_number(weight.strip())
    if not name.strip() or isinstance(number, str) or not math.isfinite(number):
        raise KontextError(f"got {describe(text)}; allowed: a name, a colon and a number", "lora")
    return Lora(name.strip(), float(number))


@lru_cache(1024)
def _unknown(name: str, allowed: tuple[str, ...]) -> str:
    return unknown_name(name, allowed)
