"""Forge's settings as the extension reads them: bounded, and never worth a generation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.hosts.forge.integration.options import (
    MAX_LOGGED_RUNS,
    MAX_STORE_MIB,
    PREFIX,
    Options,
    background_of,
    read,
)
from lib_fluxkontext.settings import PRESETS, KontextSettings

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=2)
)


def test_without_anything_set_the_panel_begins_with_the_apis_defaults() -> None:
    api = KontextSettings()
    assert read({}) == Options()
    for name, value in Options().panel_defaults().items():
        assert value == getattr(api, name), name


def test_what_is_set_is_read() -> None:
    options = read({
        "flux_kontext_panel_sizing": "no change",
        "flux_kontext_panel_speed": "Fast",
        "flux_kontext_log": False,
        "flux_kontext_log_limit": 500.0,
        "flux_kontext_store_mib": 0,
        "flux_kontext_background": "#F80",
        "samples_save": True,
    })  # fmt: skip
    assert (options.log, options.log_limit, options.store_mib, options.background) == (False, 500, 0, "#ff8800")
    assert isinstance(options.log_limit, int)
    assert options.panel_defaults()["sizing"] == "no change"
    assert PRESETS["Fast"].items() <= options.panel_defaults().items()


@pytest.mark.parametrize(
    ("name", "value"),
    [("panel_sizing", "crop"), ("panel_sizing", ["to output"]), ("panel_half_size", "true"), ("panel_half_size", 1),
     ("panel_speed", "Turbo"), ("panel_speed", None), ("panel_hires_references", {}), ("log", "off"), ("log", 0),
     ("log_limit", 0), ("log_limit", -5), ("log_limit", MAX_LOGGED_RUNS + 1), ("log_limit", 1.5), ("log_limit", True),
     ("log_limit", float("nan")), ("log_limit", "500"), ("log_prompt", "yes"), ("log_prompt", 1), ("store_mib", -1),
     ("store_mib", MAX_STORE_MIB + 1), ("store_mib", float("inf")), ("store_mib", None), ("background", "blurple"),
     ("background", 0xFFFFFF)],
)  # fmt: skip
def test_what_cannot_be_used_is_the_default_and_costs_no_other(name: str, value: Any) -> None:
    valid = "store_mib" if name != "store_mib" else "log_limit"
    assert read({PREFIX + name: value, PREFIX + valid: 7}) == Options(**{valid: 7})


@given(st.fixed_dictionaries({}, optional={PREFIX + name: JSON for name in Options.model_fields}))
def test_whatever_a_hand_wrote_is_read(data: dict[str, Any]) -> None:
    read(data)


def test_a_requests_own_background_is_taken_or_refused_by_name() -> None:
    def ask(background: Any) -> str:
        return background_of(SimpleNamespace(override_settings={"flux_kontext_background": background}))

    assert ask("red") == "#ff0000"
    for wrong in ("blurple", 7, None):
        with pytest.raises(KontextError, match="^flux_kontext_background: got "):
            ask(wrong)
