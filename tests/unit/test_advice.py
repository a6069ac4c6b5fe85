"""Which threshold to try after a run, and what is said about it."""

from __future__ import annotations

import math
import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from lib_fluxkontext.caching.first_block import FirstBlockConfig
from lib_fluxkontext.hosts.forge.runtime.sampler_compatibility import noisy_sampler
from lib_fluxkontext.presentation.advice import advice_html, advice_text, suggested_threshold
from lib_fluxkontext.presentation.chart import step_chart
from lib_fluxkontext.telemetry.advice import VISIBLE_LOSS, advise, predict_reused
from lib_fluxkontext.telemetry.records import CallRecord, GenerationReport, PassReport


def sample(position: list[float], threshold: float, noisy: str | None = None, **told: Any) -> PassReport:
    """Run the cache's rule over steps that stand at these places of a straight line."""
    config = FirstBlockConfig(threshold, **told)
    calls, computed = [], 0
    for step, place in enumerate(position):
        last = step == len(position) - 1 and config.compute_last
        limited = bool(config.max_consecutive) and step - computed > config.max_consecutive
        compared = step >= config.warmup_steps and not last and not limited
        distance = abs(place - position[computed]) if compared else None
        hit = distance is not None and distance < threshold
        if not hit:
            computed = step
        calls.append(CallRecord(step, 1.0 - step / len(position), 1.0, int(hit), 1, distance))
    return PassReport("Sampling", calls, 1.0, first_block=config, noisy_sampler=noisy)


def reused(sampling: PassReport) -> list[int]:
    return [step.index for step in sampling.steps if step.kind == "reused"]


def even(change: float, steps: int = 20) -> list[float]:
    return [change * step for step in range(steps)]


def generation(sampling: PassReport) -> GenerationReport:
    return GenerationReport((sampling,))


WAVE = [step * 0.05 + 0.02 * math.sin(step) for step in range(20)]


@pytest.mark.parametrize("told", [{}, {"warmup_steps": 4}, {"compute_last": True}, {"max_consecutive": 2}])
@pytest.mark.parametrize("threshold", [0.001, 0.05, 0.1, 0.3, 1.0])
def test_at_its_own_threshold_a_prediction_is_what_happened(threshold: float, told: dict[str, Any]) -> None:
    sampling = sample(WAVE, threshold, **told)
    assert predict_reused(sampling, threshold) == reused(sampling)


@pytest.mark.parametrize("base", [0.001, 0.06, 0.12, 0.3])
@pytest.mark.parametrize("threshold", [0.02, 0.055, 0.11, 0.16, 0.3])
@pytest.mark.parametrize(
    "told", [{}, {"warmup_steps": 4}, {"max_consecutive": 1}, {"max_consecutive": 3, "compute_last": True}]
)
def test_other_thresholds_reuse_about_as_predicted(base: float, threshold: float, told: dict[str, Any]) -> None:
    predicted = predict_reused(sample(WAVE, base, **told), threshold)
    assert abs(len(predicted) - len(reused(sample(WAVE, threshold, **told)))) <= 2


def test_what_the_cache_was_told_is_respected() -> None:
    position = even(0.01)
    assert predict_reused(sample(position, 0.001, warmup_steps=5), 1.0) == list(range(5, 20))
    assert predict_reused(sample(position, 0.001, compute_last=True), 1.0) == list(range(1, 19))
    assert predict_reused(sample(position, 0.001, max_consecutive=1), 1.0) == list(range(1, 20, 2))
    # A run that was stopped by the limit alone: the steps that were not measured are like their neighbours.
    assert predict_reused(sample(position, 1.0, max_consecutive=1), 0.005) == []
    assert predict_reused(sample(position, 0.001), 0.0) == []
    assert predict_reused(PassReport("Sampling", sample(position, 0.1).calls, 1.0), 0.5) == []


def test_the_reference_step_moves_with_the_threshold() -> None:
    """Steps 0.1 apart: at 0.15 every second one is reused, not all of them, though each change is below 0.15."""
    assert predict_reused(sample(even(0.1), 0.001), 0.15) == list(range(1, 20, 2))


def test_noise_does_not_add_up_as_a_straight_path_does() -> None:
    smooth, noisy = sample(even(0.1), 0.001), sample(even(0.1), 0.001, "Euler a")
    assert len(predict_reused(noisy, 0.19)) > len(predict_reused(smooth, 0.18))


