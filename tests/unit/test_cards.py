"""More cards than one: everything is asked of the card that samples, and the others are left alone.

CUDA and NVML are faked. Like the real runtime, the faked one gives a context, half a gigabyte, to whichever card is
current when it is called, whatever card the call is about.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lib_fluxkontext.caching.host_memory import HostMemory, host_memory_for
from lib_fluxkontext.caching.key_values import KeyValues
from lib_fluxkontext.caching.prefetch import Prefetcher, open_copy_stream
from lib_fluxkontext.telemetry import memory
from lib_fluxkontext.telemetry.clock import measured
from lib_fluxkontext.telemetry.memory import MemoryMeter

GIB = 2**30
FIRST, SECOND = torch.device("cuda", 0), torch.device("cuda", 1)
CPU = torch.device("cpu")


class FakeCuda:
    """The CUDA runtime and ``torch.cuda`` on it; cards are known by their indices."""

    def __init__(self, cards: list[SimpleNamespace]) -> None:
        self.cards = cards
        self.current = 0
        self.contexts: set[int] = set()
        self.reset: list[int] = []
        self.registered: dict[int, int] = {}  # which card was current, by address

    def index(self, device: torch.device | None) -> int:
        return self.current if device is None or device.index is None else device.index

    def call(self) -> None:
        """A call that the runtime serves."""
        self.contexts.add(self.current)

    def set_device(self, index: int) -> None:
        """``cudaSetDevice``: since CUDA 12 it makes the context."""
        self.current = index
        self.call()

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        """Torch's guard: the card that it goes back to needs no context."""
        before = self.current
        self.set_device(self.index(device))
        yield
        self.current = before

    @contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        """Torch's context manager for streams, which goes back with ``cudaSetDevice``."""
        before = self.current
        self.set_device(stream.card)
        yield
        self.set_device(before)

    def synchronize(self, device: torch.device) -> None:
        with self.device(device):
            self.call()

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:  # the driver's name
        self.call()
        self.registered[address] = self.current
        return 0

    def cudaHostUnregister(self, address: int) -> int:  # the driver's name
        self.call()
        del self.registered[address]
        return 0


class FakeStream:
    def __init__(self, card: int) -> None:
        self.card = card
        self.waited_for: list[FakeStream] = []

    def wait_stream(self, other: FakeStream) -> None:
        self.waited_for.append(other)


class FakeEvent:
    """Belongs to the card of the stream that recorded it first; asking it is a call of the current card."""

    def __init__(self, cuda: FakeCuda) -> None:
        self._cuda = cuda
        self.card: int | None = None

    def record(self, stream: FakeStream) -> None:
        assert self.card in (None, stream.card), "CUDA refuses an event of another card"
        self.card = stream.card
        self._cuda.contexts.add(stream.card)

    def query(self) -> bool:
        self._cuda.call()
        return True

    def synchronize(self) -> None:
        self._cuda.call()

    def elapsed_time(self, end: FakeEvent) -> float:
        assert self.card == end.card is not None, "CUDA refuses events of two cards"
        self._cuda.call()
        return 1500.0


def fake_nvml(cards: dict[str, SimpleNamespace], fails: str | None = None) -> SimpleNamespace:
    """``pynvml`` with cards by UUID and its prefix, and a function that fails."""
    error = type("NVMLError", (Exception,), {})

    def fail(*_: object) -> None:
        raise error

    functions: dict[str, Any] = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: sum(uuid.startswith("GPU-") for uuid in cards),
        "nvmlDeviceGetHandleByIndex": lambda index: list(cards)[index],
        "nvmlDeviceGetHandleByUUID": lambda uuid: uuid.decode() if uuid.decode() in cards else fail(),
        "nvmlDeviceGetMemoryInfo": lambda handle: cards[handle],
    }
    return SimpleNamespace(NVMLError=error, **(functions if fails is None else functions | {fails: fail}))


