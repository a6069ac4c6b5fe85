"""Latents → tokens, as Flux's transformer packs them, with the position ids that ``placement`` gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_fluxkontext.geometry import PATCH, latent_grid
from lib_fluxkontext.references.placement import Place, offset_ids


@dataclass(frozen=True)
class ReferenceTokens:
    """All references of one generation, ready to be appended to the image tokens.

    Attributes:
        tokens: (1, N, C·4) packed latents, or (B, N, C·4) where each picture of a batch has references of its own.
        ids: (1, N, 3) float32 position ids: plane, row, column. Not bfloat16, which cannot count past 256.
        counts: tokens of each reference; sums to N.
    """

    tokens: Tensor
    ids: Tensor
    counts: tuple[int, ...]


def pad_to_even(latent: Tensor) -> Tensor:
    """Pad (B, C, h, w) to even h and w, circularly, as Flux pads its own image."""
    pad_h, pad_w = latent.shape[-2] % PATCH, latent.shape[-1] % PATCH
    if not (pad_h or pad_w):
        return latent
    return torch.nn.functional.pad(latent, (0, pad_w, 0, pad_h), mode="circular")


def pack(latent: Tensor) -> Tensor:
    """Pack (B, C, h, w) with even sides into (B, h/2·w/2, C·4), a token's channels in the order (C, row, column)."""
    batch, channels, height, width = latent.shape
    patches = latent.reshape(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, (height // PATCH) * (width // PATCH), channels * PATCH**2)


def reference_tokens(latents: Sequence[Tensor], place: Place = offset_ids) -> ReferenceTokens:
    """Pack and place references.

    Args:
        latents: for each reference (1, C, h, w), already scaled as the model expects; any h and w ≥ 1.
        place: rows and columns in tokens of each → position ids of all.

    Raises:
        ValueError: no latent, or one that is not (1, C, h, w).
    """
    if not latents:
        raise ValueError("no latents")
    if any(latent.ndim != 4 or latent.shape[0] != 1 for latent in latents):
        raise ValueError(f"expected (1, C, h, w), got {[tuple(latent.shape) for latent in latents]}")
    packed = [pack(pad_to_even(latent)) for latent in latents]
    ids = place([latent_grid(latent.shape[-2], latent.shape[-1]) for latent in latents])
    return ReferenceTokens(torch.cat(packed, dim=1), ids, tuple(part.shape[1] for part in packed))


def stack_references(rows: Sequence[ReferenceTokens]) -> ReferenceTokens:
    """Put references of several pictures, (1, N, C·4) each, into one batch, (B, N, C·4).

    Raises:
        ValueError: they are not of the same sizes in the same places.
    """
    first = rows[0]
    if any(row.counts != first.counts or not torch.equal(row.ids, first.ids) for row in rows):
        raise ValueError(f"references of one batch differ in size: {[row.counts for row in rows]} tokens")
    return ReferenceTokens(torch.cat([row.tokens for row in rows]), first.ids, first.counts)


class ReferenceAppender:
    """Appends reference tokens to a transformer's own; moves and converts them once, not at every step.

    Args:
        references: what to append.
    """

    def __init__(self, references: ReferenceTokens) -> None:
        self._source = references
        self._tokens = references.tokens
        self._ids = references.ids

    @property
    def count(self) -> int:
        """Tokens of all references."""
        return self._tokens.shape[1]

    def release(self) -> None:
        """Drop the copy on the transformer's device."""
        self._tokens, self._ids = self._source.tokens, self._source.ids

    def append(self, image: Tensor, ids: Tensor, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Append the references to (B, n, C) image tokens and (B, n, 3) or (n, 3) position ids.

        Ids become float32: what a host holds in bfloat16 is exact up to 256, beyond it would not be.

        Args:
            image: of the rows that run.
            ids: of theirs.
            rows: their places in the whole batch; each gets its own references, where they are not common to all.

        Raises:
            ValueError: the transformer's tokens are of another width, as those of a Fill checkpoint are, or its ids
                have other than three axes, as FLUX.2's have.
        """
        if image.shape[-1] != self._tokens.shape[-1]:
            raise ValueError(f"image tokens have {image.shape[-1]} channels, references {self._tokens.shape[-1]}")
        if ids.shape[-1] != self._ids.shape[-1]:
            raise ValueError(f"position ids have {ids.shape[-1]} axes, references' {self._ids.shape[-1]}")
        self._tokens = self._tokens.to(image.device, image.dtype)
        self._ids = self._ids.to(ids.device)
        batch = image.shape[0]
        reference_ids = self._ids[0] if ids.ndim == 2 else self._ids.expand(batch, -1, -1)
        return (
            torch.cat((image, self._of_rows(rows)), dim=1),
            torch.cat((ids.to(torch.float32), reference_ids), dim=-2),
        )

    def _of_rows(self, rows: Sequence[int]) -> Tensor:
        batch = self._tokens.shape[0]
        if batch == 1:
            return self._tokens.expand(len(rows), -1, -1)
        return self._tokens if list(rows) == list(range(batch)) else self._tokens[list(rows)]
