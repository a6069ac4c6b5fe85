"""What to make, beside the references and the settings: size, steps, seed. One set of limits for every way to ask."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeGuard

from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.geometry import TOKEN_SIDE
from lib_fluxkontext.images.sizing import nearest_bfl_size
from lib_fluxkontext.settings import Sizing, describe

MAX_STEPS = 1000
"""Training timesteps of the scheduler; more sampler steps would only repeat them."""

MAX_GUIDANCE = 100

SMALL_MODEL_NAME = "small_kontext"
"""What the small model is called in generation parameters, and in the keys of a batch's rows."""

SMALL_MODEL_SIZE = "256x256"
"""What the small model was trained on most."""

DEFAULT_SIZE = (1024, 1024)
"""Width and height in pixels where there is no reference to go by."""


@dataclass(frozen=True)
class Job:
    """What to make, beside the references and the settings that both hosts share.

    Attributes:
        prompt: the instruction.
        width: of the picture, in pixels, a multiple of a token's 16.
        height: likewise.
        steps: sampler steps, 1 or more.
        seed: of the start noise, drawn on the CPU so that it is the same everywhere.
        guidance: distilled guidance scale.
        images: pictures to make in one batch; the seed of each is one higher, as in Forge.
    """

    prompt: str
    width: int
    height: int
    steps: int = 20
    seed: int = 0
    guidance: float = 3.5
    images: int = 1

    def __post_init__(self) -> None:
        check_size(self.width, self.height)
        check_steps(self.steps)
        check_seed(self.seed)
        check_guidance(self.guidance)
        if not _is_whole(self.images) or self.images < 1:
            raise KontextError(f"got {describe(self.images)}; allowed: a whole number, 1 or more", "images")


def check_size(width: int, height: int) -> None:
    """Refuse a size that is not made of whole tokens.

    Raises:
        KontextError: a side is under 16 pixels, or no multiple of them.
    """
    for name, side in (("width", width), ("height", height)):
        if side < TOKEN_SIDE or side % TOKEN_SIDE:
            raise KontextError(f"{name} {side} is not a multiple of {TOKEN_SIDE}", "size")


def check_steps(steps: object) -> None:
    """Refuse anything but a whole number of sampler steps, 1 to ``MAX_STEPS``.

    Raises:
        KontextError: it is something else.
    """
    if not _is_whole(steps) or not 1 <= steps <= MAX_STEPS:
        raise KontextError(f"got {describe(steps)}; allowed: a whole number, 1 to {MAX_STEPS}", "steps")


def check_seed(seed: object) -> None:
    """Refuse what does not seed torch's generator: a whole number from 0 to 2⁶³ - 1 does.

    Raises:
        KontextError: it is something else.
    """
    if not _is_whole(seed) or not 0 <= seed < 2**63:
        allowed = f"0 to {2**63 - 1}" if _is_whole(seed) and seed > 0 else "0 or more"
        raise KontextError(f"got {describe(seed)}; allowed: a whole number, {allowed}", "seed")


def check_guidance(guidance: object) -> None:
    """Refuse a guidance scale that is no number from 0 to ``MAX_GUIDANCE``.

    Raises:
        KontextError: it is something else, or not finite.
    """
    if not (_is_whole(guidance) or isinstance(guidance, float)) or not 0 <= guidance <= MAX_GUIDANCE:
        raise KontextError(f"got {describe(guidance)}; allowed: a number from 0 to {MAX_GUIDANCE}", "guidance")


def parse_size(value: object) -> tuple[int, int]:
    """Parse ``"1024x768"`` to width and height in pixels.

    Raises:
        KontextError: it is something else; whether the numbers are allowed, ``check_size`` says.
    """
    match = re.fullmatch(r"(\d{1,5})[x×](\d{1,5})", value) if isinstance(value, str) else None
    if not match:
        raise KontextError(f"got {describe(value)}; allowed: width and height, such as 1024x768", "size")
    return int(match[1]), int(match[2])


def default_size(small_model: bool, first_reference: tuple[int, int] | None) -> tuple[int, int]:
    """Return the width and height that a picture has unless asked otherwise, in pixels.

    Args:
        small_model: whether the project's own small model makes it.
        first_reference: width and height of the first reference; None where there is none.
    """
    if small_model:
        return parse_size(SMALL_MODEL_SIZE)
    return nearest_bfl_size(*first_reference) if first_reference else DEFAULT_SIZE


def default_sizing(small_model: bool) -> Sizing:
    """Return how references are sized unless asked otherwise: the small model knows no size of BFL's."""
    return "to output" if small_model else "to BFL recommended"


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