def torch_card(name: str, total: int, peak: int, uuid: str | None = None) -> SimpleNamespace:
    """What torch knows of a card; before 2.4 it knows no UUID."""
    return SimpleNamespace(name=name, total_memory=total, peak=peak, **({} if uuid is None else {"uuid": uuid}))


TORCH_CARDS = (torch_card("laptop's", 4 * GIB, 0, "aaaa"), torch_card("large", 24 * GIB, 9 * GIB, "bbbb"))
NVML_CARDS = {
    "GPU-aaaa": SimpleNamespace(used=1 * GIB, total=4 * GIB),
    "GPU-bbbb": SimpleNamespace(used=11 * GIB, total=24 * GIB + GIB // 2),
}


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """Two cards, the first current, and an NVML that sees both."""
    cuda = FakeCuda(list(TORCH_CARDS))
    fakes: dict[str, Any] = {
        "current_device": lambda: cuda.current,
        "device": cuda.device,
        "stream": cuda.stream,
        "Stream": lambda device: FakeStream(cuda.index(device)),
        "current_stream": lambda device=None: FakeStream(cuda.index(device)),
        "Event": lambda enable_timing: FakeEvent(cuda),
        "synchronize": cuda.synchronize,
        "cudart": lambda: cuda,
        "get_device_properties": lambda device: cuda.cards[device if isinstance(device, int) else cuda.index(device)],
        "max_memory_allocated": lambda device=None: cuda.cards[cuda.index(device)].peak,
        "max_memory_reserved": lambda device=None: cuda.cards[cuda.index(device)].peak + GIB,
        "reset_peak_memory_stats": lambda device=None: cuda.reset.append(cuda.index(device)),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(NVML_CARDS))
    monkeypatch.setattr(memory, "_nvml_handle", cache(memory._nvml_handle.__wrapped__))  # with nothing cached
    return cuda


def test_memory_is_that_of_the_card_that_samples(cuda: FakeCuda) -> None:
    use = MemoryMeter(SECOND, reset_peaks=True).peaks()
    assert (use.device, use.total) == ("large", 24 * GIB)
    assert (use.allocated, use.reserved, use.in_use) == (9 * GIB, 10 * GIB, 11 * GIB)
    assert cuda.reset == [1]
    assert cuda.contexts == set()


def test_a_device_without_a_number_stays_the_card_that_it_was(cuda: FakeCuda) -> None:
    """The current card is each thread's own, and the page asks from another thread."""
    cuda.current = 1
    meter = MemoryMeter(torch.device("cuda"), reset_peaks=True)
    cuda.current = 0
    use = meter.peaks()
    assert (use.device, use.allocated, use.in_use) == ("large", 9 * GIB, 11 * GIB)
    assert cuda.reset == [1]


def test_a_hidden_card_has_no_number_for_torch_and_one_for_nvml(cuda: FakeCuda) -> None:
    """``CUDA_VISIBLE_DEVICES=1``: torch's first card is NVML's second."""
    cuda.cards = [TORCH_CARDS[1]]
    use = MemoryMeter(FIRST, reset_peaks=False).peaks()
    assert (use.device, use.in_use) == ("large", 11 * GIB)


@pytest.mark.parametrize(
    ("cards", "hip", "in_use"),
    [(["GPU-aaaa", "GPU-bbbb"], None, None), (["GPU-bbbb"], None, 11 * GIB), (["GPU-bbbb"], "5.7", None)],
    ids=["two", "one", "one that is not torch's, which is built for AMD"],
)
def test_without_uuid_there_is_a_number_for_a_single_card_alone(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, cards: list[str], hip: str | None, in_use: int | None
) -> None:
    cuda.cards = [torch_card(card.name, card.total_memory, card.peak) for card in TORCH_CARDS]
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml({uuid: NVML_CARDS[uuid] for uuid in cards}))
    assert MemoryMeter(SECOND, reset_peaks=False).peaks().in_use == in_use


