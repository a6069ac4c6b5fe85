"""Reserve VRAM for references and caches, so that Forge splits the model between GPU and host in time.

Forge sizes its split for the image's tokens alone. With references there are up to four times as many, and memory that
Forge does not know about spills into shared memory: one step then takes 25 times as long.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from backend import memory_management, utils

from lib_fluxkontext.geometry import LATENT_CHANNELS, PATCH
from lib_fluxkontext.hosts.forge.runtime.adapter import ForgeFluxAdapter, computation_dtype, hidden_size
from lib_fluxkontext.hosts.forge.runtime.protocols import UnetPatcher
from lib_fluxkontext.sampling.vram import ModelSize, SamplingLoad, VramEstimate, estimate_vram
from lib_fluxkontext.settings import KontextSettings

PATCHER_ATTRIBUTE = "flux_kontext_patcher"
"""On the model: the clone of its patcher that is, or was last, loaded."""


def estimate_sampling(unet: UnetPatcher, settings: KontextSettings, load: SamplingLoad) -> VramEstimate:
    """Estimate the VRAM of a sampling with the model that Forge has loaded.

    Args:
        unet: Forge's patcher.
        settings: which caches are at work.
        load: what runs at once.
    """
    transformer = unet.model.diffusion_model
    patch = int(getattr(transformer, "patch_size", PATCH))  # FLUX.2's tokens are single latent pixels
    model = ModelSize(
        weights=int(memory_management.module_size(unet.model)),
        hidden_size=hidden_size(transformer),
        blocks=len(ForgeFluxAdapter().blocks(transformer)),
        dtype_bytes=int(memory_management.dtype_size(computation_dtype(transformer))),
        activation_bytes=float(unet.memory_required([1, LATENT_CHANNELS, patch, patch])),
    )
    return estimate_vram(model, load, settings, available_bytes(unet), minimum_free_bytes())


def card_bytes() -> int | None:
    """Return the memory of the card that Forge computes on, or None where it is the CPU, or not known."""
    device = memory_management.get_torch_device()
    return int(memory_management.get_total_memory(device)) if _memory_known(device) else None


def _memory_known(device: torch.device) -> bool:
    """Whether Forge knows the memory of a device; of DirectML's it says 1 GiB, whatever it has."""
    return not memory_management.is_device_cpu(device) and device.type != "privateuseone"


def available_bytes(unet: UnetPatcher) -> int | None:
    """Return what a sampling can have on its card: what is free, this model's weights, and what Forge can unload.

    None without a card, or where that is not known. Other programs have a share of the card, and so has CUDA itself.
    """
    device = unet.load_device
    if not _memory_known(device):
        return None
    return _room_without(memory_management.current_loaded_models, device)


def _room_without(entries: Sequence[memory_management.LoadedModel], device: torch.device) -> int:
    """Return what is free on a device, and would be without these loaded models."""
    resident = sum(_resident_bytes(entry, device) for entry in entries)
    return int(memory_management.get_free_memory(device) + resident)


def _resident_bytes(entry: memory_management.LoadedModel, device: torch.device) -> int:
    """Bytes of a loaded model's weights on a device. Neo counts them itself, and forgets the patcher of some."""
    if hasattr(entry, "model_loaded_memory"):
        return int(entry.model_loaded_memory()) if entry.device == device and entry.model is not None else 0
    return int(memory_management.module_size(entry.model.model, include_device=device))


def gpu_weights_in_megabytes() -> bool:
    """Whether the host's page has a control GPU Weights; Neo has a share in its settings instead."""
    return not hasattr(memory_management, "set_reserved_memory")


def minimum_free_bytes() -> int:
    """Return what Forge keeps free of weights: the card less its GPU Weights."""
    return int(memory_management.minimum_inference_memory())


def reserve(unet: UnetPatcher, needed: int) -> None:
    """Reserve on a clone of the patcher, and make room if the weights already on the GPU leave too little.

    Forge leaves resident weights where they are when a clone asks for more room, so they are unloaded first; the loader
    that runs right after this splits them anew. Neo moves as many as it must by itself.

    Args:
        unet: the clone that will sample.
        needed: bytes beyond what Forge reserves by itself.
    """
    if needed <= 0:
        return
    unet.add_extra_preserved_memory_during_sampling(needed)
    device = unet.load_device
    if not _memory_known(device) or hasattr(unet, "partially_unload"):
        return
    loaded = memory_management.current_loaded_models
    own = [index for index, entry in enumerate(loaded) if unet.is_clone(entry.model)]
    room = _room_without([entry for index, entry in enumerate(loaded) if index not in own], device)
    wanted = minimum_free_bytes() + unet.extra_preserved_memory_during_sampling + _preserved_by_forge(unet)
    if own and room < wanted:
        for index in reversed(own):
            loaded.pop(index).model_unload()
        memory_management.soft_empty_cache()


def keep_loaded(unet: UnetPatcher) -> None:
    """Keep this clone of the patcher alive for as long as its model.

    After a generation only Forge's list of loaded models refers to the clone. Forge takes such an entry for abandoned
    and drops it without moving the weights, as soon as it frees memory for the text encoder or the VAE: neither it nor
    ``reserve`` could unload them after that. Neo's list falls back on the patcher that was cloned.
    """
    if hasattr(unet, "parent"):
        return
    setattr(unet.model, PATCHER_ATTRIBUTE, unet)


def _preserved_by_forge(unet: UnetPatcher) -> int:
    """Bytes that Forge adds when sampling begins (``sampling_prepare``): for ControlNet and online LoRAs."""
    preserved = 0.0
    if unet.controlnet_linked_list is not None:
        preserved += unet.controlnet_linked_list.inference_memory_requirements(unet.model_dtype())
    if unet.has_online_lora():
        element_size = memory_management.dtype_size(computation_dtype(unet.model.diffusion_model))
        preserved += utils.nested_compute_size(unet.lora_patches, element_size=element_size)
    return int(preserved)
