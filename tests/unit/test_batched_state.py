"""Rows by stream: whatever is put, dropped and asked for in whatever batches, each stream gets its own back."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from lib_fluxkontext.caching.batched_state import StreamRows

STREAMS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True)


@given(st.lists(st.tuples(st.sampled_from(["put", "drop"]), STREAMS), max_size=12), STREAMS)
def test_every_stream_gets_back_what_was_put_last(actions: list[tuple[str, list[str]]], asked: list[str]) -> None:
    rows, expected = StreamRows(), {}
    for number, (action, streams) in enumerate(actions):
        if action == "put":
            values = torch.tensor([[100.0 * number + place] for place in range(len(streams))])
            rows.put(streams, values, -values)
            expected.update({stream: 100.0 * number + place for place, stream in enumerate(streams)})
        else:
            rows.drop(streams)
            for stream in streams:
                expected.pop(stream, None)
    assert {stream for stream in "abcd" if stream in rows} == set(expected)
    assert rows.held_bytes == 2 * 4 * len(expected)
    present = [stream for stream in asked if stream in expected]
    if present:
        one, negative = rows.get(present)
        assert one[:, 0].tolist() == [expected[stream] for stream in present]
        assert torch.equal(negative, -one)


def test_a_batch_that_stays_together_is_not_copied() -> None:
    rows, tensor = StreamRows(), torch.arange(3.0)
    rows.put(["a", "b", "c"], tensor)
    assert rows.get(["a", "b", "c"])[0] is tensor
    assert rows.get(["b", "a"])[0].tolist() == [1.0, 0.0]
