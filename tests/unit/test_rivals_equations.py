"""TeaCache, EasyCache and Spectrum, held to their papers' equations on sequences worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.rivals.easycache import EasyCacheState
from benchmarks.rivals.flux_parts import relative_l1
from benchmarks.rivals.spectrum import spectrum
from benchmarks.rivals.spectrum_forecast import (
    AUTHORS,
    NEO,
    SpectrumForecaster,
    SpectrumSchedule,
    SpectrumSettings,
    chebyshev,
    linear_weights,
    ridge_weights,
)
from benchmarks.rivals.teacache import (
    FLUX_DEV,
    TeaCacheState,
    calibrated_coefficients,
    fit_coefficients,
    recorded_changes,
    rescaled,
    teacache,
)
from tests.support.tiny_pipeline import GRID, STEPS, call_arguments, sampled, tiny_pipeline

PICTURE = GRID[0] * GRID[1]


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_pipeline()


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def stack_output(pipeline: Any, arguments: dict[str, Any]) -> Tensor:
    """What the last block gives for the picture's tokens in an uncached call."""
    kept: list[Tensor] = []
    last = pipeline.transformer.single_transformer_blocks[-1]
    handle = last.register_forward_hook(lambda module, args, output: kept.append(output[1][:, :PICTURE]))
    pipeline.transformer(**arguments)
    handle.remove()
    return kept[0]


def output_layers(pipeline: Any, hidden: Tensor, arguments: dict[str, Any]) -> Tensor:
    transformer = pipeline.transformer
    times = (1000 * arguments["timestep"], 1000 * arguments["guidance"])
    embedding = transformer.time_text_embed(*times, arguments["pooled_projections"])
    output: Tensor = transformer.proj_out(transformer.norm_out(hidden, embedding))
    return output


def test_relative_l1() -> None:
    assert relative_l1(torch.tensor([2.0, -2.0]), torch.tensor([1.0, 1.0])) == 2.0  # (1 + 3) / (1 + 1)


def test_teacache_rescales_by_its_polynomial() -> None:
    assert rescaled((2.0, 0.0, 0.1), 0.5) == pytest.approx(0.6)
    assert rescaled((1.0, -1.0), 0.5) == 0.0
    assert rescaled(FLUX_DEV, 0.0) == pytest.approx(0.264230861)


def test_teacache_computes_when_the_sum_reaches_the_threshold() -> None:
    state = TeaCacheState((2.0, 0.0), threshold=0.5, steps=8)  # f(x) = 2x
    changes = [None, 0.125, 0.0625, 0.0625, 0.125, 0.1, 0.3, 0.0]
    # Sums of f: –, 0.25, 0.375, 0.5 (computed), 0.25, 0.45, 1.05 (computed), 0 but the last.
    assert [state.must_compute(change) for change in changes] == [True, False, False, True, False, False, True, True]


def test_teacache_adds_the_last_residual_under_the_timestep_of_now(pipeline: Any) -> None:
    first, second = call_arguments(sigma=1.0, seed=1), call_arguments(sigma=0.7, seed=2)
    embed = pipeline.transformer.x_embedder
    residual = stack_output(pipeline, first) - embed(first["hidden_states"][:, :PICTURE])
    expected = output_layers(pipeline, embed(second["hidden_states"][:, :PICTURE]) + residual, second)
    with teacache(pipeline, GRID, 3, threshold=99.0, coefficients=(1.0, 0.0)) as work:
        pipeline.transformer(**first)
        (output,) = pipeline.transformer(**second)
    assert work.evaluations == 1
    torch.testing.assert_close(output[:, :PICTURE], expected)
    assert not output[:, PICTURE:].any()


def test_teacache_measures_the_modulated_input_and_the_output(pipeline: Any) -> None:
    calls = [call_arguments(sigma=1.0, seed=1), call_arguments(sigma=0.7, seed=2)]
    transformer = pipeline.transformer
    modulated, outputs = [], []
    for arguments in calls:
        handle = transformer.transformer_blocks[0].norm1.register_forward_hook(
            lambda module, args, output: modulated.append(output[0][:, :PICTURE])
        )
        outputs.append(transformer(**arguments)[0][:, :PICTURE])
        handle.remove()
    with recorded_changes(pipeline, GRID) as changes:
        for arguments in calls:
            transformer(**arguments)
    expected = tuple(relative_l1(second, first) for first, second in (modulated, outputs))
    assert changes == [pytest.approx(expected)]


def test_teacache_fits_what_it_measured(pipeline: Any) -> None:
    changes = [(x / 10, 3 * (x / 10) ** 2 - x / 10 + 0.5) for x in range(6)]
    assert fit_coefficients(changes, degree=2) == pytest.approx((3.0, -1.0, 0.5))
    with pytest.raises(ValueError, match="3 changes"):
        fit_coefficients(changes[:3], degree=2)
    fitted = calibrated_coefficients(pipeline, GRID, [partial(sampled, pipeline)] * 2, degree=1)
    with recorded_changes(pipeline, GRID) as recorded:
        sampled(pipeline)
    assert len(recorded) == STEPS - 1
    assert fitted == pytest.approx(fit_coefficients(recorded, degree=1), rel=1e-4)


