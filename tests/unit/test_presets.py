"""Presets are settings like any other."""

from __future__ import annotations

import pytest

from lib_fluxkontext.settings import CUSTOM, PRESET_FIELDS, PRESETS, KontextSettings, preset_of


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_and_recognised(name: str) -> None:
    assert tuple(PRESETS[name]) == PRESET_FIELDS
    KontextSettings.from_mapping(PRESETS[name])
    assert preset_of(PRESETS[name]) == name


def test_the_defaults_are_balanced() -> None:
    assert preset_of(KontextSettings().model_dump()) == "Balanced"


def test_what_is_no_preset_is_custom_and_off_is_off_whatever_stands_beside_it() -> None:
    assert preset_of(PRESETS["Fast"] | {"cache_threshold": 0.21}) == CUSTOM
    for refresh in (0, 1):  # in every step
        assert preset_of(PRESETS["Quality"] | {"cache": False, "reference_refresh": refresh}) == "Off"
    assert preset_of(PRESETS["Quality"] | {"cache": False, "reference_refresh": 2}) == CUSTOM
