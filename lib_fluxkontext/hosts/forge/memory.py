"""Tell Forge how much memory references and cache need, so that it splits the model between GPU and host in time.

Forge sizes its split for the picture's tokens alone. With references there are up to four times as many, and what
Forge does not know the driver pushes into shared memory: one step then takes 25 times as long.
"""

from __future__ import annotations

from typing import Any

from backend import memory_management

from lib_fluxkontext.hosts.forge.layout import computation_dtype, hidden_size

CACHE_BUFFERS = 3
"""Tensors of the picture's tokens that First Block Cache holds for each image: two residuals and a block's output."""


def bytes_needed(unet: Any, rows: int, image_tokens: int, reference_tokens: int, cached: bool) -> int:
    """Bytes beyond what Forge reserves anyway.

    Args:
        unet: Forge's ``UnetPatcher``.
        rows: images in one model call, both conditionings counted.
        image_tokens: tokens of the picture.
        reference_tokens: tokens of all references.
        cached: whether First Block Cache is at work.
    """
    # Forge's own estimate counts latent pixels, of which a token has 2×2.
    needed = unet.memory_required([rows, 16, 2, 2 * reference_tokens]) if reference_tokens else 0
    if cached:
        transformer = unet.model.diffusion_model
        item = memory_management.dtype_size(computation_dtype(transformer))
        needed += CACHE_BUFFERS * rows * image_tokens * hidden_size(transformer) * item
    return int(needed)


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
