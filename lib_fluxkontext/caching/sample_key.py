"""What both caches count in: streams and sampler steps."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

Stream = Hashable
"""What a state belongs to: one image under one conditioning, never a place in a batch."""


@dataclass(frozen=True)
class Step:
    """Where in the sampler's schedule a model call lies; second-order samplers make two calls in one step.

    Attributes:
        index: sampler step, from 0.
        last: whether it is the schedule's last.
    """

    index: int
    last: bool = False


@dataclass(frozen=True)
class Decision:
    """What became of one image in one model call.

    Attributes:
        reuse: True if the stored residual serves again.
        distance: mean|r − r₀| / mean|r₀|, or None where nothing was compared.
        references_kept: computed, but on keys and values of the references from an earlier step.
    """

    reuse: bool
    distance: float | None = None
    references_kept: bool = False
