"""One call of the model: what the hooks bring to it, and what they learn from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from lib_fluxkontext.caching.caches import Caches
from lib_fluxkontext.caching.sample_key import Decision, SampleKey, Step
from lib_fluxkontext.references.tokens import ReferenceAppender


@dataclass
class ModelCall:
    """One call of the model: inputs beside the host's own arguments, and the outcome.

    Attributes:
        samples: one key per row, in batch order.
        step: the sampler step.
        sigmas: (B,) noise levels.
        image_tokens: tokens of the whole image; a forward on fewer is a tile, and tiles are not cached.
        references: appended to the image tokens, behind those of the host if there are any; or None.
        caches: what the sampling keeps between its steps.
        decisions: filled by the call, one per row; empty where nothing could be reused.
        forwards: how often the transformer ran.
        tiled: whether it ran on something else than the whole image, as it does where another extension tiles.
        skipped: whether the transformer's forward returned without running its blocks: another step cache is in it.
        obstacle: why nothing could be cached in it, for the user, or None.
    """

    samples: Sequence[SampleKey]
    step: Step
    sigmas: Tensor
    image_tokens: int
    references: ReferenceAppender | None = None
    caches: Caches = field(default_factory=Caches)
    decisions: list[Decision] = field(default_factory=list)
    forwards: int = 0
    tiled: bool = False
    skipped: bool = False
    obstacle: str | None = None

    @property
    def hooked(self) -> bool:
        """Whether there is anything to hook."""
        return self.references is not None or self.caches.active
