"""Where keys and values are stored: what is held, and what happens where memory cannot be pinned."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lib_fluxkontext.caching.kv_store import KVStore


@pytest.mark.parametrize(
    "words", ["CUDA error: out of memory", "DefaultCPUAllocator: can't allocate memory", "not enough memory"]
)
def test_where_no_more_memory_can_be_pinned_plain_memory_serves(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    empty, asked = torch.empty, []

    def empty_unpinned(*shape: Any, pin_memory: bool = False, **rest: Any) -> Tensor:
        asked.append(pin_memory)
        if pin_memory:
            raise RuntimeError(words)
        return empty(*shape, **rest)

    monkeypatch.setattr(torch, "empty", empty_unpinned)
    store, tensor = KVStore("host"), torch.zeros(2, 3, dtype=torch.bfloat16)
    for _ in range(2):
        room = store._allocate_on_host(tensor)
        assert (room.shape, room.dtype, room.device.type) == (tensor.shape, tensor.dtype, "cpu")
    assert asked == [True, False, False]  # it is not tried for every block


def test_another_failure_to_pin_is_not_taken_for_full_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch, "empty", broken)
    with pytest.raises(RuntimeError, match="illegal"):
        KVStore("host")._allocate_on_host(torch.zeros(1))


def test_images_that_part_ways_hold_no_old_batch() -> None:
    store = KVStore()
    store.put(0, ["a", "b"], torch.zeros(2, 1, 4, 8), torch.zeros(2, 1, 4, 8))
    whole = store.held_bytes
    store.put(0, ["a"], torch.ones(1, 1, 4, 8), torch.ones(1, 1, 4, 8))
    assert store.held_bytes == whole
    keys = store.get(0, ["b", "a"], torch.device("cpu")).keys
    assert keys[0].max() == 0
    assert keys[1].min() == 1
    store.drop(["a"])
    assert store.held_bytes == whole // 2
    assert store.count("b") == 1
    assert store.count("a") == 0
