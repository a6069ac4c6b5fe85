"""Which card the command line loads a pipeline on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.hosts.diffusers import loader


class FakePipeline:
    """Tells where it was put, and which card was current while it was loaded."""

    def __init__(self, current: list[Any]) -> None:
        self.loaded_on = list(current)
        self.offloaded_to: Any = None
        self.moved_to: Any = None

    def enable_model_cpu_offload(self, device: Any = "cuda:0") -> None:  # diffusers takes the first card
        self.offloaded_to = device

    def to(self, device: Any) -> None:
        self.moved_to = device


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[Any] = []

    class Guard:
        def __init__(self, device: Any) -> None:
            self.device = device

        def __enter__(self) -> None:
            current.append(torch.device(self.device))

        def __exit__(self, *_: object) -> None:
            current.pop()

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device", Guard)
    monkeypatch.setattr(loader, "_from_folder", lambda path, dtype, nf4: FakePipeline(current))


@pytest.mark.parametrize("offload", [False, True])
def test_the_card_that_was_asked_for(two_cards: None, tmp_path: Path, offload: bool) -> None:
    pipeline = loader.load_pipeline(tmp_path, device="cuda:1", nf4=True, offload=offload)
    second = torch.device("cuda", 1)
    assert pipeline.loaded_on == [second]
    assert torch.device(pipeline.offloaded_to if offload else pipeline.moved_to) == second


@pytest.mark.parametrize("name", ["cuda:2", "cuda:x", "gpu"])
def test_a_card_that_is_not_there_is_refused(two_cards: None, tmp_path: Path, name: str) -> None:
    with pytest.raises(KontextError) as refused:
        loader.load_pipeline(tmp_path, device=name)
    assert refused.value.field == "device"
