"""Where keys and values are stored: what is held, how they are streamed, and what registers their memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_fluxkontext.caching.host_memory import HostMemory, _CardDriver
from lib_fluxkontext.caching.key_values import KeyValues
from lib_fluxkontext.caching.kv_store import KVStore, Place
from lib_fluxkontext.caching.prefetch import BUFFER_SETS, Prefetcher

CPU = torch.device("cpu")
SECOND_CARD = torch.device("cuda", 1)
BLOCKS = 57


class RecordedStream:
    """A copy stream that writes down the order of calls; the prefetcher is given it in place of CUDA's."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def wait_for_main(self) -> None:
        self.calls.append("copies wait for main")

    @contextmanager
    def copying(self) -> Iterator[None]:
        self.calls.append("copy")
        yield

    def finish(self) -> None:
        self.calls.append("main waits for copies")


def block_rows(block: int, samples: int = 1) -> list[KeyValues]:
    """A block's entries in host memory, each with a value of its own."""
    values = [torch.full((1, 2, 5, 4), 100.0 * block + sample) for sample in range(samples)]
    return [KeyValues(value, -value) for value in values]


def test_streaming_uses_two_sets_of_buffers_and_never_more() -> None:
    stream = RecordedStream()
    prefetcher = Prefetcher(lambda device: stream)
    addresses = set()
    for block in range(BLOCKS):
        fetched = prefetcher.take(block, block_rows(block), CPU)
        assert fetched.keys.mean() == 100.0 * block
        addresses.add(fetched.keys.data_ptr())
        if block + 1 < BLOCKS:
            prefetcher.fetch(block + 1, block_rows(block + 1), CPU)
    assert len(addresses) == BUFFER_SETS == 2


def test_what_is_being_read_is_not_overwritten_by_the_next_fetch() -> None:
    prefetcher = Prefetcher(lambda device: RecordedStream())
    current = prefetcher.take(0, block_rows(0), CPU)
    prefetcher.fetch(1, block_rows(1), CPU)
    assert current.keys.mean() == 0
    assert prefetcher.take(1, block_rows(1), CPU).keys.mean() == 100


def test_the_order_of_stream_calls() -> None:
    """Copies wait for the main stream before they begin; it waits for them before it reads, or memory is freed."""
    stream = RecordedStream()
    prefetcher = Prefetcher(lambda device: stream)
    prefetcher.take(0, block_rows(0), CPU)
    allocated = ["main waits for copies"]  # before a new buffer may take the place of an old one
    assert stream.calls == [*allocated, "copies wait for main", "copy", "main waits for copies"]
    stream.calls.clear()
    prefetcher.fetch(1, block_rows(1), CPU)
    assert stream.calls == [*allocated, "copies wait for main", "copy"]
    stream.calls.clear()
    prefetcher.take(1, block_rows(1), CPU)
    assert stream.calls == ["main waits for copies"]
    stream.calls.clear()
    prefetcher.fetch(2, block_rows(2), CPU)
    assert stream.calls == ["copies wait for main", "copy"]  # into buffers that are there
    stream.calls.clear()
    prefetcher.release()
    assert stream.calls == ["main waits for copies"]


def test_after_a_failure_of_the_card_the_buffers_are_freed_all_the_same() -> None:
    class Broken(RecordedStream):
        def finish(self) -> None:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    stream: RecordedStream = RecordedStream()
    prefetcher = Prefetcher(lambda device: stream)
    prefetcher.fetch(0, block_rows(0), CPU)
    stream.__class__ = Broken
    prefetcher.release()
    assert prefetcher._buffers == [None] * BUFFER_SETS


def test_a_fetch_of_the_same_block_copies_once() -> None:
    stream = RecordedStream()
    prefetcher = Prefetcher(lambda device: stream)
    for _ in range(3):
        prefetcher.fetch(0, block_rows(0), CPU)
    assert stream.calls.count("copy") == 1


def test_rows_that_change_in_number_get_buffers_of_their_own() -> None:
    prefetcher = Prefetcher(lambda device: RecordedStream())
    assert prefetcher.take(0, block_rows(0, samples=3), CPU).keys.shape == (3, 2, 5, 4)
    assert prefetcher.take(1, block_rows(1, samples=2), CPU).keys.shape == (2, 2, 5, 4)
    again = prefetcher.take(2, block_rows(2, samples=3), CPU)
    assert again.keys[:, 0, 0, 0].tolist() == [200.0, 201.0, 202.0]


