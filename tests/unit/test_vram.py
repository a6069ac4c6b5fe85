"""The one VRAM model: its parts, what it advises, and what a host reserves by it."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from lib_fluxkontext.sampling.vram import (
    CACHE_BUFFERS,
    FORECAST_BUFFERS,
    GIB,
    ModelSize,
    SamplingLoad,
    VramEstimate,
    estimate_vram,
    max_gpu_weights,
    smaller_quantisation,
)
from lib_fluxkontext.settings import KontextSettings

FLUX = ModelSize(weights=12 * GIB)
OFF = KontextSettings(cache=False)
REUSE = KontextSettings(cache=False, reference_refresh=4)
TWO_REFERENCES = SamplingLoad(rows=1, image_tokens=4096, reference_tokens=8192)


def estimate(settings: KontextSettings, load: SamplingLoad = TWO_REFERENCES, card: int | None = None) -> VramEstimate:
    return estimate_vram(FLUX, load, settings, card)


def test_memory_in_parts() -> None:
    plain = estimate(REUSE, SamplingLoad(1, 4096))
    two = estimate(OFF)
    reuse = estimate(REUSE)
    assert plain.key_values == plain.references == plain.cache == 0
    assert two.references == 2 * two.activations
    assert reuse.key_values == pytest.approx(5.34 * GIB, rel=0.01)
    first_block_alone = KontextSettings(reference_refresh=1)
    assert estimate(first_block_alone).key_values == reuse.key_values // 57
    assert reuse.total - two.total == reuse.key_values
    doubled = estimate(REUSE, SamplingLoad(2, 4096, 8192))
    assert doubled.total - doubled.weights - GIB == 2 * (reuse.total - reuse.weights - GIB)


def test_first_block_cache_and_its_forecast_have_buffers() -> None:
    one_tensor = 4096 * 3072 * 2
    assert estimate(KontextSettings(cache_forecast=False)).cache == CACHE_BUFFERS * one_tensor
    assert estimate(KontextSettings()).cache == (CACHE_BUFFERS + FORECAST_BUFFERS) * one_tensor
    assert estimate(OFF).cache == estimate(KontextSettings(cache_threshold=0)).cache == 0


def test_what_is_reserved_is_what_forge_does_not_know_of() -> None:
    needed = estimate(KontextSettings(reference_refresh=2))
    assert needed.reserved == needed.references + needed.cache + needed.key_values
    assert needed.total == needed.weights + needed.activations + needed.reserved + needed.free


def test_keys_and_values_are_streamed_where_the_card_has_no_room_for_all() -> None:
    assert estimate(REUSE, card=24 * GIB) == estimate(REUSE)
    tight = estimate(REUSE, card=16 * GIB)
    assert tight.place == "host"
    assert tight.key_values < 0.2 * GIB
    assert tight.total < 16 * GIB
    assert estimate(OFF, card=8 * GIB).place == "device"
    assert estimate(KontextSettings(reference_refresh=1), card=8 * GIB).place == "device"


def test_gpu_weights_leave_what_forge_itself_needs() -> None:
    """Room for references is reserved when they run: were it left twice, weights would be moved for nothing."""
    usual, large = estimate(REUSE), estimate(OFF, SamplingLoad(1, 16384))
    assert max_gpu_weights(12 * GIB, usual) == 11 * GIB  # Forge's own default
    assert max_gpu_weights(12 * GIB, large) == 12 * GIB - large.activations < 10 * GIB
    assert max_gpu_weights(GIB // 2, usual) == 0


@pytest.mark.parametrize(
    ("card", "name"), [(24, "FP16"), (16, "Q8_0"), (12, "Q8_0"), (11.6, "Q8_0"), (8, "Q6_K"), (6, "Q4_K")]
)
def test_advice_by_the_card(card: float, name: str) -> None:
    assert str(smaller_quantisation(int(card * GIB), bytes_per_parameter=4)).startswith(name)


@pytest.mark.parametrize(
    ("bytes_per_parameter", "name"), [(2.0, "Q8_0"), (1.0625, "Q6_K"), (1.0, "Q6_K"), (0.7, "Q4_K"), (0.57, "None")]
)
def test_what_is_advised_is_smaller_than_what_does_not_fit(bytes_per_parameter: float, name: str) -> None:
    assert str(smaller_quantisation(12 * GIB, bytes_per_parameter)).startswith(name)


class FakeCard:
    """Forge's ``memory_management`` with a card of so many bytes; sizes stand on the models."""

    def __init__(self, total: int, free: int) -> None:
        self.total, self.free = total, free
        self.current_loaded_models: list[Any] = []

    def is_device_cpu(self, device: torch.device) -> bool:
        return device.type == "cpu"

    def get_total_memory(self, device: torch.device) -> int:
        return self.total

    def get_free_memory(self, device: torch.device) -> int:
        return self.free

    def minimum_inference_memory(self) -> int:
        return GIB

    def module_size(self, model: Any, include_device: object = None) -> int:
        return int(model.size)

    def dtype_size(self, dtype: torch.dtype) -> int:
        return dtype.itemsize

    def soft_empty_cache(self) -> None:
        pass


