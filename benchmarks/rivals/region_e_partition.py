"""RegionE's partition of the picture's tokens, and how far the unedited ones jump: pure functions.

Chen et al., "RegionE: Adaptive Region-Aware Generation for Efficient Image Editing", arXiv:2510.25590; where they leave
a detail open, the authors' release (https://github.com/Peyton-Chen/RegionE, FluxKontext) decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.rivals.flux_parts import Grid


def one_step_estimate(sample: Tensor, velocity: Tensor, sigma: float) -> Tensor:
    """Estimate the final latent from one velocity: x₀ = x − σ·v.

    Args:
        sample: (…, C) latent at σ.
        velocity: (…, C) the transformer's output there.
        sigma: noise level, 1 at the start and 0 at the end.

    Returns:
        (…, C) in float32.
    """
    return sample.float() - sigma * velocity.float()


def edited_tokens(
    estimate: Tensor, reference: Tensor, grid: Grid, threshold: float = 0.93, morphology: bool = True
) -> Tensor:
    """Mark the tokens that the instruction changes.

    A token is edited where the cosine similarity of its estimated final latent with the reference's latent at the same
    place is at most ``threshold``. Single tokens are then removed by an erosion and the rest grown by a dilation.

    Args:
        estimate: (B, n, C) estimated final latent, packed as Flux packs it.
        reference: (B, n, C) latent of the reference, packed likewise.
        grid: rows and columns of the picture in tokens, n = rows · columns.
        threshold: cosine similarity; 0.93 in the authors' settings for FLUX.1 Kontext.
        morphology: whether to erode and dilate.

    Returns:
        (B, n) bool.
    """
    similarity = torch.nn.functional.cosine_similarity(estimate.float(), reference.float(), dim=-1)
    edited = similarity <= threshold
    if not morphology:
        return edited
    return dilate(erode(edited.unflatten(-1, grid))).flatten(1)


def erode(mask: Tensor) -> Tensor:
    """Erode (B, rows, columns) bool by a cross of 3×3; what lies outside the picture counts as unset."""
    framed = torch.nn.functional.pad(mask, (1, 1, 1, 1))
    above, below = framed[:, :-2, 1:-1], framed[:, 2:, 1:-1]
    left, right = framed[:, 1:-1, :-2], framed[:, 1:-1, 2:]
    return mask & above & below & left & right


def dilate(mask: Tensor) -> Tensor:
    """Dilate (B, rows, columns) bool by a square of 5×5."""
    return torch.nn.functional.max_pool2d(mask.float()[:, None], 5, stride=1, padding=2)[:, 0] > 0


def jump_factor(sigmas: Sequence[float], step: int, target: int) -> float:
    """Return the factor by which a velocity must grow for one Euler step to end at a later noise level.

    RegionE takes an unedited token from step i straight to step j: x_j = x_i + (σ_j − σ_i)·v. The sampler's own step is
    x_{i+1} = x_i + (σ_{i+1} − σ_i)·v′. Both are equal for v′ = v · (σ_j − σ_i) / (σ_{i+1} − σ_i); in the steps between,
    v′ = 0 holds the token where it is.

    Args:
        sigmas: noise levels of all steps and, behind them, of the finished picture.
        step: i.
        target: j, after i.
    """
    return (sigmas[target] - sigmas[step]) / (sigmas[step + 1] - sigmas[step])