def test_both_calls_of_a_second_order_step_have_to_be_reused() -> None:
    calls = [CallRecord(0, 1.0, 1.0, 0, 1), CallRecord(0, 0.9, 1.0, 0, 1)]
    for step in range(1, 5):
        calls += [
            CallRecord(step, 0.9 - step / 10, 1.0, 0, 1, 0.01),
            CallRecord(step, 0.85 - step / 10, 1.0, 0, 1, 0.2),
        ]
    sampling = PassReport("Sampling", calls, 1.0, first_block=FirstBlockConfig(0.001))
    assert predict_reused(sampling, 0.1) == []
    assert predict_reused(sampling, 0.25) == [1, 3]


def test_parts_of_a_split_batch_are_one_evaluation() -> None:
    calls = [CallRecord(0, 1.0, 1.0, 0, 1), CallRecord(0, 1.0, 1.0, 0, 1)]
    for step in range(1, 5):
        calls += [CallRecord(step, 1.0 - step / 10, 1.0, 0, 1, distance) for distance in (0.1, 0.12)]
    sampling = PassReport("Sampling", calls, 1.0, first_block=FirstBlockConfig(0.001))
    assert predict_reused(sampling, 0.11) == []
    assert predict_reused(sampling, 0.13) == [1, 3]


def test_nothing_reused_is_explained_and_the_smallest_useful_threshold_suggested() -> None:
    sampling = sample(even(0.313), 0.14)
    report = generation(sampling)
    advice = advise(report)
    assert advice is not None
    assert (advice.reason, advice.reused, advice.steps) == ("nothing", 0, 20)
    assert advice.suggestion is not None
    assert advice.suggestion.threshold == 0.32
    assert advice.suggestion.reused == len(reused(sample(even(0.313), 0.32)))
    assert suggested_threshold(report) == 0.32
    said = advice_text(report)
    assert said.startswith("The smallest change was 0.31: at 0.14 nothing can be reused. About 0.32 would reuse 10 of")
    assert "Above 0.2 pictures can change visibly" in said


def test_a_threshold_without_visible_loss_is_preferred_if_it_helps() -> None:
    position = [0.0]
    for step in range(1, 20):  # four steps are within the bound, the others need twice as much
        position.append(position[-1] + (0.15 if step in (3, 7, 11, 15) else 0.4))
    suggestion = suggested_threshold(generation(sample(position, 0.1)))
    assert suggestion is not None
    assert suggestion <= VISIBLE_LOSS
    assert "visibly" not in advice_text(generation(sample(position, 0.1)))


def test_everything_reused_gets_a_smaller_threshold() -> None:
    report = generation(sample(even(0.02), 0.9))
    suggestion = suggested_threshold(report)
    assert suggestion is not None
    assert 0 < len(reused(sample(even(0.02), suggestion))) <= 14
    assert advice_text(report).startswith("19 of 20 steps were reused, all that can be: at 0.9")


def test_little_reused_gets_a_higher_threshold() -> None:
    position = [0.0, 0.01]
    position += [0.01 + 0.103 * step for step in range(1, 19)]
    report = generation(sample(position, 0.05))
    assert advice_text(report).startswith("Only 1 of 20 steps changed by less than 0.05 and were reused.")
    assert suggested_threshold(report) == 0.11


def test_where_no_threshold_helps_it_is_said_without_a_button() -> None:
    report = generation(sample(even(1.5), 0.14))
    assert suggested_threshold(report) is None
    assert advice_text(report) == (
        "The smallest change was 1.50: at 0.14 nothing can be reused. No higher threshold would reuse a step."
    )
    assert "<button" not in advice_html(report)


@pytest.mark.parametrize(
    "sampling",
    [
        PassReport("Sampling", sample(even(0.3), 0.1).calls, 1.0),  # without the cache
        sample(even(0.3), 0.1, warmup_steps=20),  # nothing was measured
        sample(even(0.3, 3), 0.1),  # too few steps
        sample(even(0.05), 0.14),  # two of three reused
        sample(even(0.01), 1.0, max_consecutive=2),  # all that may be, but the user set a limit
        sample(even(0.01), 1.0, warmup_steps=12),  # all that may be, and that is less than half
        PassReport("Sampling", [], 0.0, first_block=FirstBlockConfig(0.14)),
    ],
)
def test_nothing_is_said_where_nothing_helps(sampling: PassReport) -> None:
    report = generation(sampling)
    assert advise(report) is None
    assert (advice_text(report), advice_html(report), suggested_threshold(report)) == ("", "", None)
    assert advice_html(GenerationReport()) == ""


def test_a_noisy_sampler_is_named_as_the_reason() -> None:
    assert "Euler a adds noise in every step" in advice_text(generation(sample(even(0.313), 0.14, "Euler a")))
    assert "noise" not in advice_text(generation(sample(even(0.313), 0.14)))


