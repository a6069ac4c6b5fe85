"""Tensors by sample key, held as the batch they came in for as long as its samples stay together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from lib_fluxkontext.caching.sample_key import SampleKey

T = TypeVar("T")
"""A dataclass of (B, …) tensors, one row per sample. Fields may be None, or such dataclasses themselves."""


def map_tensors(function: Callable[..., Tensor], state: T, *others: T) -> T:
    """Apply a function to every tensor of a state, with the tensors of equal place in ``others`` as more arguments."""
    parts: dict[str, Any] = {}
    for field in fields(state):  # type: ignore[arg-type]  # T is a dataclass; there is no bound that says so
        value = getattr(state, field.name)
        if isinstance(value, Tensor):
            parts[field.name] = function(value, *(getattr(other, field.name) for other in others))
        elif is_dataclass(value):
            parts[field.name] = map_tensors(function, value, *(getattr(other, field.name) for other in others))
        else:
            parts[field.name] = value
    return type(state)(**parts)


def tensors_of(state: object) -> Iterator[Tensor]:
    """Iterate over all tensors of a state."""
    for field in fields(state):  # type: ignore[arg-type]  # see map_tensors
        value = getattr(state, field.name)
        if isinstance(value, Tensor):
            yield value
        elif is_dataclass(value):
            yield from tensors_of(value)


def expand_like(row_values: Tensor, tensor: Tensor) -> Tensor:
    """Reshape (B,) to (B, 1, …) so that it broadcasts against ``tensor``, (B, …)."""
    return row_values.reshape(-1, *(1,) * (tensor.ndim - 1))


def same_layout(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors agree in shape, dtype and device, so that one can stand in for the other."""
    return first.shape == second.shape and first.dtype == second.dtype and first.device == second.device


@dataclass(eq=False)
class _Batch(Generic[T]):
    """A state of several samples; ``rows`` maps each to its row."""

    state: T
    rows: dict[SampleKey, int]

    def row(self, sample: SampleKey) -> T:
        row = self.rows[sample]
        return map_tensors(lambda tensor: tensor[row], self.state)


class BatchedState(Generic[T]):
    """State by sample key.

    While all samples of a batch are put and read together, nothing is copied. When they part, the rows that stay are
    copied out, so that none keeps a whole old batch alive.
    """

    def __init__(self) -> None:
        self._batches: dict[SampleKey, _Batch[T]] = {}

    def put(self, samples: Sequence[SampleKey], state: T) -> None:
        """Replace the state of some samples.

        Args:
            samples: one key per row.
            state: tensors of (B, …); held as they are, not copied.
        """
        self.drop(samples)
        batch = _Batch(state, {sample: row for row, sample in enumerate(samples)})
        self._batches.update(dict.fromkeys(samples, batch))

    def get(self, samples: Sequence[SampleKey]) -> T:
        """Return the state of some samples, (B, …), in the order asked for.

        Raises:
            KeyError: there is none for one of them.
        """
        first = self._batches[samples[0]]
        if list(first.rows) == list(samples):
            return first.state
        rows = [self._batches[sample].row(sample) for sample in samples]
        return map_tensors(lambda *tensors: torch.stack(tensors), rows[0], *rows[1:])

    def whole_batch(self, samples: Sequence[SampleKey]) -> T | None:
        """Return the stored batch itself if it holds exactly these samples, all of them still current; else None."""
        batch = self._batches.get(samples[0])
        if batch is None or list(batch.rows) != list(samples):
            return None
        current = all(self._batches.get(sample) is batch for sample in batch.rows)
        return batch.state if current else None

    def peek(self, sample: SampleKey) -> T:
        """Return a view of one sample's state, (…) without the batch axis."""
        return self._batches[sample].row(sample)

    def drop(self, samples: Sequence[SampleKey]) -> None:
        """Forget some samples; unknown keys are ignored."""
        touched = {id(batch): batch for sample in samples if (batch := self._batches.pop(sample, None)) is not None}
        for batch in touched.values():
            for sample in [sample for sample in batch.rows if sample in self._batches]:
                own_row = map_tensors(lambda tensor: tensor[None].clone(), batch.row(sample))
                self._batches[sample] = _Batch(own_row, {sample: 0})

    def clear(self) -> None:
        """Forget everything."""
        self._batches.clear()

    @property
    def held_bytes(self) -> int:
        """Bytes of all tensors held."""
        batches = {id(batch): batch for batch in self._batches.values()}.values()
        return sum(tensor.element_size() * tensor.nelement() for batch in batches for tensor in tensors_of(batch.state))

    def __contains__(self, sample: SampleKey) -> bool:
        return sample in self._batches

    def has_all(self, samples: Sequence[SampleKey]) -> bool:
        """Whether every one of the samples has a state."""
        return all(sample in self._batches for sample in samples)

    def is_split(self, samples: Sequence[SampleKey]) -> bool:
        """Whether some of the samples have a state and others none, so that each must be handled on its own."""
        return any(sample in self._batches for sample in samples) and not self.has_all(samples)
