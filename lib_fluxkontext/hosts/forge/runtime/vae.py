"""References through Forge's VAE: the posterior's mean, cached between generations."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from backend import memory_management
from PIL import Image
from torch import Tensor

from lib_fluxkontext.geometry import VAE_SCALE
from lib_fluxkontext.hooks.patch import patched_attr
from lib_fluxkontext.hosts.forge.runtime.protocols import FirstStageModel, Vae
from lib_fluxkontext.images.decode import Reference
from lib_fluxkontext.images.sizing import SizePlan
from lib_fluxkontext.references.encode import EncodedReferences, encode_references
from lib_fluxkontext.references.latent_cache import LatentCache, UncacheableLatent
from lib_fluxkontext.references.placement import Place, offset_ids


class ReferenceEncoder:
    """Encodes with whatever VAE Forge has loaded; forgets its latents when that becomes another one."""

    def __init__(self) -> None:
        self.latents = LatentCache()
        self._vae: weakref.ref[FirstStageModel] | None = None

    def encode(
        self,
        vae: Vae,
        references: Sequence[Reference],
        plans: Sequence[SizePlan],
        max_bytes: int,
        place: Place = offset_ids,
    ) -> EncodedReferences:
        """Size and encode.

        Args:
            vae: Forge's.
            references: one or more.
            plans: a plan for each.
            max_bytes: of latents that are cached.
            place: gives them their position ids.
        """
        self.latents.resize(max_bytes)
        model = vae.first_stage_model
        if self._vae is None or self._vae() is not model:
            self.latents.clear()
            self._vae = weakref.ref(model)
        # "Never OOM" turns tiling on and off from request to request, and tiles give another latent.
        key = (str(vae.vae_dtype), bool(memory_management.VAE_ALWAYS_TILED))
        return encode_references(references, plans, self.latents, key, partial(encode_mean, vae), place)


def encode_mean(vae: Vae, image: Image.Image) -> Tensor:
    """Encode to the (1, C, h, w) latent that the transformer expects: the posterior's mean, shifted and scaled.

    Forge's ``encode`` samples the posterior from torch's global generator, which would make a cached latent depend on
    history and shift every noise drawn after it. Its ``model_vae_regulation`` would give the mean, but the tiled path
    that Forge falls back to when memory is short ignores it, and Neo has none; so the model's own ``encode`` is
    replaced, for this call, on this instance, and no random number is drawn on any path.

    Raises:
        UncacheableLatent: memory ran out and Forge encoded on tiles; the latent is in it.
        RuntimeError: the latent is not finite.
    """
    model = vae.first_stage_model
    encode = posterior_mean(model)
    calls = 0

    def encode_without_sampling(x: Tensor, regulation: Callable[..., Tensor] | None = None) -> Tensor:
        nonlocal calls
        calls += 1
        return encode(x)

    # The VAE rounds down to whole latent pixels, but Forge's tiling up: the difference would be 0/0.
    whole = (image.width // VAE_SCALE * VAE_SCALE, image.height // VAE_SCALE * VAE_SCALE)
    if image.size != whole:
        image = image.crop((0, 0, *whole))
    with patched_attr(model, "encode", encode_without_sampling):
        latent = vae.encode(encode_pixels(image))
    if not torch.isfinite(latent).all():
        raise RuntimeError("the VAE's encoding is not finite; try another VAE, or its float32")
    latent = model.process_in(latent)
    if calls > 1 and not memory_management.VAE_ALWAYS_TILED:  # memory ran out, and Forge went on with tiles
        raise UncacheableLatent(latent)
    return latent


def posterior_mean(model: FirstStageModel) -> Callable[[Tensor], Tensor]:
    """Return what encodes (B, 3, H, W) pixels in −1…1 to the posterior's mean; ask before ``encode`` is replaced."""
    encode = model.encode
    if "regulation" in inspect.signature(encode).parameters:
        return lambda x: encode(x, lambda posterior: posterior.mean)

    def mean(x: Tensor) -> Tensor:  # Neo's encode leaves no choice; mean and log-variance are the halves of its moments
        moments = model.encoder(x)
        if model.quant_conv is not None:
            moments = model.quant_conv(moments)
        return moments.chunk(2, dim=1)[0]

    return mean


def encode_pixels(image: Image.Image) -> Tensor:
    """Convert RGB to (1, H, W, 3) float32 in 0…1, as Forge's VAE takes it."""
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255.0).unsqueeze(0)


encoder = ReferenceEncoder()
"""Lives as long as the server: the latents are what makes a second seed cheap."""
