"""Whatever is put, dropped and read in whatever batches, each sample gets its own state back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lib_fluxkontext.caching.batched_state import BatchedState

SAMPLES = st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True)


@dataclass(frozen=True)
class Pair:
    values: Tensor
    negative: Tensor


@given(st.lists(st.tuples(st.sampled_from(["put", "drop"]), SAMPLES), max_size=12), SAMPLES)
def test_every_sample_gets_back_what_was_put_last(actions: list[tuple[str, list[str]]], asked: list[str]) -> None:
    states: BatchedState[Pair] = BatchedState()
    expected = {}
    for number, (action, samples) in enumerate(actions):
        if action == "put":
            values = torch.tensor([[100.0 * number + place] for place in range(len(samples))])
            states.put(samples, Pair(values, -values))
            expected.update({sample: 100.0 * number + place for place, sample in enumerate(samples)})
        else:
            states.drop(samples)
            for sample in samples:
                expected.pop(sample, None)
    assert {sample for sample in "abcd" if sample in states} == set(expected)
    assert states.held_bytes == 2 * 4 * len(expected)
    present = [sample for sample in asked if sample in expected]
    if present:
        pair = states.get(present)
        assert pair.values[:, 0].tolist() == [expected[sample] for sample in present]
        assert torch.equal(pair.negative, -pair.values)


def test_a_batch_that_stays_together_is_not_copied() -> None:
    states: BatchedState[Pair] = BatchedState()
    pair = Pair(torch.arange(3.0), torch.arange(3.0))
    states.put(["a", "b", "c"], pair)
    assert states.get(["a", "b", "c"]) is pair
    assert states.get(["b", "a"]).values.tolist() == [1.0, 0.0]