def test_a_distance_at_the_threshold_does_not_look_smaller() -> None:
    assert "was 0.142: at 0.14 nothing" in advice_text(generation(sample(even(0.142), 0.14)))


def test_the_first_sampling_is_the_one_that_is_looked_at_and_named() -> None:
    hires = sample(even(0.05), 0.14)
    report = GenerationReport((sample(even(0.313), 0.14), hires))
    assert advice_text(report).startswith("Sampling: The smallest change")
    assert advise(GenerationReport((hires, *report.passes))) is None


def test_the_html_has_a_button_with_the_number_and_is_escaped() -> None:
    report = generation(sample(even(0.313), 0.14, "<b>a"))
    html = advice_html(report)
    assert '<button type="button" class="fk-advice-use" ' in html
    assert 'data-fk-threshold="0.32">Use 0.32</button>' in html
    assert "&lt;b&gt;a adds noise" in html
    assert "<button" not in advice_html(report, button=False)


def test_the_report_tells_what_the_cache_was_told() -> None:
    told = generation(sample(even(0.3), 0.14, "LCM", warmup_steps=2)).to_dict()["passes"][0]
    assert told["first_block"] == {
        "threshold": 0.14,
        "warmup_steps": 2,
        "max_consecutive": 0,
        "compute_last": False,
        "forecast": False,
    }
    assert told["noisy_sampler"] == "LCM"
    without = generation(PassReport("Sampling", [], 0.0)).to_dict()["passes"][0]
    assert (without["first_block"], without["noisy_sampler"]) == (None, None)


def test_the_chart_shows_which_steps_lay_below_the_threshold() -> None:
    sampling = sample(WAVE, 0.14)
    svg = step_chart(sampling.steps, "x", 0.14)
    count = len(reused(sampling))
    assert 0 < count < 19
    assert svg.count('class="fk-change-below"') == count
    assert svg.count('class="fk-change-above"') == 19 - count
    assert svg.count('class="fk-threshold"') == 1
    assert f"{count} of 19 below the threshold 0.14" in re.findall(r'aria-label="([^"]*)"', svg)[0]
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)" r="\d+" class="fk-change-below"', svg)]
    (line,) = re.findall(r'y1="([\d.]+)" x2="[\d.]+" y2="[\d.]+" class="fk-threshold"', svg)
    assert min(heights) > float(line)
    for plain in (step_chart(sampling.steps, "x"), step_chart(sample(WAVE, 0.14, warmup_steps=20).steps, "x", 0.14)):
        assert "fk-change" not in plain
        assert "threshold" not in plain


def test_a_change_far_above_the_others_stands_at_the_top() -> None:
    svg = step_chart(sample([*even(0.1, 10), 5.0], 0.14).steps, "x", 0.14)
    assert svg.count("<polygon") == 1


def euler(model: Any, x: Any, sigmas: Any, s_noise: float = 1.0) -> None: ...
def ancestral(model: Any, x: Any, sigmas: Any, eta: float = 1.0, noise_sampler: Any = None) -> None: ...
def lcm(model: Any, x: Any, sigmas: Any, noise_sampler: Any = None) -> None: ...
def ddim(model: Any, x: Any, timesteps: Any, eta: float = 0.0) -> None: ...


@pytest.mark.parametrize(
    ("function", "field", "eta", "noisy"),
    [
        (euler, "eta_ancestral", None, False),
        (ancestral, "eta_ancestral", None, True),
        (ancestral, "eta_ancestral", 0.0, False),
        (lcm, "eta_ancestral", None, True),
        (ddim, "eta_ddim", None, False),
        (ddim, "eta_ddim", 0.5, True),
        (None, "eta_ancestral", None, False),
    ],
)
def test_samplers_that_add_noise_are_known_by_their_parameters(
    monkeypatch: pytest.MonkeyPatch, function: Any, field: str, eta: float | None, noisy: bool
) -> None:
    shared = SimpleNamespace(opts=SimpleNamespace(eta_ancestral=1.0, eta_ddim=0.0))
    monkeypatch.setitem(sys.modules, "modules", SimpleNamespace(shared=shared))
    sampler = SimpleNamespace(config=SimpleNamespace(name="Some"), func=function, eta_option_field=field)
    p: Any = SimpleNamespace(sampler=sampler, eta=eta)
    assert noisy_sampler(p) == ("Some" if noisy else None)


def test_res_multistep_takes_a_noise_sampler_in_vain() -> None:
    sampler = SimpleNamespace(config=SimpleNamespace(name="Res Multistep"), func=lcm)
    p: Any = SimpleNamespace(sampler=sampler, eta=None)
    assert noisy_sampler(p) is None
