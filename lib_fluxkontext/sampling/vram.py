"""Does it fit: memory while sampling, in parts, against what the card has, and what to choose instead."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lib_fluxkontext.caching.kv_store import STREAMED_BLOCKS, kept_bytes

GIB = 2**30
HIDDEN, BLOCKS, ITEM = 3072, 57, 2
"""FLUX.1's channels and blocks, and bytes of a number while computing in half precision."""

TOKEN_BYTES = int(1.28 * 2 * 16384 * 4)
"""Activations of a token: what Forge itself reckons for its four latent pixels (``KModel.memory_required``)."""

FREE = GIB
"""What Forge keeps free of weights unless its GPU Weights say otherwise (``minimum_inference_memory``)."""

ADVICE = (
    (24, "FP16", 2.0),
    (12, "Q8_0", 1.0625),
    (8, "Q6_K or Q5_K", 0.82),
    (0, "Q4_K or NF4, a little less faithful", 0.5625),
)
"""From so many GB of VRAM, which quantisation, and its bytes a parameter; the community's rule of thumb for FLUX.1."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on the card while sampling, the whole model on it.

    Attributes:
        weights: of the transformer.
        activations: of the picture's tokens.
        references: of the reference tokens.
        key_values: kept of the references; streamed, of the blocks that are there at once.
        free: what Forge keeps free of weights.
        streamed: whether keys and values wait in main memory, because the card has no room for all of them.
    """

    weights: int
    activations: int
    references: int
    key_values: int
    free: int = FREE
    streamed: bool = False

    @property
    def total(self) -> int:
        """All of it, with what is kept free."""
        return self.weights + self.activations + self.references + self.key_values + self.free


def estimate(
    weights: int,
    image_tokens: int,
    reference_tokens: int,
    kept_blocks: int = 0,
    rows: int = 1,
    card: int | None = None,
    free: int = FREE,
) -> MemoryEstimate:
    """Reckon.

    Args:
        weights: bytes of the transformer.
        image_tokens: tokens of the picture.
        reference_tokens: tokens of all references.
        kept_blocks: of how many blocks the references' keys and values are kept; ``BLOCKS`` at most.
        rows: images in one model call; CFG above 1 doubles them.
        card: bytes that it has, or None for as many as are needed.
        free: bytes that Forge keeps free of weights.
    """
    needed = MemoryEstimate(
        weights=weights,
        activations=rows * image_tokens * TOKEN_BYTES,
        references=rows * reference_tokens * TOKEN_BYTES,
        key_values=kept_bytes(reference_tokens, HIDDEN, kept_blocks, rows, ITEM),
        free=free,
    )
    if card is not None and reference_tokens and kept_blocks > STREAMED_BLOCKS and needed.total > card:
        return replace(needed, key_values=needed.key_values * STREAMED_BLOCKS // kept_blocks, streamed=True)
    return needed


def gpu_weights(card: int, needed: MemoryEstimate) -> int:
    """What Forge's GPU Weights should be at most, in bytes: for references the extension asks for room itself."""
    return max(0, card - max(FREE, needed.activations))


def advice(card: int, bytes_a_parameter: float) -> str | None:
    """What to choose instead of a checkpoint that does not fit, or None where it is as small as they come.

    Args:
        card: its bytes; cards have a little less than their name says.
        bytes_a_parameter: of the checkpoint.
    """
    smaller = (name for size, name, each in ADVICE if card >= (size - 0.6) * GIB and each < 0.9 * bytes_a_parameter)
    return next(smaller, None)
