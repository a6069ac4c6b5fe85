"""Placement of references, in numbers worked out by hand from the rules of ComfyUI's ``ref_latents_method``.

``comfy/ldm/flux/model.py``, ``_forward`` and ``process_img``, as Forge Neo has them too: with ``tests/forge``'s
``test_references.py``, Neo's own class gives the same.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_fluxkontext.geometry import latent_grid
from lib_fluxkontext.references.placement import Grid, offset_ids, position_ids
from lib_fluxkontext.settings import PLACEMENTS, Placement

SIZES = [(64, 64), (52, 78), (78, 52), (42, 98)]
"""Rows and columns in tokens of 1024×1024, 1248×832, 832×1248 and 1568×672 pixels."""

CANVAS = (66, 62)
"""Of 992×1056 pixels."""

EXPECTED: dict[Placement, list[tuple[list[int], list[int]]]] = {
    # 64+0 > 64+0 is false: below. 52+64 > 78+64 is false: row 64; now 116 rows and 78 columns are used.
    # 78+116 > 52+78: column 78, so 130 columns. 42+116 > 98+130 is false: row 116.
    "offset": [
        ([1, 0, 0], [1, 63, 63]),
        ([1, 64, 0], [1, 115, 77]),
        ([1, 0, 78], [1, 77, 129]),
        ([1, 116, 0], [1, 157, 97]),
    ],
    "index": [
        ([1, 0, 0], [1, 63, 63]),
        ([2, 0, 0], [2, 51, 77]),
        ([3, 0, 0], [3, 77, 51]),
        ([4, 0, 0], [4, 41, 97]),
    ],
    # Rows from 66, 66+64, 130+52, 182+78; columns from 62, 62+64, 126+78, 204+52.
    "uxo": [
        ([0, 66, 62], [0, 129, 125]),
        ([0, 130, 126], [0, 181, 203]),
        ([0, 182, 204], [0, 259, 255]),
        ([0, 260, 256], [0, 301, 353]),
    ],
}
"""First and last token's id of each reference: plane, row, column."""


def parts(ids: torch.Tensor, grids: list[Grid]) -> list[torch.Tensor]:
    """Split ids into (rows, columns, 3) for each reference."""
    assert ids.shape == (1, sum(rows * columns for rows, columns in grids), 3)
    assert ids.dtype == torch.float32
    pieces = ids[0].split([rows * columns for rows, columns in grids])
    return [piece.reshape(*grid, 3) for piece, grid in zip(pieces, grids, strict=True)]


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_first_and_last_token_of_four_references(placement: Placement) -> None:
    found = parts(position_ids(placement, SIZES, canvas=CANVAS), SIZES)
    assert [(part[0, 0].tolist(), part[-1, -1].tolist()) for part in found] == EXPECTED[placement]
    for part in found:
        assert torch.equal(part[:, :, 1] - part[0, 0, 1], torch.arange(part.shape[0]).expand(part.shape[1], -1).T)
        assert torch.equal(part[:, :, 2] - part[0, 0, 2], torch.arange(part.shape[1]).expand(part.shape[0], -1))
        assert (part[:, :, 0] == part[0, 0, 0]).all()


@pytest.mark.parametrize(
    ("placement", "first", "second"),
    [
        # Placed: 4 rows, 6 columns. 3+4 > 2+6 is false: row 4, 7 rows used. 2+7 > 2+6: column 6.
        ("offset", [1, 4, 0], [1, 0, 6]),
        ("index", [2, 0, 0], [3, 0, 0]),
        ("uxo", [0, 8, 9], [0, 11, 11]),
    ],
)
def test_behind_a_reference_that_the_host_has_placed(placement: Placement, first: list, second: list) -> None:
    grids = [(3, 2), (2, 2)]
    found = parts(position_ids(placement, grids, placed=[(4, 6)], canvas=(8, 9)), grids)
    assert [part[0, 0].tolist() for part in found] == [first, second]


def test_several_placed_are_all_on_plane_1_so_index_begins_at_2() -> None:
    assert position_ids("index", [(1, 1)], placed=[(2, 2), (2, 2), (2, 2)])[0].tolist() == [[2, 0, 0]]


def test_only_uxo_depends_on_the_canvas() -> None:
    for placement in PLACEMENTS:
        same = torch.equal(position_ids(placement, SIZES, canvas=(4, 4)), position_ids(placement, SIZES, canvas=(8, 8)))
        assert same == (placement != "uxo")


def test_offset_is_the_default_of_the_tokens() -> None:
    assert torch.equal(offset_ids(SIZES), position_ids("offset", SIZES, canvas=CANVAS))


def test_odd_latents_are_counted_in_whole_tokens() -> None:
    """5×9 latent pixels are 3×5 tokens. ComfyUI begins the third at row (10 + 1) // 2 = 5, on the second's last."""
    grids = [latent_grid(5, 9)] * 3
    assert grids[0] == (3, 5)
    assert [part[0, 0].tolist() for part in parts(offset_ids(grids), grids)] == [[1, 0, 0], [1, 3, 0], [1, 6, 0]]


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(PLACEMENTS),
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), max_size=2),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_no_two_tokens_share_a_place(placement: Placement, grids: list, placed: list, canvas: Grid) -> None:
    ours = position_ids(placement, grids, placed, canvas)[0].tolist()
    hosts = offset_ids(placed)[0].tolist() if placed else []
    picture = [[0, row, column] for row in range(canvas[0]) for column in range(canvas[1])]
    everything = [*ours, *hosts, *picture]
    assert len({tuple(place) for place in everything}) == len(everything)
