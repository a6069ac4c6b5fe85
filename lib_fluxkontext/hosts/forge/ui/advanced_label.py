"""The label of *Advanced*: what in it differs from the default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lib_fluxkontext.i18n import translate
from lib_fluxkontext.settings import IMAGE_FIELDS, default_of


def _muted(number: int) -> Callable[[Any], str]:
    return lambda _: translate("reference {number} muted", number=number)


_WORDS: dict[str, Callable[[Any], str]] = {
    **{f"mute_{name}": _muted(number) for number, name in enumerate(IMAGE_FIELDS, 1)},
    "init_image_as_reference": lambda _: translate("init image as reference"),
    "keep_outside_mask": lambda _: translate("outside the mask kept"),
    "sizing": str,
    "half_size": lambda _: translate("half size"),
    "stitch": lambda layout: translate("stitched: {layout}", layout=layout),
    "placement": lambda placement: translate("placement {placement}", placement=placement),
    "hires_references": lambda _: translate("no references in the hires pass"),
    "cache_warmup_steps": lambda steps: translate("warm-up {steps}", steps=steps),
    "cache_max_consecutive": lambda steps: translate("longest run {steps}", steps=steps),
    "cache_compute_last": lambda _: translate("last step computed"),
    "cache_forecast": lambda _: translate("no forecast"),
    "cache_correct": lambda _: translate("corrected"),
    "reference_refresh": lambda steps: translate("references every {steps} steps", steps=steps),
}
"""Setting → its value, other than the default, in words; in the order of the panel."""

ADVANCED_FIELDS: tuple[str, ...] = tuple(_WORDS)


def advanced_label(values: Mapping[str, Any]) -> str:
    """Name what differs: ``"Advanced · half size, warm-up 3"``.

    Args:
        values: at least ``ADVANCED_FIELDS``; None where a number field on the panel is empty.
    """
    differing = [
        word(values[name])
        for name, word in _WORDS.items()
        if values[name] is not None and values[name] != default_of(name)
    ]
    title = translate("Advanced")
    return f"{title} · {', '.join(differing)}" if differing else title
