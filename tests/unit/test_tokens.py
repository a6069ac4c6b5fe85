"""Tokens and ids, against what others compute.

The oracle for one reference is Black Forest Labs' ``prepare_kontext`` (flux, ``src/flux/sampling.py``): tokens by
``rearrange("b c (h ph) (w pw) -> b (h w) (c ph pw)", ph=2, pw=2)``, ids zero but for 1 in the first axis, the row in
the second and the column in the third. The numbers below were worked out by hand from that formula.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_fluxkontext.references.placement import offset_ids
from lib_fluxkontext.references.tokens import pack, pad_to_even, reference_tokens


def test_one_reference_equals_prepare_kontext() -> None:
    latent = torch.arange(2 * 4 * 6, dtype=torch.float32).reshape(1, 2, 4, 6)  # value = 24·channel + 6·row + column
    got = reference_tokens([latent])
    assert got.tokens.shape == (1, 6, 8)
    assert got.tokens[0].tolist() == [
        [0, 1, 6, 7, 24, 25, 30, 31],
        [2, 3, 8, 9, 26, 27, 32, 33],
        [4, 5, 10, 11, 28, 29, 34, 35],
        [12, 13, 18, 19, 36, 37, 42, 43],
        [14, 15, 20, 21, 38, 39, 44, 45],
        [16, 17, 22, 23, 40, 41, 46, 47],
    ]
    assert got.ids[0].tolist() == [[1, 0, 0], [1, 0, 1], [1, 0, 2], [1, 1, 0], [1, 1, 1], [1, 1, 2]]
    assert got.ids.dtype == torch.float32


def test_a_full_size_reference_has_the_token_count_bfl_gives() -> None:
    got = reference_tokens([torch.zeros(1, 16, 128, 128)])
    assert got.tokens.shape == (1, 4096, 64)
    assert got.ids[0, -1].tolist() == [1, 63, 63]
    assert got.ids[0, 64].tolist() == [1, 1, 0]


def test_two_squares_stand_below_each_other_then_a_third_beside() -> None:
    # 2+0 > 2+0 is false: the second starts at row 2; then 2+4 > 2+2: the third starts at column 2.
    ids = offset_ids([(2, 2), (2, 2), (2, 2)])[0]
    assert ids[0].tolist() == [1, 0, 0]
    assert ids[4].tolist() == [1, 2, 0]
    assert ids[8].tolist() == [1, 0, 2]


def test_a_tall_one_goes_beside_a_wide_one_below() -> None:
    assert offset_ids([(4, 2), (5, 2)])[0][8].tolist() == [1, 0, 2]
    assert offset_ids([(2, 4), (2, 5)])[0][8].tolist() == [1, 2, 0]


def test_odd_latents_are_padded_around() -> None:
    latent = torch.arange(9.0).reshape(1, 1, 3, 3)
    assert pad_to_even(latent)[0, 0].tolist() == [[0, 1, 2, 0], [3, 4, 5, 3], [6, 7, 8, 6], [0, 1, 2, 0]]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=5))
def test_no_two_tokens_share_a_place(grids: list[tuple[int, int]]) -> None:
    ids = offset_ids(grids)[0]
    assert ids.shape == (sum(h * w for h, w in grids), 3)
    assert len({tuple(place) for place in ids.tolist()}) == len(ids)
    assert (ids[:, 0] == 1).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))
def test_packing_loses_nothing(batch: int, channels: int, rows: int, columns: int) -> None:
    latent = torch.randn(batch, channels, rows * 2, columns * 2)
    tokens = pack(latent)
    assert sorted(tokens.flatten().tolist()) == sorted(latent.flatten().tolist())
    assert tokens[0, 0, 3] == latent[0, 0, 1, 1]


@pytest.mark.parametrize("latents", [[], [torch.zeros(2, 16, 4, 4)], [torch.zeros(16, 4, 4)]])
def test_wrong_shapes_are_refused(latents: list) -> None:
    with pytest.raises(ValueError, match="latents|expected"):
        reference_tokens(latents)
