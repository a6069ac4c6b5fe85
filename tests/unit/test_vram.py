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
    HOST_MEMORY_FULL,
    QUANTISATIONS,
    ModelSize,
    SamplingLoad,
    VramEstimate,
    estimate_vram,
    fitting_quantisation,
    max_gpu_weights,
    settings_within_host_memory,
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
    ("card", "name"), [(32, "FP16"), (24, "Q8_0"), (14, "Q6_K"), (12, "Q4_K"), (11.4, "Q4_K"), (9, "None")]
)
def test_what_is_advised_fits_by_the_same_estimate(card: float, name: str) -> None:
    parameters, settings = 11_900_000_000, KontextSettings()
    whole = ModelSize(weights=4 * parameters)
    advised = fitting_quantisation(whole, parameters, TWO_REFERENCES, settings, int(card * GIB), GIB)
    assert str(advised).startswith(name)
    for quantisation, size in QUANTISATIONS:
        fits = estimate_vram(ModelSize(int(size * parameters)), TWO_REFERENCES, settings).total <= card * GIB
        if quantisation == advised:
            assert fits
            break
        assert not fits


def test_what_is_advised_is_smaller_than_what_does_not_fit() -> None:
    parameters = 11_900_000_000
    q8 = ModelSize(weights=int(1.0625 * parameters))
    roomy = int(64 * GIB)
    assert str(fitting_quantisation(q8, parameters, TWO_REFERENCES, OFF, roomy, GIB)).startswith("Q6_K")
    q4 = ModelSize(weights=int(0.5625 * parameters))
    assert fitting_quantisation(q4, parameters, TWO_REFERENCES, OFF, roomy, GIB) is None


def test_where_main_memory_is_short_too_the_first_block_alone_is_stored() -> None:
    both = KontextSettings(reference_refresh=4)
    streamed = estimate(both, card=16 * GIB)
    assert streamed.host == pytest.approx(5.34 * GIB, rel=0.01)
    assert settings_within_host_memory(both, streamed, 16 * GIB) == (both, None)
    fallback, note = settings_within_host_memory(both, streamed, 7 * GIB)
    assert note == HOST_MEMORY_FULL
    assert fallback.reference_refresh == 1
    assert estimate(fallback, card=16 * GIB).host == 0
    without_cache, note = settings_within_host_memory(REUSE, streamed, 0)
    assert (without_cache.reference_refresh, note) == (0, HOST_MEMORY_FULL)
    on_card = estimate(both, card=64 * GIB)
    assert settings_within_host_memory(both, on_card, 0) == (both, None)


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
        self.controlnet_linked_list: Any = None
        self.lora_patches: list[int] = []

    def model_dtype(self) -> torch.dtype:
        return torch.bfloat16

    def has_online_lora(self) -> bool:
        return bool(self.lora_patches)

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
    utils = SimpleNamespace(nested_compute_size=lambda patches, element_size: sum(patches) * element_size)
    monkeypatch.setitem(sys.modules, "backend", SimpleNamespace(memory_management=card, utils=utils))
    monkeypatch.delitem(sys.modules, "lib_fluxkontext.hosts.forge.runtime.vram", raising=False)
    from lib_fluxkontext.hosts.forge.runtime import vram

    monkeypatch.setattr(vram, "memory_management", card)
    return vram


@pytest.mark.parametrize("settings", [OFF, REUSE, KontextSettings(reference_refresh=3)], ids=["off", "reuse", "both"])
@pytest.mark.parametrize("gigabytes", [12, 16, 24])
def test_forge_reserves_by_the_panels_estimate(
    monkeypatch: pytest.MonkeyPatch, settings: KontextSettings, gigabytes: int
) -> None:
    card = FakeCard(total=gigabytes * GIB, free=gigabytes * GIB)
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


def test_placement_goes_by_what_is_free_not_by_the_size_of_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program, and CUDA itself, have a part of the card; this model's weights and others can make room."""
    card, patcher, other = FakeCard(total=24 * GIB, free=5 * GIB), FakePatcher(12 * GIB), FakePatcher(2 * GIB)
    card.current_loaded_models = [LoadedEntry(card, patcher), LoadedEntry(card, other)]
    vram = forge_vram(monkeypatch, card)
    assert vram.available_bytes(patcher) == 19 * GIB
    assert vram.estimate_sampling(patcher, REUSE, TWO_REFERENCES).place == "host"
    card.free = 9 * GIB
    assert vram.estimate_sampling(patcher, REUSE, TWO_REFERENCES).place == "device"


def test_what_forge_adds_when_sampling_begins_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """5 GiB are free; 2 reserved and 1 always free leave room, but not with a ControlNet of 3."""
    card, patcher = FakeCard(total=16 * GIB, free=5 * GIB), FakePatcher()
    card.current_loaded_models = [LoadedEntry(card, patcher)]
    vram = forge_vram(monkeypatch, card)
    patcher.lora_patches = [GIB // 4]
    vram.reserve(patcher, 2 * GIB)
    assert len(card.current_loaded_models) == 1
    patcher.extra_preserved_memory_during_sampling = 0
    patcher.controlnet_linked_list = SimpleNamespace(inference_memory_requirements=lambda dtype: 3 * GIB)
    vram.reserve(patcher, 2 * GIB)
    assert card.current_loaded_models == []


def test_directml_whose_memory_forge_does_not_know_is_not_held_to_a_gigabyte(monkeypatch: pytest.MonkeyPatch) -> None:
    card, patcher = FakeCard(total=GIB, free=GIB), FakePatcher()
    card.current_loaded_models = [LoadedEntry(card, patcher)]
    patcher.load_device = torch.device("privateuseone")
    vram = forge_vram(monkeypatch, card)
    assert vram.available_bytes(patcher) is None
    vram.reserve(patcher, 2 * GIB)
    assert len(card.current_loaded_models) == 1
    monkeypatch.setattr(card, "get_torch_device", lambda: torch.device("privateuseone"), raising=False)
    assert vram.card_bytes() is None


def test_the_clone_lives_as_long_as_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    patcher = FakePatcher()
    forge_vram(monkeypatch, FakeCard(total=16 * GIB, free=0)).keep_loaded(patcher)
    assert patcher in vars(patcher.model).values()
