"""What the small model's read-out of the edited region is taught."""

from __future__ import annotations

import numpy as np
import torch

from tools.small_kontext.flow import build_transformer
from tools.small_kontext.region_probe import BLOCK, CELLS, RegionProbe, cells_of


def test_cells_are_shares_of_the_region_in_the_order_of_the_tokens() -> None:
    region = np.zeros((32, 48), bool)  # 2×3 tokens
    region[16:20, 32:38] = True  # the first cell of the last token and half of its neighbour
    found = cells_of(region)
    assert found.shape == (6, CELLS**2)
    assert found[5].tolist() == [1.0, 0.5, *[0.0] * 14]
    assert found[:5].sum() == 0


def test_the_read_out_learns_what_the_tokens_say() -> None:
    torch.manual_seed(0)
    model = build_transformer()
    probe = RegionProbe(model, rate=0.05)
    wanted = (torch.rand(2, 8, CELLS**2) > 0.5).float()
    hidden = torch.randn(2, 24, model.inner_dim, requires_grad=True)
    losses = []
    for _ in range(60):
        for hook in model.get_submodule(BLOCK)._forward_hooks.values():
            hook(model.get_submodule(BLOCK), (), (torch.empty(0), hidden))
        loss = probe.loss(wanted)
        loss.backward()
        probe.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4
    assert hidden.grad is not None
    assert hidden.grad[:, 8:].abs().sum() == 0  # the references' tokens are not read
