"""RegionE, the method this project is compared with: its equations and its schedule, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.rivals.region_e_partition import dilate, edited_tokens, erode, jump_factor, one_step_estimate
from benchmarks.rivals.region_e_schedule import RegionESettings, StepKind, fit_decay, plan_steps

SIGMAS = [1.0, 0.8, 0.5, 0.2, 0.0]


def test_estimate_goes_straight_to_the_end() -> None:
    estimate = one_step_estimate(torch.tensor([1.0, -2.0]), torch.tensor([2.0, 1.0]), 0.25)
    assert estimate.tolist() == [0.5, -2.25]


def test_token_is_edited_up_to_the_threshold() -> None:
    reference = torch.tensor([[[1.0, 0.0]]]).expand(1, 4, 2)
    estimate = torch.tensor([[[4.0, 3.0], [2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]])  # cosines 0.8, 1, 0, -1
    assert edited_tokens(estimate, reference, (2, 2), 0.93, morphology=False).tolist() == [[True, False, True, True]]
    assert edited_tokens(estimate, reference, (2, 2), 0.7, morphology=False).tolist() == [[False, False, True, True]]


def mask(*rows: str) -> Tensor:
    return torch.tensor([[[token == "#" for token in row] for row in rows]])


def test_erosion_is_by_a_cross() -> None:
    before = mask("##....", "####..", ".###.#", "..#...")
    assert torch.equal(erode(before), mask("......", ".#....", "..#...", "......"))
    assert not erode(mask("###", "###", "###"))[0, 0].any()  # outside counts as unset


def test_dilation_is_by_a_square() -> None:
    grown = dilate(mask("......", "......", "......", "#.....", "......"))
    assert torch.equal(grown, mask("......", "###...", "###...", "###...", "###..."))


def test_single_edited_tokens_are_dropped_and_a_cross_grows() -> None:
    reference = torch.ones(1, 42, 2)
    changed = mask(".......", ".#.....", "....#..", "...###.", "....#..", "#......")
    estimate = torch.where(changed.flatten(1)[..., None], -reference, reference)
    grown = mask(".......", "..#####", "..#####", "..#####", "..#####", "..#####")
    assert torch.equal(edited_tokens(estimate, reference, (6, 7)).unflatten(1, (6, 7)), grown)


def test_jump_lands_where_the_straight_line_does() -> None:
    x, v = 3.0, 2.0
    jumped = v * jump_factor(SIGMAS, 1, 3)
    assert x + (SIGMAS[2] - SIGMAS[1]) * jumped == pytest.approx(x + (0.2 - 0.8) * v)
    assert jump_factor(SIGMAS, 1, 2) == 1
    assert jump_factor(SIGMAS, 2, 4) == pytest.approx(0.5 / 0.3)


def test_authors_schedule() -> None:
    sigmas = torch.linspace(1, 0, 29).tolist()
    plan = plan_steps(sigmas, RegionESettings())
    full = {step: planned.target for step, planned in enumerate(plan) if planned.kind is StepKind.FULL}
    assert full == {0: 1, 1: 2, 2: 3, 3: 4, 4: 5, 5: 15, 15: 26, 26: 27, 27: 28}
    assert RegionESettings.scaled(28) == RegionESettings()
    assert RegionESettings.scaled(14) == RegionESettings(first_steps=3, last_steps=1, full_steps=(8,))


def test_decay_is_accumulated_until_the_threshold() -> None:
    sigmas = torch.linspace(1, 0, 9).tolist()  # 1 + σ_i − σ_{i−1} = 0.875
    ratios = [9.0, 9.0, 0.98, 0.98, 0.98, 1.0, 0.97]
    decay = tuple(ratio / 0.875 for ratio in ratios)
    plan = plan_steps(sigmas, RegionESettings(1, 0, (), decay=decay, decay_threshold=0.045))
    # 0.98, then 0.9604, then 0.941: computed. 1 is computed. 0.97 is reused
    assert [step.kind.value for step in plan] == ["full", *2 * ["region"], *2 * ["reused"], *2 * ["region"], "reused"]
    assert [step.ratio for step in plan if step.kind is StepKind.REUSED] == pytest.approx([0.98, 0.98, 0.97])


def test_decay_fits_what_it_multiplies() -> None:
    first = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
    assert fit_decay([first, 0.9 * first, 0.72 * first], [1.0, 0.8, 0.4]) == pytest.approx((0.9 / 0.8, 0.8 / 0.6))


@pytest.mark.parametrize(
    "settings",
    [
        RegionESettings(first_steps=0),
        RegionESettings(first_steps=27),
        RegionESettings(full_steps=(6,)),
        RegionESettings(full_steps=(26,)),
        RegionESettings(decay=(1.0,)),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: RegionESettings) -> None:
    with pytest.raises(ValueError, match="steps"):
        plan_steps(torch.linspace(1, 0, 29).tolist(), settings)
