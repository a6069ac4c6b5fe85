"""TeaCache, written anew from its paper.

Liu et al., "Timestep Embedding Tells: It's Time to Cache for Video Diffusion Model", arXiv:2411.19108; for Flux the
authors' release (https://github.com/ali-vilab/TeaCache, TeaCache4FLUX) decides what the paper leaves open. With F_t the
first block's input after its modulation by the timestep:

* L1_rel(F, t) = ‖F_t − F_{t−1}‖₁ / ‖F_{t−1}‖₁, F_{t−1} of the call before, computed or not;
* a polynomial f, fitted once for a model, rescales it to the change of the output;
* a call is computed when Σ f(L1_rel) since the last computed one reaches the threshold; else the last residual of all
  blocks is added to the embedded input, and the output layers run with the timestep of now.

First and last call are computed. Here F is of the picture's tokens alone, and a negative f counts as 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.rivals.flux_parts import (
    Arguments,
    Compute,
    Grid,
    compute_with_hidden,
    embedded_picture,
    output_of,
    relative_l1,
    replaced_forward,
    time_embedding,
    token_count,
)
from benchmarks.rivals.work import Work

FLUX_DEV = (498.651651, -283.781631, 55.8554382, -3.82021401, 0.264230861)
"""The authors' polynomial for FLUX.1 [dev] at 28 steps, highest power first. Their thresholds for it: 0.25 to 0.8."""

DEGREE = 4
"""Of the authors' polynomials."""

Change = tuple[float, float]
"""From one call to the next: relative change of the modulated input, and of the output."""


class TeaCacheState:
    """TeaCache's decisions in a run.

    Args:
        coefficients: of the polynomial, highest power first.
        threshold: of the accumulated change; 0 computes everything.
        steps: calls of the transformer in the run.
    """

    def __init__(self, coefficients: Sequence[float], threshold: float, steps: int) -> None:
        self._coefficients = tuple(coefficients)
        self._threshold = threshold
        self._steps = steps
        self._step = 0
        self._accumulated = 0.0

    def must_compute(self, change: float | None) -> bool:
        """Decide on the next call.

        Args:
            change: L1_rel of its modulated input; None in the first call.
        """
        forced = change is None or self._step >= self._steps - 1
        if change is not None:
            self._accumulated += rescaled(self._coefficients, change)
        compute = forced or not self._accumulated < self._threshold
        if compute:
            self._accumulated = 0.0
        self._step += 1
        return compute


def rescaled(coefficients: Sequence[float], change: float) -> float:
    """Return the polynomial's value, 0 or more."""
    return max(0.0, float(np.polyval(coefficients, change)))


def fit_coefficients(changes: Sequence[Change], degree: int = DEGREE) -> tuple[float, ...]:
    """Fit the polynomial by least squares, as the authors do.

    Args:
        changes: of calibration runs.
        degree: of the polynomial.

    Returns:
        degree + 1 coefficients, highest power first.

    Raises:
        ValueError: there are not more changes than coefficients.
    """
    if len(changes) <= degree + 1:
        raise ValueError(f"{len(changes)} changes do not determine {degree + 1} coefficients")
    inputs, outputs = zip(*changes, strict=True)
    return tuple(float(value) for value in np.polyfit(inputs, outputs, degree))


def calibrated_coefficients(
    pipeline: Any, picture_tokens: Grid, runs: Iterable[Callable[[], object]], degree: int = DEGREE
) -> tuple[float, ...]:
    """Fit the polynomial to this very model.

    Args:
        pipeline: diffusers'.
        picture_tokens: rows and columns of the pictures in tokens.
        runs: each samples one batch on ``pipeline`` without a cache.
        degree: of the polynomial.
    """
    changes: list[Change] = []
    for run in runs:
        with recorded_changes(pipeline, picture_tokens) as recorded:
            run()
        changes += recorded
    return fit_coefficients(changes, degree)


@contextmanager
def recorded_changes(pipeline: Any, picture_tokens: Grid) -> Iterator[list[Change]]:
    """Record, over one uncached run, what the polynomial is fitted to: one change fewer than calls."""
    transformer, tokens = pipeline.transformer, token_count(picture_tokens)
    changes: list[Change] = []
    last: list[tuple[Tensor, Tensor]] = []

    def step(compute: Compute, arguments: Arguments) -> Tensor:
        _, modulated = _modulated(transformer, arguments, tokens, time_embedding(transformer, arguments))
        output = compute()
        picture = output[:, :tokens]
        if last:
            before, output_before = last.pop()
            changes.append((relative_l1(modulated, before), relative_l1(picture, output_before)))
        last.append((modulated, picture))
        return output

    with replaced_forward(pipeline, step):
        yield changes


@contextmanager
def teacache(
    pipeline: Any,
    picture_tokens: Grid,
    steps: int,
    *,
    threshold: float,
    coefficients: Sequence[float] = FLUX_DEV,
) -> Iterator[Work]:
    """Sample one batch of pictures under TeaCache; the batch decides as one.

    Args:
        pipeline: diffusers'.
        picture_tokens: rows and columns of the picture in tokens.
        steps: calls of the transformer in the run.
        threshold: of the accumulated change.
        coefficients: of the polynomial, highest power first; ``calibrated_coefficients`` for another model.
    """
    transformer, tokens = pipeline.transformer, token_count(picture_tokens)
    state = TeaCacheState(coefficients, threshold, steps)
    before: Tensor | None = None
    residual: Tensor | None = None

    def step(compute: Compute, arguments: Arguments) -> Tensor:
        nonlocal before, residual
        embedding = time_embedding(transformer, arguments)
        embedded, modulated = _modulated(transformer, arguments, tokens, embedding)
        change = None if before is None else relative_l1(modulated, before)
        before = modulated
        if state.must_compute(change) or residual is None:
            output, hidden = compute_with_hidden(transformer, compute, tokens)
            residual = hidden - embedded
            return output
        return output_of(transformer, embedded + residual, embedding, arguments["hidden_states"])

    with replaced_forward(pipeline, step) as work:
        yield work


def _modulated(transformer: Any, arguments: Arguments, tokens: int, embedding: Tensor) -> tuple[Tensor, Tensor]:
    """Return the picture's embedded tokens, and these as the first block's attention gets them."""
    embedded = embedded_picture(transformer, arguments, tokens)
    modulated: Tensor = transformer.transformer_blocks[0].norm1(embedded, emb=embedding)[0]
    return embedded, modulated
