"""What steps cost on models without training: schedules are followed step by step, and results are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.frontier.methods import UNCACHED
from benchmarks.frontier.models import MODELS, PRESET_RUN, step_runs
from benchmarks.frontier.results import Results, Steps, load
from benchmarks.frontier.schedules import Schedules, median_schedule, preset_settings
from benchmarks.frontier.scripted import Schedule, scripted
from benchmarks.frontier.step_tables import cost_table, preset_target
from benchmarks.frontier.steps import DEEP, FULL, MEDIUM, Cost, Sampled, build, euler, sample
from lib_fluxkontext.caching.caches import Caches
from lib_fluxkontext.sampling.factory import build_caches
from lib_fluxkontext.settings import KontextSettings


def cost(seconds: float, computed: float, kept: float | None = None, reused: float | None = None) -> Cost:
    return Cost(seconds, computed, kept, reused, None)


def test_kept_and_reused_steps_are_shown_as_shares_of_the_uncached_runs_step() -> None:
    costs = {(2, UNCACHED): [cost(40, 2.0)], (2, "both"): [cost(10, 2.5, 0.8, 0.05)]}
    *_, line = cost_table(costs).splitlines()
    assert line == "| 2 | both | 10.00 s | 2.500 | 0.800 (40.0%) | 0.050 (2.5%) | 4.00× | – |"


@pytest.mark.parametrize(
    ("seconds", "reused", "words"), [(8, 0.06, "Target reached"), (8, 0.08, "missed"), (9, 0.06, "missed")]
)
def test_a_preset_must_be_fast_enough_with_cheap_reused_steps(seconds: float, reused: float, words: str) -> None:
    costs = {(2, UNCACHED): [cost(40, 2.0)], (2, "both, all reused"): [cost(2, 2.0, None, 0.01)]}
    assert preset_target(costs) is None
    preset = {(2, f"{PRESET_RUN}Fast: 4 computed"): [cost(seconds, 2.0, None, reused)]}
    assert words in str(preset_target(costs | preset))


def test_the_deep_model_has_fluxs_depth_and_the_mediums_size() -> None:
    counts = [
        sum(parameter.numel() for parameter in build(config, torch.device("meta"), torch.float32).parameters())
        for config in (DEEP, MEDIUM)
    ]
    assert [DEEP[name] == FULL[name] for name in ("num_layers", "num_single_layers")] == [True, True]
    assert counts[0] == pytest.approx(counts[1], rel=0.05)
    assert sum(DEEP["axes_dims_rope"]) == DEEP["attention_head_dim"]


TINY = MEDIUM | {"num_layers": 2, "num_single_layers": 2, "num_attention_heads": 1}


@pytest.fixture(scope="module")
def tiny() -> Any:
    return build(TINY, torch.device("cpu"), torch.float32)


def run(transformer: Any, caches: Caches, steps: int) -> Sampled:
    return euler(transformer, 64, 2, caches, torch.linspace(1, 0, steps + 1))


def kinds(sampled: Sampled) -> Schedule:
    return tuple(step.kind for step in sampled.report.steps)


@pytest.mark.parametrize("refresh", [0, 1, 4])
def test_a_script_repeats_what_the_caches_decided_bit_for_bit(tiny: Any, refresh: int) -> None:
    settings: dict[str, Any] = {"cache_max_consecutive": 1, "reference_refresh": refresh, "cache_correct": True}
    reuses_all = KontextSettings(cache_threshold=1.0, **settings)
    reuses_nothing = KontextSettings(cache_threshold=1e-9, **settings)
    decided = run(tiny, build_caches(reuses_all, True), 7)
    assert set(kinds(decided)) == {"computed", "reused"} | ({"kept"} if refresh == 4 else set())
    repeated = run(tiny, scripted(build_caches(reuses_nothing, True), kinds(decided)), 7)
    assert kinds(repeated) == kinds(decided)
    assert torch.equal(repeated.change, decided.change)


def test_a_script_without_first_block_cache_decides_over_the_references(tiny: Any) -> None:
    schedule = ("computed", "kept", "computed", "kept", "kept")
    settings = KontextSettings(cache=False, reference_refresh=8)
    assert kinds(run(tiny, build_caches(settings, True), 5)) != schedule
    assert kinds(run(tiny, scripted(build_caches(settings, True), schedule), 5)) == schedule


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("reused computed", "step 0 cannot be reused"),
        ("computed reused reused", "step 2 cannot be reused"),
        ("computed kept", "got computed computed"),
        ("computed computed reused computed", "4 steps for 3"),
    ],
)
def test_a_script_that_the_settings_do_not_allow_is_refused(tiny: Any, schedule: str, message: str) -> None:
    settings = KontextSettings(cache_threshold=1.0, cache_max_consecutive=1)
    words = tuple(schedule.split())
    with pytest.raises(ValueError, match=message):
        sample(tiny, 64, 2, settings, min(len(words), 3), schedule=words)


def test_every_preset_that_reuses_runs_on_the_deep_model_by_its_schedule() -> None:
    schedules = dict.fromkeys(preset_settings(), ("computed", "reused"))
    runs = [one for one in step_runs(MODELS["deep"], schedules) if one.schedule]
    assert [one.name for one in runs] == [f"{PRESET_RUN}{name}: 1 computed, 1 reused" for name in preset_settings()]
    assert "Off" not in preset_settings()
    assert {one.references for one in runs} == {2}
    assert not any(one.schedule for one in step_runs(MODELS["medium"], {}))


def test_the_median_schedule_is_one_of_them_by_work() -> None:
    cheap, middle, dear = ("computed", "reused"), ("computed", "kept"), ("computed", "computed")
    assert median_schedule([dear, cheap, middle]) == middle
    assert median_schedule([cheap, dear]) == dear


def test_results_are_kept_and_one_models_steps_from_before_are_the_mediums(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.json"
    costs = {(2, UNCACHED): [cost(40, 2.0)], (0, UNCACHED): [cost(4, 0.2)]}
    schedules = Schedules("of pictures", {"Fast": ("computed", "kept", "reused")})
    written = Results({}, schedules, {"medium": Steps("here", "8", costs), "deep": Steps("here", "20", costs)})
    written.save(path)
    assert load(path) == written
    old = json.loads(path.read_text(encoding="utf-8"))["steps"]["medium"]
    path.write_text(json.dumps({"steps": old}), encoding="utf-8")
    assert load(path) == Results(steps={"medium": written.steps["medium"]})
