"""What every cache counts in: samples, sampler steps, decisions."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TypeAlias

SampleKey: TypeAlias = Hashable
"""Identifies one image under one conditioning. State belongs to a key, never to a place in a batch."""


@dataclass(frozen=True)
class Step:
    """Where in the sampler's schedule a model call is. Second-order samplers make two calls in one step.

    Attributes:
        index: sampler step, from 0.
        last: whether it is the schedule's last.
    """

    index: int
    last: bool = False


@dataclass(frozen=True)
class Decision:
    """Outcome for one sample in one model call.

    Attributes:
        reuse: a cache hit: the stored residual served again.
        distance: mean|r − r₀| / mean|r₀|, or None where nothing was compared.
        cached_references: computed, but with the references' keys and values from an earlier step.
    """

    reuse: bool
    distance: float | None = None
    cached_references: bool = False
