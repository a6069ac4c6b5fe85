"""Recognise LoRAs that are distilled for few steps (Hyper, Turbo and their like) by their names in a prompt.

Names are all that a prompt has. They are compared word by word, so that ``hyperrealistic`` and ``porsche-911-turbo``
are what they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_TAG = re.compile(r"<(?:lora|lyco):([^>]+)>", re.IGNORECASE)
_EXTENSION = re.compile(r"\.(?:safetensors|sft|ckpt|pt|bin)$", re.IGNORECASE)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")

METHODS = frozenset({"hyper", "turbo", "lightning", "schnell", "lcm", "tdd"})
"""Distillations for few steps, as the names of their LoRAs have them: Hyper-SD, FLUX.1-Turbo-Alpha, Lightning, schnell,
latent consistency and target-driven distillation."""

COMPOUNDS = frozenset({"hyperflux", "fluxhyper", "turboflux", "fluxturbo", "hypersd"})
"""Methods and models run together in lower case."""

_MODELS = frozenset({"flux", "dev", "kontext"})
_BETWEEN = frozenset({"1", "2", "d", "f", "s", "lora", *_MODELS})
"""Words that may stand between a model and its method: ``FLUX.1-dev-LoRA-Turbo``, ``dev2schnell``."""
_AFTER = frozenset({"alpha", "beta", "lora", "distill", "distilled", "sd", "comfyui", "fp", "bf", "rank", "v", "unet"})
"""Words that may follow a method; any other makes it an adjective: ``flux-hyper-detailed``."""

REUSED_FEW_STEPS = (
    "A LoRA of the prompt is distilled for few steps, and First Block Cache reused some of them: each one counts, "
    "so compare with the cache off."
)
"""The note of a report."""

MOST_STEPS = 16
"""Of a LoRA that is called distilled; more are steps of its training: ``portrait-2000steps``."""


@dataclass(frozen=True)
class DistilledLora:
    """A LoRA that is distilled for few steps.

    Attributes:
        name: as the prompt has it, without folder and extension.
        steps: for how many, where the name says so, else None.
    """

    name: str
    steps: int | None


def distilled_loras(prompt: str) -> list[DistilledLora]:
    """Return the distilled LoRAs of a prompt, each once; not those of weight 0, which have no effect.

    Args:
        prompt: with tags as Forge writes them: ``<lora:name:0.125>``, ``<lora:name:te=0:unet=1>``.
    """
    found: dict[str, DistilledLora] = {}
    for tag in _TAG.findall(prompt):
        name, *arguments = tag.split(":")
        lora = recognise(name)
        if lora is not None and _weight(arguments) != 0:
            found.setdefault(lora.name, lora)
    return list(found.values())


def recognise(name: str) -> DistilledLora | None:
    """Return a LoRA by its name, or None where the name does not say that it is distilled.

    Args:
        name: with or without folder and extension, in any case.
    """
    stem = _EXTENSION.sub("", re.split(r"[/\\]", name.strip())[-1])
    words = [word.lower() for word in _WORD.findall(stem)]
    steps = _steps(words)
    if steps is None and not any(_is_method(words, at) for at in range(len(words))):
        return None
    return DistilledLora(stem, steps)


def _steps(words: Sequence[str]) -> int | None:
    """Return the number of steps that a name gives: ``8steps``, ``4-step``."""
    for number, word in pairwise(words):
        plain = number.isdigit() and not number.startswith("0")  # training counts with leading zeros
        if word in ("step", "steps") and plain and int(number) <= MOST_STEPS:
            return int(number)
    return None


def _is_method(words: Sequence[str], at: int) -> bool:
    """Whether a word names the distillation of a model, which must stand beside it."""
    if words[at] in COMPOUNDS:
        return True
    if words[at] not in METHODS:
        return False
    following = words[at + 1] if at + 1 < len(words) else None
    if following in _MODELS:
        return True
    if following is not None and following not in _AFTER and not following.isdigit():
        return False
    for word in reversed(words[:at]):
        if word in _MODELS:
            return True
        if word not in _BETWEEN:
            return False
    return False


def _weight(arguments: Sequence[str]) -> float:
    """Return the weight for the transformer, as Forge reads a tag: ``unet=``, the second number, or the first."""
    named = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    positional = [argument for argument in arguments if "=" not in argument]
    texts = (named.get("unet"), *positional[1:2], named.get("te"), *positional[:1])
    chosen = next((text for text in texts if text is not None), "1")
    try:
        return float(chosen)
    except ValueError:
        return 1.0