@pytest.mark.parametrize("place", ["device", "host"])
def test_samples_that_part_ways_hold_no_old_batch(place: Place) -> None:
    store = KVStore(place)
    store.put(0, ["a", "b"], torch.zeros(2, 1, 4, 8), torch.zeros(2, 1, 4, 8))
    whole = store.held_bytes
    store.put(0, ["a"], torch.ones(1, 1, 4, 8), torch.ones(1, 1, 4, 8))
    assert store.held_bytes == whole
    keys = store.get(0, ["b", "a"], CPU).keys
    assert keys[0].max() == 0
    assert keys[1].min() == 1
    store.drop(["a"])
    assert store.held_bytes == whole // 2
    assert store.count("b") == 1
    assert store.count("a") == 0


def test_in_host_memory_a_batch_that_splits_copies_nothing_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """With CFG above 1, or images that part ways: rows are put together on the device alone."""
    store = KVStore("host")
    for block in range(2):
        store.put(block, ["cond", "uncond"], torch.randn(2, 1, 4, 8), torch.randn(2, 1, 4, 8))

    def refused(*_: Any, **__: Any) -> Tensor:
        raise AssertionError("a pageable copy on the host")

    store.get(0, ["uncond"], CPU)
    for name in ("stack", "cat"):
        monkeypatch.setattr(torch, name, refused)
    monkeypatch.setattr(torch.Tensor, "clone", refused)
    store.get(0, ["uncond"], CPU)
    store.get(1, ["uncond", "cond"], CPU)


def test_a_refresh_overwrites_what_is_there() -> None:
    store = KVStore("host")
    store.put(0, ["a"], torch.zeros(1, 1, 4, 8), torch.zeros(1, 1, 4, 8))
    held = store.held_bytes
    store.begin(["a"])
    store.put(0, ["a"], torch.ones(1, 1, 4, 8), torch.ones(1, 1, 4, 8))
    assert store.held_bytes == held == store.peak_bytes
    assert store.get(0, ["a"], CPU).keys.min() == 1


class FakeCudart:
    """The driver: registers as many tensors as it has room for, and writes down the order of calls."""

    def __init__(self, room: int, error: int = 2, raises: str | None = None) -> None:
        self.room, self.error, self.raises = room, error, raises
        self.registered: dict[int, int] = {}
        self.asked = 0

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:  # the driver's name
        self.asked += 1
        if len(self.registered) >= self.room:
            if self.raises is not None:
                raise RuntimeError(self.raises)
            return self.error
        self.registered[address] = size
        return 0

    def cudaHostUnregister(self, address: int) -> int:  # the driver's name
        del self.registered[address]
        return 0


def test_registered_memory_has_its_own_size_and_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    cudart, order = FakeCudart(room=10), []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: order.append((device, dict(cudart.registered))))
    memory = HostMemory(SECOND_CARD, cudart)
    tensor = memory.allocate(torch.zeros(3, 5, dtype=torch.bfloat16))
    assert cudart.registered == {tensor.data_ptr(): 3 * 5 * 2}
    memory.release()
    assert cudart.registered == {}
    assert order == [(SECOND_CARD, {tensor.data_ptr(): 30})]  # no copy may still read what is unregistered
    memory.release()
    assert len(order) == 1


@pytest.mark.parametrize("raises", [None, "CUDA error: out of memory"])
def test_where_the_driver_registers_no_more_pageable_memory_serves(
    monkeypatch: pytest.MonkeyPatch, raises: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    cudart = FakeCudart(room=1, raises=raises)
    memory = HostMemory(SECOND_CARD, cudart)
    like = torch.zeros(2, 3, dtype=torch.bfloat16)
    tensors = [memory.allocate(like) for _ in range(4)]
    assert all((tensor.shape, tensor.dtype, tensor.device) == (like.shape, like.dtype, CPU) for tensor in tensors)
    assert cudart.asked == 2  # it is not tried for every block
    memory.release()
    assert cudart.registered == {}


def test_a_refused_registration_is_not_raised_by_the_next_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "cudart", lambda: FakeCudart(room=1))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch, "ones", lambda size, device: launched.append(device))
    driver = _CardDriver(SECOND_CARD)
    assert driver.cudaHostRegister(1, 10, 0) == 0
    assert launched == []
    assert driver.cudaHostRegister(2, 10, 0) == 2
    assert launched == [SECOND_CARD]


def test_another_failure_to_register_is_not_taken_for_full_memory() -> None:
    memory = HostMemory(SECOND_CARD, FakeCudart(room=0, raises="CUDA error: an illegal memory access was encountered"))
    with pytest.raises(RuntimeError, match="illegal"):
        memory.allocate(torch.zeros(1))
