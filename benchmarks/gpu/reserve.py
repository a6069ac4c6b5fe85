"""Whether a reservation that does not fit unloads Forge's model from a real card."""

from __future__ import annotations

import importlib.util

import torch
from torch import nn

from benchmarks.gpu.results import CheckResult

NAME = "Forge reserves and unloads"
SIZE = 4096
"""Rows and columns of the weight that is loaded: 32 MiB in bfloat16."""


def forge_reserves(device: torch.device) -> CheckResult:
    """A model on the card is unloaded where a clone reserves more than is free, and left where it is otherwise."""
    if device.type != "cuda":
        return CheckResult(NAME, None, "needs a CUDA device")
    if importlib.util.find_spec("backend") is None:
        return CheckResult(NAME, None, "no Forge can be imported here: run it with Forge's Python, in Forge's folder")
    return reserve_and_unload(device)


def reserve_and_unload(device: torch.device) -> CheckResult:
    """The same where there are a card and a Forge."""
    from backend import memory_management
    from backend.patcher.unet import UnetPatcher

    from lib_fluxkontext.hosts.forge.runtime.vram import reserve

    model = nn.Module()
    model.diffusion_model = nn.Linear(SIZE, SIZE, bias=False, dtype=torch.bfloat16)
    unet = UnetPatcher(model, load_device=device, offload_device=torch.device("cpu"))
    unet.model_dtype = lambda: torch.bfloat16
    memory_management.load_models_gpu([unet])
    places = []
    for needed in (1, int(memory_management.get_free_memory(device)) + 1):
        clone = unet.clone()
        reserve(clone, needed)
        loaded = any(clone.is_clone(entry.model) for entry in memory_management.current_loaded_models)
        places.append((loaded, model.diffusion_model.weight.device.type))
    passed = places == [(True, device.type), (False, "cpu")]
    shown = ", then ".join(f"{'loaded' if loaded else 'not loaded'} on {place}" for loaded, place in places)
    return CheckResult(NAME, passed, f"with a small and a large reservation: {shown}")
