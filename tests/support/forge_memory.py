"""Run by Forge's Python: three generations on a faked card, with Forge's real memory management.

    cd FORGE_ROOT && python forge_memory.py PROJECT_ROOT CASES.json OUT.json --always-cpu …

``load_models_gpu``, ``free_memory``, ``LoadedModel``, the patchers and ``sampling_prepare`` are real. The card, which
only counts, and the weights, which have a size and a place and nothing else, are faked.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

project, cases_path, out_path = sys.argv[1:4]
sys.argv[1:4] = []
sys.path[:0] = [".", "packages_3rdparty", "repositories/huggingface_guess", project]

import torch  # noqa: E402
from backend import memory_management, utils  # noqa: E402
from backend.patcher.base import ModelPatcher  # noqa: E402
from backend.patcher.unet import UnetPatcher  # noqa: E402
from backend.sampling.sampling_function import sampling_cleanup, sampling_prepare  # noqa: E402
from torch import nn  # noqa: E402

from lib_fluxkontext.hosts.forge.runtime import vram  # noqa: E402
from lib_fluxkontext.sampling.vram import SamplingLoad  # noqa: E402
from lib_fluxkontext.settings import KontextSettings  # noqa: E402
from lib_fluxkontext.telemetry.working_memory import WorkingMemory  # noqa: E402

GIB = 2**30
CARD = torch.device("cuda", 0)
HOST = torch.device("cpu")
CUDA_CONTEXT = GIB // 2
"""What CUDA and the desktop take of any card."""

TEXT_ENCODER, VAE = 5 * GIB, GIB // 3
VAE_WORK = 2 * GIB
"""What Forge asks for to encode or decode a megapixel."""


class FakeWeight:
    """A parameter of a size, somewhere."""

    dtype = torch.bfloat16

    def __init__(self, size: int) -> None:
        self.size = size
        self.device = HOST

    @property
    def data(self) -> FakeWeight:
        return self

    def element_size(self) -> int:
        return 1

    def nelement(self) -> int:
        return self.size

    def to(self, device: torch.device) -> FakeWeight:
        self.device = device
        return self


class FakeLayer(nn.Module):
    """A layer whose weight Forge can move by itself."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.parameters_manual_cast = False
        self.weight = FakeWeight(size)

    def named_parameters(self, *_: Any, **__: Any) -> Iterator[tuple[str, FakeWeight]]:
        yield "weight", self.weight

    def to(self, device: Any) -> FakeLayer:
        self.weight.to(device)
        return self


class FakeModel(nn.Module):
    """FLUX.1's 57 blocks, or another model of a size, as Forge's ``KModel`` has them."""

    computation_dtype = torch.bfloat16

    def __init__(self, size: int) -> None:
        super().__init__()
        layers = [FakeLayer(size // 57) for _ in range(57)]
        self.diffusion_model = nn.Module()
        self.diffusion_model.double_blocks = nn.ModuleList(layers[:19])
        self.diffusion_model.single_blocks = nn.ModuleList(layers[19:])
        self.diffusion_model.hidden_size = 3072
        self.diffusion_model.computation_dtype = torch.bfloat16
        self.predictor = None

    def layers(self) -> list[FakeLayer]:
        return [*self.diffusion_model.double_blocks, *self.diffusion_model.single_blocks]

    def named_parameters(self, *_: Any, **__: Any) -> Iterator[tuple[str, FakeWeight]]:
        for index, layer in enumerate(self.layers()):
            yield f"{index}.weight", layer.weight

    def to(self, device: Any) -> FakeModel:
        if isinstance(device, torch.device):
            for layer in self.layers():
                layer.to(device)
        return self

    def memory_required(self, input_shape: list[int]) -> float:
        """As ``KModel`` estimates it."""
        return 1.28 * input_shape[0] * input_shape[2] * input_shape[3] * 2 * 16384

    @property
    def on_card(self) -> int:
        return sum(layer.weight.size for layer in self.layers() if layer.weight.device == CARD)


class FakeCard:
    """A card of a size, and the models there are."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.models: list[FakeModel] = []

    def free(self, device: Any = None, torch_free_too: bool = False) -> Any:
        free = self.total - CUDA_CONTEXT - sum(model.on_card for model in self.models)
        return (free, 0) if torch_free_too else free

    def lost(self) -> list[int]:
        """Bytes of models that are on the card and not in Forge's list."""
        listed = [entry.model.model for entry in memory_management.current_loaded_models]
        return [model.on_card for model in self.models if model.on_card and not any(model is one for one in listed)]


def install(card: FakeCard) -> None:
    """Let Forge believe in the card."""
    memory_management.current_loaded_models.clear()
    memory_management.cpu_state = memory_management.CPUState.GPU
    memory_management.vram_state = memory_management.VRAMState.NORMAL_VRAM
    memory_management.get_free_memory = card.free
    memory_management.get_total_memory = lambda device=None, torch_total_too=False: card.total
    memory_management.get_torch_device = lambda: CARD
    memory_management.is_device_cpu = lambda device: device.type == "cpu"
    memory_management.soft_empty_cache = lambda force=False: None
    memory_management.PIN_SHARED_MEMORY = False
    utils.tensor2parameter = lambda tensor: tensor


def generate(
    card: FakeCard, patchers: dict[str, Any], settings: KontextSettings, reference_tokens: int
) -> dict[str, Any]:
    """One generation as Forge goes through it; ``patchers["unet"]`` is the one that the checkpoint owns."""
    memory_management.load_models_gpu([patchers["text encoder"]])
    if reference_tokens:
        memory_management.load_models_gpu([patchers["vae"]], memory_required=VAE_WORK)
    lost_before = card.lost()
    unet = patchers["unet"].clone()
    load = SamplingLoad(rows=1, image_tokens=4096, reference_tokens=reference_tokens)
    estimate = vram.estimate_sampling(unet, settings, load)
    vram.reserve(unet, estimate.reserved)
    vram.keep_loaded(unet)
    sampling_prepare(unet, torch.empty(1, 16, 128, 128, device="meta"))
    result = {
        "free": card.free(),
        "asked": memory_management.minimum_inference_memory() + estimate.reserved,
        "place": estimate.place,
        "noted": WorkingMemory(estimate.working, estimate.reserved, card.free()).short,
        "resident": unet.model.on_card,
        "lost": lost_before + card.lost(),
    }
    sampling_cleanup(unet)
    memory_management.load_models_gpu([patchers["vae"]], memory_required=VAE_WORK)
    return result


def run(case: dict[str, Any]) -> list[dict[str, Any]]:
    """Three generations in a row."""
    card = FakeCard(int(case["card"] * GIB))
    install(card)
    sizes = {"text encoder": TEXT_ENCODER, "vae": VAE, "unet": int(case["checkpoint"] * GIB)}
    patchers = {}
    for name, size in sizes.items():
        model = FakeModel(size)
        card.models.append(model)
        patcher = UnetPatcher if name == "unet" else ModelPatcher
        patchers[name] = patcher(model, load_device=CARD, offload_device=HOST)
    settings = KontextSettings(reference_refresh=case["refresh"])
    return [generate(card, patchers, settings, tokens) for tokens in case["reference_tokens"]]


def main() -> None:
    """Run all cases."""
    with open(cases_path, encoding="utf-8") as file:
        cases = json.load(file)
    with open(out_path, "w", encoding="utf-8") as file:
        json.dump([run(case) for case in cases], file)


main()
