"""The optimiser: Muon for weight matrices, AdamW for the rest."""

from __future__ import annotations

import re

import torch
from torch import Tensor


def orthogonalise(matrices: Tensor, rounds: int = 5) -> Tensor:
    """Return matrices (N, rows, columns) with about the same singular vectors and singular values near 1.

    Newton-Schulz iteration with the quintic of Keller Jordan's Muon, done on the small Gram matrices: every
    factor is a polynomial of x x^T, so they commute and x is multiplied once, at the end.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    gram = x @ x.mT
    identity = torch.eye(gram.shape[-1], device=x.device)
    product = identity
    for _ in range(rounds):
        factor = 3.4445 * identity - 4.7750 * gram + 2.0315 * gram @ gram
        product = factor @ product
        gram = factor @ gram @ factor
    x = product @ x
    return x.mT if tall else x


class Muon:
    """Muon for the given weights of at least two dimensions, AdamW for all other parameters.

    Args:
        module: the module to train.
        adam: a pattern for the names of weights that AdamW gets all the same: the first and the last layers.
        rate: Muon's learning rate: how far a matrix moves in spectral norm.
        adam_rate: AdamW's.
        sharpen: factor on AdamW's rate for the scales of queries and keys (``norm_q``, ``norm_k``). They have
            to grow before attention can pick single tokens.
    """

    def __init__(self, module: torch.nn.Module, adam: str, rate: float, adam_rate: float, sharpen: float = 1.0) -> None:
        self.rate, self.adam_rate = rate, adam_rate
        groups: dict[tuple[int, int], list[torch.nn.Parameter]] = {}
        others, scales = [], []
        for name, parameter in module.named_parameters():
            if parameter.ndim < 2 or re.search(adam, name):
                (scales if re.search("norm_(added_)?[qk]", name) else others).append(parameter)
            else:
                groups.setdefault((parameter.shape[0], parameter[0].numel()), []).append(parameter)
        self.groups = list(groups.values())
        self.momenta = [torch.zeros(len(g), *k, device=g[0].device) for k, g in groups.items()]
        self.factors = (1.0, sharpen)
        parts = [{"params": others}, {"params": scales}] if scales else others
        self.adamw = torch.optim.AdamW(parts, lr=adam_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self.parameters = list(module.parameters())

    @torch.no_grad()
    def step(self, share: float) -> None:
        """Make a step with ``share`` of the learning rates, and clear the gradients."""
        for group, factor in zip(self.adamw.param_groups, self.factors, strict=False):
            group["lr"] = self.adam_rate * share * factor
        self.adamw.step()
        for parameters, momentum in zip(self.groups, self.momenta, strict=True):
            gradient = torch.stack([p.grad.reshape(len(p), -1) for p in parameters])
            momentum.lerp_(gradient, 0.05)
            update = orthogonalise(torch.lerp(gradient, momentum, 0.95))
            scale = max(1.0, update.shape[-2] / update.shape[-1]) ** 0.5
            for parameter, change in zip(parameters, update, strict=True):
                parameter.mul_(1 - 0.01 * self.rate * share)
                parameter.sub_(change.reshape(parameter.shape), alpha=self.rate * share * scale)
        for parameter in self.parameters:
            parameter.grad = None
