"""Tell Forge how much memory references and cache need, so that it splits the model between GPU and host in time.

Forge sizes its split for the picture's tokens alone. With references there are up to four times as many, and what
Forge does not know the driver pushes into shared memory: one step then takes 25 times as long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backend import memory_management

from lib_fluxkontext.caching.kv_store import STREAMED_BLOCKS, Place, kept_bytes
from lib_fluxkontext.caching.reference_kv import ReuseConfig
from lib_fluxkontext.hosts.forge.runtime.adapter import ForgeFluxLayout, computation_dtype, hidden_size
from lib_fluxkontext.settings import KontextSettings

CACHE_BUFFERS = 3
"""Tensors of the picture's tokens that First Block Cache holds for each image: two residuals and a block's output."""

FORECAST_BUFFERS = 2
"""What the forecast adds: a slope, and the step before while it is made."""


@dataclass(frozen=True)
class Demand:
    """What a pass needs beyond what Forge reserves anyway.

    Attributes:
        bytes: on the device while sampling.
        place: where the references' keys and values are kept.
    """

    bytes: int
    place: Place


def demand(unet: Any, settings: KontextSettings, rows: int, image_tokens: int, reference_tokens: int) -> Demand:
    """Bytes to reserve, and where keys and values go: on the GPU if the whole model still fits beside them.

    Args:
        unet: Forge's ``UnetPatcher``.
        settings: which caches are at work.
        rows: images in one model call, both conditionings counted.
        image_tokens: tokens of the picture.
        reference_tokens: tokens of all references.
    """
    transformer = unet.model.diffusion_model
    hidden = hidden_size(transformer)
    item = memory_management.dtype_size(computation_dtype(transformer))
    # Forge's own estimate counts latent pixels, of which a token has 2×2.
    needed = unet.memory_required([rows, 16, 2, 2 * reference_tokens]) if reference_tokens else 0
    if settings.cache_active:
        buffers = CACHE_BUFFERS + FORECAST_BUFFERS * settings.cache_forecast
        needed += buffers * rows * image_tokens * hidden * item
    if not (settings.reuse_active and reference_tokens):
        return Demand(int(needed), "device")
    all_blocks = len(ForgeFluxLayout().blocks(transformer))
    blocks = ReuseConfig(settings.reference_refresh).kept_blocks or all_blocks
    keys_and_values = kept_bytes(reference_tokens, hidden, blocks, rows, item)
    if blocks <= STREAMED_BLOCKS or _fits_beside_model(unet, needed + keys_and_values, rows, image_tokens):
        return Demand(int(needed + keys_and_values), "device")
    return Demand(int(needed + STREAMED_BLOCKS * keys_and_values // blocks), "host")


def _fits_beside_model(unet: Any, needed: float, rows: int, image_tokens: int) -> bool:
    device = unet.load_device
    if memory_management.is_device_cpu(device):
        return True
    weights = memory_management.module_size(unet.model)
    inference = memory_management.minimum_inference_memory() + unet.memory_required([rows, 16, 2, 2 * image_tokens])
    return weights + inference + needed <= memory_management.get_total_memory(device)


def reserve(unet: Any, needed: int) -> None:
    """Reserve on a clone of the patcher, and make room if the weights already on the GPU leave too little.

    Forge leaves resident weights where they are when a clone asks for more room, so they are unloaded first;
    the loader that runs right after this splits them anew.
    """
    if needed <= 0:
        return
    unet.add_extra_preserved_memory_during_sampling(needed)
    device = unet.load_device
    if memory_management.is_device_cpu(device):
        return
    loaded = memory_management.current_loaded_models
    mine = [index for index, entry in enumerate(loaded) if unet.is_clone(entry.model)]
    others = sum(
        memory_management.module_size(entry.model.model, include_device=device)
        for index, entry in enumerate(loaded)
        if index not in mine
    )
    room = memory_management.get_free_memory(device) + others
    if not mine or room >= memory_management.minimum_inference_memory() + unet.extra_preserved_memory_during_sampling:
        return
    for index in reversed(mine):
        loaded.pop(index).model_unload()
    memory_management.soft_empty_cache()
