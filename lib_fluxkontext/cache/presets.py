"""Named settings of the caches, from the frontier in ``docs/benchmarks.md``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

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

FIELDS: tuple[str, ...] = tuple(PRESETS["Off"])


def preset_of(values: Mapping[str, Any]) -> str:
    """The preset that these settings are, or ``CUSTOM``. With nothing reused the rest does not matter."""
    if not values["cache"] and (values["reference_refresh"] or 0) < 2:
        return "Off"
    return next((name for name, preset in PRESETS.items() if all(values[one] == preset[one] for one in FIELDS)), CUSTOM)
