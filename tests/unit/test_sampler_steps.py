"""Evaluations to steps. The totals were counted in a real Forge at 4 steps, those of Neo's own samplers there at 6."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lib_fluxkontext.hosts.forge.runtime.sampler_steps import evaluations, sampler_step


@pytest.mark.parametrize(
    ("name", "second_order", "counted"),
    [("sample_euler", False, 4), ("sample_heun", True, 7), ("sample_heunpp2", False, 9), ("ddim", False, 3),
     ("plms", False, 4), ("unipc", False, 4)],
)  # fmt: skip
def test_as_many_evaluations_as_forge_makes(name: str, second_order: bool, counted: int) -> None:
    assert sum(evaluations(name, 4, second_order)) == counted


@pytest.mark.parametrize(("name", "counted"), [("sample_dpmpp_2s_ancestral_RF", 11), ("sample_Kohaku_LoNyu_Yog", 14)])
def test_as_many_evaluations_as_neo_makes(name: str, counted: int) -> None:
    assert sum(evaluations(name, 6, second_order=False)) == counted


def steps_seen(name: str, steps: int, total: int, made: int) -> list[tuple[int, bool]]:
    seen = []
    for evaluation in range(made):
        denoiser = SimpleNamespace(steps=steps, total_steps=total, step=evaluation)
        step = sampler_step(SimpleNamespace(funcname=name, model_wrap_cfg=denoiser))
        seen.append((step.index, step.last))
    return seen


def test_a_second_order_sampler_makes_two_evaluations_in_a_step_and_one_in_the_last() -> None:
    assert steps_seen("sample_heun", 3, 6, 5) == [(0, False), (0, False), (1, False), (1, False), (2, True)]


def test_past_the_schedule_no_step_is_the_last() -> None:
    assert steps_seen("sample_dpm_adaptive", 2, 2, 4) == [(0, False), (1, True), (2, False), (3, False)]
