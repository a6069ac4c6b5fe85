"""One call of the model: what the hooks bring to it, and what they learn from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lib_fluxkontext.caching.sample_key import Decision, Step, Stream
from lib_fluxkontext.references.tokens import ReferenceTokens
from lib_fluxkontext.sampling.factory import Caches


class AppendedReferences:
    """Reference tokens as the transformer wants them: moved and converted once, not at every step."""

    def __init__(self, tokens: ReferenceTokens) -> None:
        self.source = tokens
        self._tokens = tokens.tokens
        self._ids = tokens.ids

    @property
    def count(self) -> int:
        """Tokens of all references."""
        return self._tokens.shape[1]

    def release(self) -> None:
        """Hold no copy on the transformer's device any more."""
        self._tokens, self._ids = self.source.tokens, self.source.ids

    def append(self, image: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n, C) and (B, n, 3) or (n, 3) → the same with the references behind.

        Ids become float32: what a host keeps in bfloat16 is exact up to 256, beyond it would not be.

        Raises:
            ValueError: the transformer's tokens are of another width, as those of a Fill checkpoint are.
        """
        if image.shape[-1] != self._tokens.shape[-1]:
            raise ValueError(f"image tokens have {image.shape[-1]} channels, references {self._tokens.shape[-1]}")
        self._tokens = self._tokens.to(image.device, image.dtype)
        self._ids = self._ids.to(ids.device)
        batch = image.shape[0]
        more_ids = self._ids[0] if ids.ndim == 2 else self._ids.expand(batch, -1, -1)
        return (
            torch.cat((image, self._tokens.expand(batch, -1, -1)), dim=1),
            torch.cat((ids.to(torch.float32), more_ids), dim=-2),
        )


@dataclass
class ModelCall:
    """One call of the model: what goes in beside the host's own arguments, and what came of it.

    Attributes:
        streams: one key an image, in batch order.
        step: the sampler step.
        sigmas: (B,) noise levels.
        image_tokens: tokens of the whole picture; a forward on fewer is a tile, and tiles are not cached.
        references: appended to the image tokens, or None.
        caches: what the sampling pass keeps between its steps.
        decisions: filled by the call, one an image; empty where nothing could be reused.
        forwards: how often the transformer ran.
        tiled: whether it ran on something else than the whole picture, as it does where another extension tiles.
    """

    streams: Sequence[Stream]
    step: Step
    sigmas: Tensor
    image_tokens: int
    references: AppendedReferences | None = None
    caches: Caches = field(default_factory=Caches)
    decisions: list[Decision] = field(default_factory=list)
    forwards: int = 0
    tiled: bool = False
