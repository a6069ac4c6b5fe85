"""What a sampling took on the card beside the weights, held against what was estimated for it."""

from __future__ import annotations

from dataclasses import dataclass

from lib_fluxkontext.telemetry.memory import CardState, MemoryMeter

SHORT_OF_MEMORY = (
    "When sampling began, less was free on the card than it was estimated to need: steps may be slow or run out of "
    "memory. Lower GPU Weights, tick half size, or close other programs that use the card."
)


@dataclass(frozen=True)
class WorkingMemory:
    """Bytes on the card of one sampling, weights aside.

    Attributes:
        estimated: activations, references and caches.
        reserved: the part of the estimate that the host was asked to keep free: references and caches.
        free: what was free when the first model call began; None without CUDA.
        used: torch's peak less what was on the card when the first model call began; weights that wait in main memory
            count while they are there. None without CUDA, and where an earlier peak of the same generation, the text
            encoder's, was as high and hides it.
    """

    estimated: int
    reserved: int
    free: int | None = None
    used: int | None = None

    @property
    def off(self) -> int | None:
        """By how many bytes more was used than estimated; negative for less."""
        return None if self.used is None else self.used - self.estimated

    @property
    def short(self) -> bool:
        """Whether less was free than was asked for, with half of the activations: Neo itself keeps no more for them."""
        needed = self.reserved + (self.estimated - self.reserved) // 2
        return self.free is not None and self.reserved > 0 and self.free < needed


class WorkingMemoryMeter:
    """Measures one sampling. Torch's peak is only read: the host resets it for its own display.

    Args:
        memory: of the generation.
        estimated: bytes, as in ``WorkingMemory``.
        reserved: likewise.
    """

    def __init__(self, memory: MemoryMeter, estimated: int, reserved: int) -> None:
        self._memory = memory
        self._estimated = estimated
        self._reserved = reserved
        self._started = False
        self._start: CardState | None = None
        self._peak: int | None = None

    def start(self) -> None:
        """Note what the card holds now, weights included; later calls change nothing."""
        if not self._started:
            self._started = True
            self._start = self._memory.card()

    def sample(self) -> None:
        """Note the peak up to now; after a model call, so that what comes after the last one does not count."""
        self._peak = self._memory.allocated_peak()

    def result(self) -> WorkingMemory:
        """Return what was measured. Changes nothing."""
        start, peak = self._start, self._peak
        if start is None:
            return WorkingMemory(self._estimated, self._reserved)
        used = peak - start.allocated if peak is not None and peak > start.peak else None
        return WorkingMemory(self._estimated, self._reserved, start.free, used)
