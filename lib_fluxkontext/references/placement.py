"""Where references stand: position ids by the rules that ComfyUI and Forge Neo know.

``offset``, ``index`` and ``uxo`` are ComfyUI's names (``comfy/ldm/flux/model.py``, ``ref_latents_method``, PR #9356;
Neo's ``backend/nn/flux.py`` has the same). The model was trained with a reference on plane 1, as ``offset`` has it; the
others are for LoRAs that were trained with them.

Here all is counted in tokens, there in latent pixels that are halved at the end. That is the same where every latent
side is even, as with all sizes that are multiples of 16 pixels. A reference with an odd side is padded to whole tokens,
but ComfyUI adds up the sides without the padding: behind two with odd sides, a third can start a token earlier there
and overlap the one before it. Here none ever overlaps another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lib_fluxkontext.settings import Placement

Grid = tuple[int, int]
"""Rows and columns in tokens."""

Corner = tuple[int, int, int]
"""Position id of a reference's first token: plane, row, column. The generated picture's is 0, 0, 0."""

Place = Callable[[Sequence[Grid]], Tensor]
"""The references' grids → their position ids, (1, Σh·w, 3) float32 on the CPU."""

REFERENCE_PLANE = 1
"""First axis of a reference's position ids; the generated picture's is 0 (Black Forest Labs, ``prepare_kontext``)."""


def position_ids(
    placement: Placement, grids: Sequence[Grid], placed: Sequence[Grid] = (), canvas: Grid = (0, 0)
) -> Tensor:
    """Return the position ids of references.

    Args:
        placement: the rule.

            - ``"offset"``: on plane 1. With H and W the furthest row and column used so far, a reference of h×w tokens
              starts at column W if h + H > w + W, else at row H. So they tile a roughly square plane.
            - ``"index"``: the first on plane 1, the second on plane 2 and so on, each from row 0 and column 0.
            - ``"uxo"``: on the picture's own plane, down the diagonal: from the row and column where the picture and
              all references before have ended.
        grids: of each reference.
        placed: of the references that the host itself has placed before these, by ``"offset"``. Offset goes on behind
            them, index begins at plane 2 where there are any, and to uxo they make no difference.
        canvas: of the picture being made; only uxo depends on it.

    Returns:
        (1, Σh·w, 3) float32 on the CPU: plane, row, column.
    """
    match placement:
        case "offset":
            corners = _offset_corners([*placed, *grids])[len(placed) :]
        case "index":
            first = REFERENCE_PLANE + (1 if placed else 0)
            corners = [(first + index, 0, 0) for index in range(len(grids))]
        case "uxo":
            corners = _diagonal_corners(grids, canvas)
    return torch.cat([_grid_ids(grid, corner) for grid, corner in zip(grids, corners, strict=True)], dim=1)


def offset_ids(grids: Sequence[Grid]) -> Tensor:
    """Return position ids by ``"offset"``, with nothing placed before; see ``position_ids``."""
    return position_ids("offset", grids)


def _offset_corners(grids: Sequence[Grid]) -> list[Corner]:
    used_rows = used_columns = 0
    corners = []
    for rows, columns in grids:
        if rows + used_rows > columns + used_columns:
            row, column = 0, used_columns
        else:
            row, column = used_rows, 0
        corners.append((REFERENCE_PLANE, row, column))
        used_rows = max(used_rows, row + rows)
        used_columns = max(used_columns, column + columns)
    return corners


def _diagonal_corners(grids: Sequence[Grid], canvas: Grid) -> list[Corner]:
    row, column = canvas
    corners = []
    for rows, columns in grids:
        corners.append((0, row, column))
        row += rows
        column += columns
    return corners


def _grid_ids(grid: Grid, corner: Corner) -> Tensor:
    rows, columns = grid
    plane, row, column = corner
    ids = torch.empty(rows, columns, 3, dtype=torch.float32)
    ids[..., 0] = plane
    ids[..., 1] = torch.arange(row, row + rows, dtype=torch.float32)[:, None]
    ids[..., 2] = torch.arange(column, column + columns, dtype=torch.float32)[None, :]
    return ids.reshape(1, rows * columns, 3)
