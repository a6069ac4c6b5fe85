"""How much VRAM a sampling needs, in parts: one model for what a host reserves and for what its page says."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lib_fluxkontext.caching.kv_store import STREAMED_BLOCKS, Place, kv_bytes
from lib_fluxkontext.geometry import PATCH
from lib_fluxkontext.sampling.factory import reference_kv_config
from lib_fluxkontext.settings import KontextSettings

GIB = 2**30

HOST_MEMORY_FULL = (
    "Keys and values of the references fit neither on the card nor into main memory: the references run in every "
    "computed step."
)

FORGE_ACTIVATION_FACTOR = 1.28 * 16384
"""Bytes of activations per latent pixel and byte of a number: Forge's own estimate (``KModel.memory_required``)."""

FORGE_MINIMUM_FREE = GIB
"""Bytes that Forge keeps free of weights unless its GPU Weights say otherwise (``minimum_inference_memory``)."""

CACHE_BUFFERS = 4
"""Tensors of the image tokens that First Block Cache holds per image while the blocks of a computed step run: the first
block's residual and the rest's from the last computed step, the first block's new residual, and its output."""

FORECAST_BUFFERS = 1
"""What the forecast adds: the rest's change between two computed steps."""

QUANTISATIONS = (
    ("FP16", 2.0),
    ("Q8_0", 1.0625),
    ("Q6_K or Q5_K", 0.82),
    ("Q4_K or NF4, a little less faithful", 0.5625),
)
"""Quantisations that people choose between, and their bytes per parameter (ggml's block sizes); largest first."""

HOST_MARGIN = 2 * GIB
"""Main memory that is left to everything else where keys and values are stored there."""


@dataclass(frozen=True)
class ModelSize:
    """What of a transformer decides its memory.

    Attributes:
        weights: bytes of its weights.
        hidden_size: channels of a token between blocks; FLUX.1's by default.
        blocks: of both kinds.
        dtype_bytes: bytes of a number while computing.
        activation_bytes: per token that runs; None for Forge's own estimate.
    """

    weights: int
    hidden_size: int = 3072
    blocks: int = 57
    dtype_bytes: int = 2
    activation_bytes: float | None = None

    @property
    def token_bytes(self) -> int:
        """Bytes of activations per token that runs."""
        if self.activation_bytes is not None:
            return int(self.activation_bytes)
        return int(FORGE_ACTIVATION_FACTOR * self.dtype_bytes * PATCH**2)


@dataclass(frozen=True)
class SamplingLoad:
    """What runs in one model call.

    Attributes:
        rows: images, both conditionings counted.
        image_tokens: tokens of the generated image.
        reference_tokens: tokens of all references.
    """

    rows: int
    image_tokens: int
    reference_tokens: int = 0


@dataclass(frozen=True)
class VramEstimate:
    """Bytes on the card while sampling, with the whole model on it.

    Attributes:
        weights: of the transformer.
        activations: of the image tokens.
        references: activations of the reference tokens.
        cache: First Block Cache's buffers.
        key_values: of the references; where they are streamed, of the blocks that are there at once.
        free: what Forge keeps free of weights.
        place: where the references' keys and values are stored: in host memory where the card has no room for all.
        host: bytes of main memory that they take there.
    """

    weights: int
    activations: int
    references: int
    cache: int
    key_values: int
    free: int
    place: Place = "device"
    host: int = 0

    @property
    def total(self) -> int:
        """All of it, with what is kept free."""
        return self.weights + self.working + self.free

    @property
    def working(self) -> int:
        """All that sampling takes beside the weights."""
        return self.activations + self.reserved

    @property
    def reserved(self) -> int:
        """What Forge does not know of and must be asked to reserve."""
        return self.references + self.cache + self.key_values


def estimate_vram(
    model: ModelSize,
    load: SamplingLoad,
    settings: KontextSettings,
    card: int | None = None,
    free: int = FORGE_MINIMUM_FREE,
) -> VramEstimate:
    """Estimate the VRAM of one sampling.

    Args:
        model: the transformer.
        load: what runs at once.
        settings: which caches are at work.
        card: bytes that sampling can have on the card, or None for as many as are needed.
        free: bytes that Forge keeps free of weights.
    """
    rows, references = load.rows, load.reference_tokens
    cache = 0
    if settings.cache_active:
        buffers = CACHE_BUFFERS + FORECAST_BUFFERS * settings.cache_forecast
        cache = buffers * rows * load.image_tokens * model.hidden_size * model.dtype_bytes
    stored_blocks = 0
    if settings.reuse_active and references:
        stored_blocks = reference_kv_config(settings).stored_blocks or model.blocks
    estimate = VramEstimate(
        weights=model.weights,
        activations=rows * load.image_tokens * model.token_bytes,
        references=rows * references * model.token_bytes,
        cache=cache,
        key_values=kv_bytes(references, model.hidden_size, stored_blocks, rows, model.dtype_bytes),
        free=free,
    )
    if card is None or stored_blocks <= STREAMED_BLOCKS or estimate.total <= card:
        return estimate
    streamed = STREAMED_BLOCKS * estimate.key_values // stored_blocks
    return replace(estimate, key_values=streamed, place="host", host=estimate.key_values)


def settings_within_host_memory(
    settings: KontextSettings, estimate: VramEstimate, available: int
) -> tuple[KontextSettings, str | None]:
    """Turn reference reuse down where its keys and values do not fit into main memory either.

    Under First Block Cache the first block's alone remain, which fit on any card.

    Args:
        settings: as asked for.
        estimate: for them.
        available: bytes of main memory that can be had.

    Returns:
        The settings that fit, and a note for the user if they are others.
    """
    if estimate.host <= max(0, available - HOST_MARGIN):
        return settings, None
    return settings.model_copy(update={"reference_refresh": 1 if settings.cache_active else 0}), HOST_MEMORY_FULL


def max_gpu_weights(card: int, estimate: VramEstimate) -> int:
    """Return the highest of Forge's GPU Weights that does not spill, in bytes; what is reserved stays free as well."""
    return max(0, card - max(FORGE_MINIMUM_FREE, estimate.activations))


def fitting_quantisation(
    model: ModelSize, parameters: int, load: SamplingLoad, settings: KontextSettings, card: int, free: int
) -> str | None:
    """Suggest the largest quantisation with which sampling fits, by the same estimate; None where none does.

    Args:
        model: the checkpoint that does not fit.
        parameters: of its transformer.
        load: what runs at once.
        settings: which caches are at work.
        card: bytes of the card.
        free: bytes that Forge keeps free of weights.
    """
    for name, size in QUANTISATIONS:
        weights = int(size * parameters)
        if weights >= 0.9 * model.weights:  # no smaller than what there is
            continue
        if estimate_vram(replace(model, weights=weights), load, settings, card, free).total <= card:
            return name
    return None