@pytest.mark.parametrize(("sixth", "computes"), [(6.75, False), (7.0, True)])
def test_easycache_by_hand(sixth: float, computes: bool) -> None:
    state = EasyCacheState(threshold=1.0, steps=7, warmup_steps=2)

    def decide(x: float) -> bool:
        return state.must_compute(torch.tensor([x]))

    def computed(x: float, v: float) -> None:
        state.computed(torch.tensor([x]), torch.tensor([v]))

    assert decide(0.0)
    computed(0.0, 2.0)
    assert decide(1.0)
    computed(1.0, 4.0)  # k = |4 − 2| / |1 − 0| = 2
    assert not decide(1.5)  # ε = 2 · 0.5 / 4 = 0.25
    assert state.forecast(torch.tensor([1.5])).item() == 4.5  # x + (4 − 1)
    assert not decide(2.5)  # + 0.5
    assert decide(3.5)  # + 0.5 = 1.25
    computed(3.5, 14.0)  # k = |14 − 4| / |3.5 − 1| = 4, from the last computed call, not the last call
    assert decide(sixth) is computes  # 4 · 3.5 / 14 = 1; a little less does not reach it
    assert decide(sixth)  # the last


def test_easycache_measures_mean_absolute_values() -> None:
    state = EasyCacheState(threshold=0.5, steps=9, warmup_steps=2)
    for x, v in (
        (torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0])),
        (torch.tensor([2.0, 0.0]), torch.tensor([3.0, -1.0])),
    ):
        assert state.must_compute(x)
        state.computed(x, v)
    # k = mean(2, 2) / mean(2, 0) = 2; ‖v‖ = mean(3, 1) = 2; ε = 2 · mean(0, 0.5) / 2 = 0.25, then 0.5.
    assert not state.must_compute(torch.tensor([2.0, -0.5]))
    assert state.must_compute(torch.tensor([2.0, -1.0]))


def test_chebyshev_polynomials() -> None:
    assert chebyshev(torch.tensor([0.5, -1.0]), 4).tolist() == [[1, 0.5, -0.5, -1, -0.5], [1, -1, 1, -1, 1]]
    assert chebyshev(torch.tensor([0.5]), 0).tolist() == [[1]]


@pytest.mark.parametrize(
    ("at", "degree", "ridge", "weights"),
    [
        (2, 0, 1.0, [1 / 3, 1 / 3]),  # (1 + 1 + λ)⁻¹
        (2, 1, 0.5, [0.4, 0.4]),  # τ = 0 between −1 and 1: ΦᵀΦ + λI = 2.5 I
        (4, 1, 0.5, [0.0, 0.8]),
        (6, 1, 0.5, [-0.4, 1.2]),  # τ = 2
    ],
)
def test_ridge_regression_by_hand(at: float, degree: int, ridge: float, weights: list[float]) -> None:
    assert ridge_weights([0, 4], at, 4, degree, ridge).tolist() == pytest.approx(weights)


def test_without_ridge_a_polynomial_is_continued() -> None:
    times = [0, 1, 3]
    weights = ridge_weights(times, 5, 20, 2, 1e-12)
    assert sum(weight * time**2 for weight, time in zip(weights.tolist(), times, strict=True)) == pytest.approx(
        25, rel=1e-3
    )


def test_linear_extrapolation() -> None:
    assert linear_weights([0, 2, 4], 5).tolist() == [0.0, -0.5, 1.5]
    assert linear_weights([3], 5).tolist() == [1.0]


def test_spectrum_mixes_both_forecasts_of_its_history() -> None:
    settings = replace(NEO, weight=0.25, degree=0, ridge=1.0, history=2)
    forecaster = SpectrumForecaster(settings, 20)
    for step, value in ((0, 100.0), (1, 3.0), (3, 9.0)):
        forecaster.computed(step, torch.tensor([[value]]))
    # Of the last two: Chebyshev (3 + 9) / (2 + λ) = 4; linear 9 + 6 / 2 = 12.
    assert forecaster.forecast(4).tolist() == [[10.0]]


@pytest.mark.parametrize(
    ("settings", "steps", "computed"),
    [
        (AUTHORS, 20, [0, 1, 2, 3, 4, 6, 8, 11, 15]),  # window 2, 2.75, 3.5, 4.25, 5
        (NEO, 20, [0, 1, 2, 3, 4, 5, 7, 9, 11, 13, 15, 17, 18, 19]),
    ],
)
def test_spectrum_schedule(settings: SpectrumSettings, steps: int, computed: list[int]) -> None:
    schedule = SpectrumSchedule(settings, steps)
    assert [step for step in range(steps) if schedule.must_compute()] == computed


@pytest.mark.parametrize(("growth", "passes"), [(0.75, 14), (3.0, 10)])
def test_spectrum_schedule_is_the_authors(growth: float, passes: int) -> None:
    """Their README: of 50 steps 14 with α = 0.75, 10 with α = 3."""
    schedule = SpectrumSchedule(replace(AUTHORS, growth=growth), 50)
    assert sum(schedule.must_compute() for _ in range(50)) == passes


def test_spectrum_forecasts_features_or_the_denoised_latent(pipeline: Any) -> None:
    first, second = call_arguments(sigma=1.0, seed=1), call_arguments(sigma=0.5, seed=2)
    x, then = first["hidden_states"][:, :PICTURE], second["hidden_states"][:, :PICTURE]
    last = replace(AUTHORS, weight=0.0, window=9, warmup_steps=1)  # one feature: it is repeated
    expected = {
        "hidden": output_layers(pipeline, stack_output(pipeline, first), second),
        "denoised": (then - (x - pipeline.transformer(**first)[0][:, :PICTURE])) / 0.5,
    }
    for feature in ("hidden", "denoised"):
        with spectrum(pipeline, GRID, 9, settings=replace(last, feature=feature)) as work:
            pipeline.transformer(**first)
            (output,) = pipeline.transformer(**second)
        assert (work.evaluations, work.calls) == (1, 2)
        torch.testing.assert_close(output[:, :PICTURE], expected[feature])
        assert not output[:, PICTURE:].any()
