"""Spectrum around a Flux transformer, written anew from arXiv:2603.01623; see ``spectrum_forecast``.

Two places where it is used: the authors forecast what the last block gives; Forge Neo's "Spectrum Integrated", at the
wrapper of the model's function, forecasts the denoised latent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from benchmarks.rivals.flux_parts import (
    Arguments,
    Compute,
    Grid,
    compute_with_hidden,
    output_of,
    padded,
    replaced_forward,
    time_embedding,
    token_count,
)
from benchmarks.rivals.spectrum_forecast import AUTHORS, SpectrumForecaster, SpectrumSchedule, SpectrumSettings
from benchmarks.rivals.work import Work


@contextmanager
def spectrum(
    pipeline: Any, picture_tokens: Grid, steps: int, *, settings: SpectrumSettings = AUTHORS
) -> Iterator[Work]:
    """Sample one batch of pictures under Spectrum.

    Args:
        pipeline: diffusers'.
        picture_tokens: rows and columns of the picture in tokens.
        steps: calls of the transformer in the run.
        settings: ``AUTHORS``, ``NEO`` or others.
    """
    transformer, tokens = pipeline.transformer, token_count(picture_tokens)
    schedule = SpectrumSchedule(settings, steps)
    forecaster = SpectrumForecaster(settings, steps)
    index = -1

    def hidden(compute: Compute, arguments: Arguments) -> Tensor:
        if schedule.must_compute():
            output, feature = compute_with_hidden(transformer, compute, tokens)
            forecaster.computed(index, feature)
            return output
        embedding = time_embedding(transformer, arguments)
        return output_of(transformer, forecaster.forecast(index), embedding, arguments["hidden_states"])

    def denoised(compute: Compute, arguments: Arguments) -> Tensor:
        given = arguments["hidden_states"]
        x = given[:, :tokens]
        sigma = arguments["timestep"].to(x.dtype).reshape(-1, 1, 1)
        if schedule.must_compute():
            output = compute()
            forecaster.computed(index, x - sigma * output[:, :tokens])
            return output
        return padded((x - forecaster.forecast(index)) / sigma, given)

    forecast = hidden if settings.feature == "hidden" else denoised

    def step(compute: Compute, arguments: Arguments) -> Tensor:
        nonlocal index
        index += 1
        return forecast(compute, arguments)

    with replaced_forward(pipeline, step) as work:
        yield work
