"""Spectrum's forecast and schedule: pure functions and counters.

Han et al., "Adaptive Spectral Feature Forecasting for Diffusion Sampling Acceleration", arXiv:2603.01623.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class SpectrumSettings:
    """Spectrum's settings.

    Attributes:
        weight: of the Chebyshev forecast, 0…1; the rest is linear extrapolation from the last two computed steps. The
            paper's is 1; its authors found a mixture more robust later.
        degree: of the highest Chebyshev polynomial.
        ridge: λ of the ridge regression, above 0.
        window: 𝒩, the first interval between computed steps.
        growth: α, what each computed step after the warm-up adds to the window.
        warmup_steps: first steps, always computed; 1 or more.
        stop: share of the steps after which all are computed.
        history: computed steps that the fit may use, the latest.
        feature: what is forecast: ``"hidden"`` the last block's output, then the output layers run with the timestep of
            now; ``"denoised"`` x − σ·v.
    """

    weight: float
    degree: int
    ridge: float
    window: float
    growth: float
    warmup_steps: int
    stop: float
    history: int
    feature: Literal["hidden", "denoised"]


AUTHORS = SpectrumSettings(0.5, 4, 0.1, 2, 0.75, 5, 1.0, 100, "hidden")
"""What https://github.com/hanjq17/Spectrum gives for Flux: 14 of 50 steps computed, 9 of 20."""

NEO = SpectrumSettings(0.25, 6, 0.5, 2, 0.0, 6, 0.9, 8, "denoised")
"""Forge Neo's defaults: 14 of 20 steps computed. Its wrapper sees the denoised latent, not the model's features."""


class SpectrumSchedule:
    """Which steps are computed: with a window that grows, each ⌊window⌋-th after the warm-up."""

    def __init__(self, settings: SpectrumSettings, steps: int) -> None:
        self._settings = settings
        self._stop = int(steps * settings.stop)
        self._step = 0
        self._forecast = 0
        self._window = float(settings.window)

    def must_compute(self) -> bool:
        """Decide on the next step."""
        warm = self._step >= self._settings.warmup_steps
        compute = not warm or self._step >= self._stop or (self._forecast + 1) % math.floor(self._window) == 0
        if compute and warm:
            # Sums of a decimal growth must not fall below a whole number by rounding.
            self._window = round(self._window + self._settings.growth, 3)
        self._forecast = 0 if compute else self._forecast + 1
        self._step += 1
        return compute


def chebyshev(times: Tensor, degree: int) -> Tensor:
    """Evaluate T_0 … T_degree, (n,) in −1…1 → (n, degree + 1), by T_m = 2τ·T_{m−1} − T_{m−2}."""
    columns = [torch.ones_like(times), times]
    while len(columns) <= degree:
        columns.append(2 * times * columns[-1] - columns[-2])
    return torch.stack(columns[: degree + 1], dim=1)


def ridge_weights(times: Sequence[float], at: float, span: float, degree: int, ridge: float) -> Tensor:
    """Return the weights with which a Chebyshev ridge regression through features gives its value elsewhere.

    The paper fits C = (ΦᵀΦ + λI)⁻¹ΦᵀH and forecasts φ(τ*)ᵀC. That is linear in the features H, so these n numbers are
    all that has to be solved for.

    Args:
        times: steps of the features.
        at: step to forecast.
        span: steps of the run, which τ maps to −1…1.
        degree: of the highest polynomial.
        ridge: λ.

    Returns:
        (n,) in float64.
    """
    basis = chebyshev(torch.tensor([*times, at], dtype=torch.float64) * (2 / span) - 1, degree)
    known, wanted = basis[:-1], basis[-1]
    gram = known.T @ known + ridge * torch.eye(degree + 1, dtype=torch.float64)
    weights: Tensor = known @ torch.linalg.solve(gram, wanted)
    return weights


def linear_weights(times: Sequence[float], at: float) -> Tensor:
    """Return the weights of linear extrapolation from the last two features, (n,); the last alone if there is one."""
    weights = torch.zeros(len(times), dtype=torch.float64)
    weights[-1] = 1.0
    if len(times) > 1:
        ahead = (at - times[-1]) / (times[-1] - times[-2])
        weights[-1] += ahead
        weights[-2] -= ahead
    return weights


class SpectrumForecaster:
    """Keeps features of computed steps, and forecasts.

    Args:
        settings: of Spectrum.
        steps: of the run.
    """

    def __init__(self, settings: SpectrumSettings, steps: int) -> None:
        self._settings = settings
        self._steps = steps
        self._times: list[float] = []
        self._features: list[Tensor] = []

    def computed(self, step: int, feature: Tensor) -> None:
        """Keep a computed step's feature, of any shape."""
        self._times = [*self._times, step][-self._settings.history :]
        self._features = [*self._features, feature][-self._settings.history :]

    def forecast(self, step: int) -> Tensor:
        """Forecast a step's feature: w · Chebyshev + (1 − w) · linear, summed in float32."""
        settings = self._settings
        spectral = ridge_weights(self._times, step, self._steps, settings.degree, settings.ridge)
        weights = settings.weight * spectral + (1 - settings.weight) * linear_weights(self._times, step)
        latest = self._features[-1]
        total = torch.zeros_like(latest, dtype=torch.float32)
        for weight, feature in zip(weights.tolist(), self._features, strict=True):
            if weight:
                total.add_(feature, alpha=weight)
        return total.to(latest.dtype)