class FakePatcher:
    """A ``UnetPatcher`` of FLUX.1's size."""

    def __init__(self, size: int = 12 * GIB) -> None:
        transformer = nn.Module()
        transformer.double_blocks = nn.ModuleList(nn.Identity() for _ in range(19))
        transformer.single_blocks = nn.ModuleList(nn.Identity() for _ in range(38))
        transformer.hidden_size = 3072
        transformer.computation_dtype = torch.bfloat16
        self.model = SimpleNamespace(size=size, diffusion_model=transformer)
        self.load_device = torch.device("cuda", 0)
        self.extra_preserved_memory_during_sampling = 0

    def memory_required(self, shape: list[int]) -> float:
        return 1.28 * shape[0] * shape[2] * shape[3] * 2 * 16384

    def add_extra_preserved_memory_during_sampling(self, needed: int) -> None:
        self.extra_preserved_memory_during_sampling += needed

    def is_clone(self, other: object) -> bool:
        return other is self


class LoadedEntry:
    """An entry of ``current_loaded_models``."""

    def __init__(self, card: FakeCard, model: FakePatcher) -> None:
        self.card, self.model = card, model

    def model_unload(self) -> None:
        self.card.free += self.model.model.size


def forge_vram(monkeypatch: pytest.MonkeyPatch, card: FakeCard) -> Any:
    """The host's module, on the fake card."""
    monkeypatch.setitem(sys.modules, "backend", SimpleNamespace(memory_management=card))
    monkeypatch.delitem(sys.modules, "lib_fluxkontext.hosts.forge.runtime.vram", raising=False)
    from lib_fluxkontext.hosts.forge.runtime import vram

    monkeypatch.setattr(vram, "memory_management", card)
    return vram


@pytest.mark.parametrize("settings", [OFF, REUSE, KontextSettings(reference_refresh=3)], ids=["off", "reuse", "both"])
@pytest.mark.parametrize("gigabytes", [12, 16, 24])
def test_forge_reserves_by_the_panels_estimate(
    monkeypatch: pytest.MonkeyPatch, settings: KontextSettings, gigabytes: int
) -> None:
    card = FakeCard(total=gigabytes * GIB, free=0)
    reserved = forge_vram(monkeypatch, card).estimate_sampling(FakePatcher(), settings, TWO_REFERENCES)
    assert reserved == estimate(settings, card=gigabytes * GIB)


def test_weights_are_unloaded_only_where_they_leave_too_little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    card, patcher = FakeCard(total=16 * GIB, free=4 * GIB), FakePatcher()
    card.current_loaded_models = [LoadedEntry(card, patcher)]
    vram = forge_vram(monkeypatch, card)
    vram.reserve(patcher, 2 * GIB)
    assert len(card.current_loaded_models) == 1
    vram.reserve(patcher, 2 * GIB)  # 4 GiB reserved, 1 GiB always free: more than the 4 GiB there are
    assert patcher.extra_preserved_memory_during_sampling == 4 * GIB
    assert card.current_loaded_models == []
    assert card.free == 16 * GIB


def test_nothing_is_reserved_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    card, patcher = FakeCard(total=16 * GIB, free=0), FakePatcher()
    card.current_loaded_models = [LoadedEntry(card, patcher)]
    forge_vram(monkeypatch, card).reserve(patcher, 0)
    assert patcher.extra_preserved_memory_during_sampling == 0
    assert len(card.current_loaded_models) == 1
