"""Presets are settings like any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib_fluxkontext.settings import CUSTOM, DEFAULT_THRESHOLD, PRESET_FIELDS, PRESETS, KontextSettings, preset_of

LOCALIZATIONS = Path(__file__).resolve().parents[2] / "localizations"


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_and_recognised(name: str) -> None:
    assert tuple(PRESETS[name]) == PRESET_FIELDS
    KontextSettings.from_mapping(PRESETS[name])
    assert preset_of(PRESETS[name]) == name


def test_the_defaults_are_balanced() -> None:
    assert preset_of(KontextSettings().model_dump()) == "Balanced"


@pytest.mark.parametrize("language", sorted(path.stem for path in LOCALIZATIONS.glob("*.json")))
def test_the_sliders_explanation_names_the_default_in_every_language(language: str) -> None:
    translations = json.loads((LOCALIZATIONS / f"{language}.json").read_text(encoding="utf-8"))
    english, translation = next(item for item in translations.items() if item[0].startswith("0 never reuses"))
    assert f"{DEFAULT_THRESHOLD:g} balanced" in english
    assert f"{DEFAULT_THRESHOLD:g}" in translation.replace(",", ".")


def test_what_is_no_preset_is_custom_and_off_is_off_whatever_stands_beside_it() -> None:
    assert preset_of(PRESETS["Fast"] | {"cache_threshold": 0.21}) == CUSTOM
    for refresh in (0, 1):  # in every step
        assert preset_of(PRESETS["Quality"] | {"cache": False, "reference_refresh": refresh}) == "Off"
    assert preset_of(PRESETS["Quality"] | {"cache": False, "reference_refresh": 2}) == CUSTOM
