"""A suggestion where the prompt has a LoRA that is distilled for few steps. It changes nothing by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lib_fluxkontext.distilled_lora import DistilledLora, distilled_loras
from lib_fluxkontext.hosts.forge.ui.markup import line
from lib_fluxkontext.i18n import translate

FEWEST_STEPS = 8
"""For LoRAs whose name gives no number; most of FLUX.1's are made for 8."""

STEPS_MORE = 2
"""Up to so many more than a LoRA is made for are no reason to speak up."""

LEAST_REFRESH = 2
"""With the cache off, references are reused from this setting on: at 1 they run in every step."""


@dataclass(frozen=True)
class Speed:
    """What the page has at the moment; None where a number field is empty.

    Attributes:
        steps: Forge's.
        cache: whether First Block Cache is on.
        cache_threshold: its threshold; at 0 it is at rest.
        reference_refresh: as in the settings.
        has_references: whether there are any to refresh.
    """

    steps: float | None
    cache: bool
    cache_threshold: float | None
    reference_refresh: float | None
    has_references: bool = True


def lora_hint_html(prompt: str, speed: Speed) -> str:
    """Return the suggestion as HTML; empty without a distilled LoRA, or where nothing is left to suggest.

    Args:
        prompt: without comments.
        speed: what the page has.
    """
    loras = distilled_loras(prompt)
    suggested = _suggest(loras[0], speed) if loras else []
    if not suggested:
        return ""
    return line(
        translate(
            "{name} is distilled for few steps, and each of them counts. Suggested: {settings}; "
            "weight and guidance as its model card says.",
            name=loras[0].name,
            settings=", ".join(suggested),
        )
    )


def has_references(init_image: bool, filled: Sequence[bool], muted: Sequence[bool]) -> bool:
    """Whether a generation would have references.

    Args:
        init_image: whether the init image is one.
        filled: of each slot, whether it holds a picture.
        muted: of each slot, whether that is left out.
    """
    return init_image or any(full and not mute for full, mute in zip(filled, muted, strict=True))


def _suggest(lora: DistilledLora, speed: Speed) -> list[str]:
    """Return what differs from the suggested settings."""
    suggested = []
    if speed.cache and speed.cache_threshold:
        suggested.append(translate("First Block Cache off"))
    if speed.has_references and (speed.reference_refresh or 0) < LEAST_REFRESH:
        suggested.append(translate("references refreshed every {steps} steps", steps=LEAST_REFRESH))
    fewest = lora.steps or FEWEST_STEPS
    if speed.steps is None or not fewest <= speed.steps <= fewest + STEPS_MORE:
        suggested.append(translate("{fewest} to {most} steps", fewest=fewest, most=fewest + STEPS_MORE))
    return suggested
