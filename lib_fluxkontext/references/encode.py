"""Sized references → tokens; encodes only what is not cached."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from lib_fluxkontext.images.decode import Reference
from lib_fluxkontext.images.sizing import SizePlan, apply_size
from lib_fluxkontext.references.latent_cache import LatentCache
from lib_fluxkontext.references.placement import Place, offset_ids
from lib_fluxkontext.references.tokens import ReferenceTokens, reference_tokens, stack_references


@dataclass(frozen=True)
class EncodedReferences:
    """Tokens of all references of a sampling, and what it took to get them.

    Attributes:
        tokens: of all references together.
        seconds: time for sizing and encoding.
        encoded: references that went through the VAE.
        cached: references whose latent was cached.
    """

    tokens: ReferenceTokens
    seconds: float
    encoded: int
    cached: int


def encode_references(
    references: Sequence[Reference],
    plans: Sequence[SizePlan],
    latents: LatentCache,
    vae_key: Hashable,
    encode_mean: Callable[[Image.Image], Tensor],
    place: Place = offset_ids,
) -> EncodedReferences:
    """Size and encode one or more references.

    Args:
        references: decoded images.
        plans: a plan for each.
        latents: latents from before, and for later.
        vae_key: whatever of the VAE changes a latent, its dtype for instance.
        encode_mean: the host's VAE: 8-bit RGB → (1, C, h, w), the posterior's mean, shifted and scaled.
        place: gives them their position ids.
    """
    start = time.perf_counter()
    found, cached = [], 0
    for reference, plan in zip(references, plans, strict=True):

        def encode(reference: Reference = reference, plan: SizePlan = plan) -> Tensor:
            return encode_mean(apply_size(reference.image, plan, reference.background))

        latent, was_cached = latents.get((reference.digest, plan, reference.background, vae_key), encode)
        found.append(latent)
        cached += was_cached
    tokens = reference_tokens(found, place)
    return EncodedReferences(tokens, time.perf_counter() - start, len(found) - cached, cached)


def join_references(rows: Sequence[EncodedReferences]) -> EncodedReferences | None:
    """Put the references of the pictures of a batch together; None where there are none.

    Args:
        rows: of each picture, or nothing. Where all are the same object, they stay (1, N, C·4).

    Raises:
        ValueError: as ``stack_references``.
    """
    if not rows:
        return None
    first = rows[0].tokens
    tokens = first if all(row.tokens is first for row in rows) else stack_references([row.tokens for row in rows])
    return EncodedReferences(
        tokens,
        sum(row.seconds for row in rows),
        sum(row.encoded for row in rows),
        sum(row.cached for row in rows),
    )
