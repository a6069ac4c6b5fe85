"""Arguments: the table is a contract, and every refusal names the field."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.settings import FIELD_NAMES, KontextSettings

TABLE = [
    ("enabled", False),
    ("image1", None),
    ("image2", None),
    ("sizing", "to BFL recommended"),
    ("half_size", False),
    ("cache", True),
    ("cache_threshold", 0.14),
    ("cache_warmup_steps", 1),
    ("cache_max_consecutive", 0),
    ("cache_compute_last", False),
]


def test_the_argument_table_starts_as_the_contract_says() -> None:
    defaults = KontextSettings()
    assert [(name, getattr(defaults, name)) for name in FIELD_NAMES[: len(TABLE)]] == TABLE


def test_positional_and_named_forms_mean_the_same() -> None:
    values = [True, "AAAA", None, "to output", True, False, 0.3, 2, 4, True]
    named = dict(zip([name for name, _ in TABLE], values, strict=True))
    assert KontextSettings.from_arguments(values) == KontextSettings.from_arguments([named])


def test_arguments_after_the_object_are_ignored() -> None:
    assert KontextSettings.from_arguments([{"enabled": True}, "x", 3]) == KontextSettings(enabled=True)


@pytest.mark.parametrize(
    ("field", "value", "phrases"),
    [
        ("cache_threshold", -1, ["-1", "0 to 1"]),
        ("cache_threshold", "lots", ["lots", "0 to 1"]),
        ("cache_threshold", 1e9, ["1000000000.0", "0 to 1"]),
        ("cache_threshold", float("nan"), ["nan", "0 to 1"]),
        ("cache_threshold", True, ["true", "0 to 1"]),
        ("cache_threshold", None, ["null", "0 to 1"]),
        ("sizing", "crop", ["crop", "to BFL recommended", "fit inside output"]),
        ("enabled", "yes", ["yes", "true or false"]),
        ("enabled", 1, ["1", "true or false"]),
        ("cache_warmup_steps", 0, ["0", "1 or more"]),
        ("cache_warmup_steps", 1.5, ["1.5", "whole number"]),
        ("cache_max_consecutive", -1, ["-1", "0 (no limit)"]),
        ("half_size", [], ["a list", "true or false"]),
    ],
)
def test_a_wrong_value_is_refused_by_name(field: str, value: object, phrases: list[str]) -> None:
    with pytest.raises(KontextError) as caught:
        KontextSettings.from_arguments([{field: value}])
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")
    for phrase in phrases:
        assert phrase in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_suggests_the_known_one() -> None:
    with pytest.raises(KontextError, match='did you mean "cache_threshold"'):
        KontextSettings.from_arguments([{"cache_treshold": 0.1}])


def test_json_numbers_without_a_fraction_count_as_whole() -> None:
    assert KontextSettings.from_arguments([{"cache_warmup_steps": 2.0}]).cache_warmup_steps == 2


@given(
    st.dictionaries(st.text(max_size=12), st.one_of(st.none(), st.text(), st.floats(), st.booleans(), st.integers()))
)
def test_any_object_is_accepted_or_refused_with_one_line(values: dict[str, object]) -> None:
    try:
        KontextSettings.from_mapping(values)
    except KontextError as error:
        assert len(str(error).splitlines()) == 1


@given(st.floats(0, 1))
def test_threshold_zero_alone_turns_the_cache_off(threshold: float) -> None:
    assert KontextSettings(cache_threshold=threshold).cache_active == (threshold > 0)
