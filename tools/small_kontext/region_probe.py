"""Where the answer is edited: a linear read-out that the transformer is taught to serve, and that is thrown away.

An object, a frame or a caption is a small part of the flow loss, and one at the wrong place costs twice what none
costs, so that a place is learned last. Read out of the tokens in the middle of the model, the edited region is a loss
of its own (deep supervision, Lee et al. 2015, arXiv 1409.5185).
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn

BLOCK = "single_transformer_blocks.3"
"""Whose output is read."""

CELLS = 4
"""Parts of a token's side that are told apart."""


def cells_of(region: np.ndarray) -> Tensor:
    """Return the share of the region in each cell of each token, (tokens, CELLS²), of (height, width) pixels."""
    height, width = (side // 16 for side in region.shape)
    side = 16 // CELLS
    shares = region.reshape(height, CELLS, side, width, CELLS, side).mean((2, 5))
    return torch.from_numpy(shares.transpose(0, 2, 1, 3).reshape(height * width, CELLS**2).astype(np.float32))


class RegionProbe:
    """Reads the region out of the last forward pass. Its own weights are trained here, by AdamW."""

    def __init__(self, model: FluxTransformer2DModel, rate: float = 2e-3) -> None:
        self.linear = nn.Linear(model.inner_dim, CELLS**2).to(model.device)
        self._optimiser = torch.optim.AdamW(self.linear.parameters(), lr=rate, weight_decay=0.0)
        self._hidden = torch.empty(0)
        model.get_submodule(BLOCK).register_forward_hook(self._keep)

    def _keep(self, block: nn.Module, given: tuple[Tensor, ...], result: tuple[Tensor, Tensor]) -> None:
        self._hidden = result[1]

    def loss(self, wanted: Tensor) -> Tensor:
        """Return the mean binary cross entropy against ``cells_of`` of a batch, (N, answer tokens, CELLS²)."""
        hidden = nn.functional.layer_norm(self._hidden[:, : wanted.shape[1]].float(), self._hidden.shape[-1:])
        return nn.functional.binary_cross_entropy_with_logits(self.linear(hidden), wanted)

    def step(self) -> None:
        """Train the read-out after a backward pass."""
        self._optimiser.step()
        self._optimiser.zero_grad()