@pytest.mark.parametrize(
    ("uuid", "in_use"), [("cccc", 2 * GIB), ("bbbb", None), (None, None)], ids=["its own", "the card's", "none"]
)
def test_a_slice_of_a_card_has_its_own_memory_or_none(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, uuid: str | None, in_use: int | None
) -> None:
    """Torch sees a MIG slice, by its UUID or, built for CUDA 11, by the whole card's."""
    cuda.cards = [torch_card("1g.10gb", 9 * GIB, GIB, uuid)]
    whole, its_own = SimpleNamespace(used=60 * GIB, total=80 * GIB), SimpleNamespace(used=2 * GIB, total=9 * GIB)
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml({"GPU-bbbb": whole, "MIG-cccc": its_own}))
    assert MemoryMeter(FIRST, reset_peaks=False).peaks().in_use == in_use


@pytest.mark.parametrize(
    "nvml", [None, fake_nvml({}), *(fake_nvml(NVML_CARDS, name) for name in ("nvmlInit", "nvmlDeviceGetMemoryInfo"))]
)
def test_without_nvml_its_number_alone_is_missing(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, nvml: Any) -> None:
    """Not installed, not knowing the card, without a driver, or (for an integrated GPU) not telling memory."""
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    use = MemoryMeter(SECOND, reset_peaks=False).peaks()
    assert (use.device, use.allocated, use.in_use) == ("large", 9 * GIB, None)


def test_nvml_that_fails_in_the_middle_leaves_what_was_seen(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = MemoryMeter(SECOND, reset_peaks=False)
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(NVML_CARDS, "nvmlDeviceGetMemoryInfo"))
    meter.sample()
    assert meter.peaks().in_use == 11 * GIB


def test_time_is_taken_on_the_card_that_samples_alone(cuda: FakeCuda) -> None:
    with measured(SECOND) as span:
        cuda.current = 1  # whatever runs inside may switch
    cuda.current = 0
    assert span.done()
    assert span.seconds() == 1.5
    assert cuda.contexts == {1}
    assert cuda.current == 0


def test_keys_and_values_are_copied_on_the_card_that_samples_alone(cuda: FakeCuda) -> None:
    prefetcher = Prefetcher(lambda device: open_copy_stream(SECOND))
    rows = [KeyValues(torch.ones(1, 2), torch.ones(1, 2))]
    prefetcher.fetch(0, rows, CPU)
    prefetcher.take(0, rows, CPU)
    prefetcher.release()
    assert cuda.contexts == {1}
    assert cuda.current == 0


def test_copies_and_the_main_stream_of_a_card_wait_for_each_other(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = {index: FakeStream(index) for index in (0, 1)}
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: main[cuda.index(device)])
    copies: Any = open_copy_stream(SECOND)
    copies.wait_for_main()
    copies.finish()
    assert copies._stream.card == 1
    assert copies._stream.waited_for == [main[1]]
    assert main[1].waited_for == [copies._stream]
    assert main[0].waited_for == []


def test_main_memory_is_registered_for_the_card_that_samples_alone(cuda: FakeCuda) -> None:
    held = host_memory_for(SECOND)
    tensor = held.allocate(torch.zeros(3))
    registered = dict(cuda.registered)
    held.release()
    assert registered == {tensor.data_ptr(): 1}
    assert cuda.registered == {}
    assert cuda.contexts == {1}
    assert cuda.current == 0


def test_main_memory_is_main_memory_whatever_the_default_device_is() -> None:
    with torch.device("meta"):
        tensor = HostMemory(SECOND).allocate(torch.zeros(3))
    assert tensor.device == CPU


def test_intel_s_second_gpu_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside an integrated GPU, the one that samples may be the second."""
    waits: list[torch.device] = []
    monkeypatch.setattr(torch.xpu, "synchronize", lambda device=None: waits.append(device))
    device = torch.device("xpu", 1)
    with measured(device):
        pass
    assert waits == [device, device]
    assert MemoryMeter(device, reset_peaks=True).peaks().device is None
