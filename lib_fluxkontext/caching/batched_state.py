"""Tensors by stream, held as the batch they came in for as long as its images go the same way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lib_fluxkontext.caching.sample_key import Stream


@dataclass(eq=False)
class _Batch:
    """Tensors of several streams, (B, …) each; ``rows`` says which row is whose."""

    tensors: tuple[Tensor, ...]
    rows: dict[Stream, int] = field(default_factory=dict)

    def of(self, stream: Stream) -> tuple[Tensor, ...]:
        row = self.rows[stream]
        return tuple(one[row] for one in self.tensors)


class StreamRows:
    """Rows of tensors by stream.

    While all images of a batch are put and asked for together, nothing is copied. When their ways part, the rows that
    stay behind are copied out, so that none keeps a whole old batch alive.
    """

    def __init__(self) -> None:
        self._batches: dict[Stream, _Batch] = {}

    def put(self, streams: Sequence[Stream], *tensors: Tensor) -> None:
        """Set the rows of some streams.

        Args:
            streams: one key a row.
            tensors: (B, …) each; they are kept as they are.
        """
        self.drop(streams)
        batch = _Batch(tensors, {stream: row for row, stream in enumerate(streams)})
        self._batches.update(dict.fromkeys(streams, batch))

    def get(self, streams: Sequence[Stream]) -> tuple[Tensor, ...]:
        """The tensors of some streams, (B, …) each, in the order asked for.

        Raises:
            KeyError: nothing was put for one of them.
        """
        first = self._batches[streams[0]]
        if list(first.rows) == list(streams):
            return first.tensors
        parts = [self._batches[stream].of(stream) for stream in streams]
        return tuple(torch.stack(column) for column in zip(*parts, strict=True))

    def whole(self, streams: Sequence[Stream]) -> tuple[Tensor, ...] | None:
        """The batch itself, if exactly these streams came in it together and are in it still; else None."""
        batch = self._batches.get(streams[0])
        alive = batch is not None and all(self._batches.get(stream) is batch for stream in batch.rows)
        return batch.tensors if batch is not None and alive and list(batch.rows) == list(streams) else None

    def peek(self, stream: Stream) -> tuple[Tensor, ...]:
        """One stream's rows, (…) each, not copied."""
        return self._batches[stream].of(stream)

    def drop(self, streams: Sequence[Stream]) -> None:
        """Forget some streams; unknown ones are none."""
        touched = {id(batch): batch for batch in map(self._batches.pop, streams, [None] * len(streams)) if batch}
        for batch in touched.values():
            for stream in [one for one in batch.rows if one in self._batches]:
                row = batch.of(stream)
                self._batches[stream] = _Batch(tuple(one[None].clone() for one in row), {stream: 0})

    def clear(self) -> None:
        """Forget everything."""
        self._batches.clear()

    @property
    def held_bytes(self) -> int:
        """Bytes of all tensors that are held."""
        batches = {id(batch): batch for batch in self._batches.values()}.values()
        return sum(one.element_size() * one.nelement() for batch in batches for one in batch.tensors)

    def __contains__(self, stream: Stream) -> bool:
        return stream in self._batches
