"""Which steps RegionE computes in full, in the edited region, or not at all.

The three stages of Chen et al., arXiv:2510.25590: stabilization (full), region-aware generation (edited tokens, with
full steps in between), smoothing (full).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

AUTHORS_STEPS = 28
"""The step count for which the authors give their settings."""


@dataclass(frozen=True)
class RegionESettings:
    """RegionE's settings; the defaults are the authors' for FLUX.1 Kontext at 28 steps (``script/FluxKontext.sh``).

    Attributes:
        first_steps: full steps of the stabilization stage, 1 or more. The last of them decides the region.
        last_steps: full steps of the smooth stage, 0 or more.
        full_steps: steps, counted from 0, that are computed in full between the two. The authors' "refresh step 16"
            counts from 1.
        threshold: cosine similarity up to which a token is edited.
        morphology: whether to erode and dilate the edited region.
        decay: the adaptive velocity decay cache's γ, one for each step but the first; None computes every region step.
            It belongs to a model and a step count, see ``fit_decay``.
        decay_threshold: how far the accumulated decay may fall below 1 before a region step is computed.
    """

    first_steps: int = 6
    last_steps: int = 2
    full_steps: tuple[int, ...] = (15,)
    threshold: float = 0.93
    morphology: bool = True
    decay: tuple[float, ...] | None = None
    decay_threshold: float = 0.04

    @classmethod
    def scaled(cls, steps: int) -> RegionESettings:
        """Take the authors' stages to another number of steps, in proportion: theirs at 28."""
        first = max(1, round(cls.first_steps * steps / AUTHORS_STEPS))
        last = max(1, round(cls.last_steps * steps / AUTHORS_STEPS))
        full = (round(step * steps / AUTHORS_STEPS) for step in cls.full_steps)
        return cls(first, last, tuple(step for step in full if first < step < steps - last))


class StepKind(Enum):
    """How a step is made."""

    FULL = "full"
    REGION = "region"
    REUSED = "reused"


@dataclass(frozen=True)
class PlannedStep:
    """One step.

    Attributes:
        kind: how it is made.
        target: of a full step: the step to which unedited tokens go from it, the next full one or the end.
        ratio: of a reused step: what the last computed velocity is multiplied by.
    """

    kind: StepKind
    target: int = 0
    ratio: float = 0.0


def plan_steps(sigmas: Sequence[float], settings: RegionESettings) -> list[PlannedStep]:
    """Plan a sampling. Nothing in it depends on the picture.

    The adaptive velocity decay cache takes v_i = γ_i · (1 + σ_i − σ_{i−1}) · v for a region step, v being the velocity
    that was computed last, while the product of these ratios since then stays within ``decay_threshold`` of 1. A ratio
    of 1 or more, and the first region step, are computed. (In the authors' release too, a second reuse in a row
    multiplies v by its own ratio and not by the product.)

    Args:
        sigmas: falling noise levels of all steps and, behind them, of the finished picture.
        settings: whose step numbers fit ``sigmas``.

    Raises:
        ValueError: they do not.
    """
    steps = len(sigmas) - 1
    end = steps - settings.last_steps
    if settings.first_steps < 1 or settings.last_steps < 0 or settings.first_steps > end:
        raise ValueError(f"{settings.first_steps} first and {settings.last_steps} last steps do not fit {steps} steps")
    if any(not settings.first_steps < step < end for step in settings.full_steps):
        raise ValueError(f"full steps {settings.full_steps} must lie between region steps, here before {end}")
    if settings.decay is not None and len(settings.decay) != steps - 1:
        raise ValueError(f"{steps} steps need {steps - 1} values of decay, got {len(settings.decay)}")
    full = [*range(settings.first_steps), *sorted(settings.full_steps), *range(end, steps), steps]
    planned, decayed = [], 1.0
    for step in range(steps):
        if step in full:
            planned.append(PlannedStep(StepKind.FULL, target=next(later for later in full if later > step)))
            decayed = 1.0
            continue
        ratio = _ratio(sigmas, settings.decay, step)
        decayed *= ratio
        if step > settings.first_steps and ratio < 1 and 1 - decayed <= settings.decay_threshold:
            planned.append(PlannedStep(StepKind.REUSED, ratio=ratio))
        else:
            planned.append(PlannedStep(StepKind.REGION))
            decayed = 1.0
    return planned


def fit_decay(velocities: Sequence[Tensor], sigmas: Sequence[float]) -> tuple[float, ...]:
    """Fit γ to uncached samplings by least squares: min Σ ‖v_i − γ_i·(1 + σ_i − σ_{i−1})·v_{i−1}‖².

    The authors publish their γ, but not how they fitted it.

    Args:
        velocities: for each step (pictures, n, C), of any number of pictures.
        sigmas: noise levels of these steps; what stands behind them is not read.

    Returns:
        One value for each step but the first.
    """
    fitted = []
    for step in range(1, len(velocities)):
        before, now = velocities[step - 1].double(), velocities[step].double()
        scale = torch.sum(before * now) / torch.sum(before * before)
        fitted.append(float(scale) / (1 + sigmas[step] - sigmas[step - 1]))
    return tuple(fitted)


def _ratio(sigmas: Sequence[float], decay: Sequence[float] | None, step: int) -> float:
    return 1.0 if decay is None else decay[step - 1] * (1 + sigmas[step] - sigmas[step - 1])
