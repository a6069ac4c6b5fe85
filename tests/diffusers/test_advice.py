"""What is predicted for other thresholds is what the small trained model really does at them."""

from __future__ import annotations

from statistics import mean
from typing import Any

import pytest

from lib_fluxkontext.hosts.diffusers.pipeline import Job, generate
from lib_fluxkontext.images.decode import Reference
from lib_fluxkontext.presentation.advice import suggested_threshold
from lib_fluxkontext.settings import KontextSettings
from lib_fluxkontext.telemetry.advice import advise, predict_reused
from lib_fluxkontext.telemetry.records import GenerationReport
from tests.diffusers.conftest import SIDE
from tools.small_kontext.instructions import PHRASINGS

pytestmark = pytest.mark.slow

STEPS = 20
NOTHING_REUSED, MANY_REUSED = 0.001, 0.3
THRESHOLDS = (0.05, 0.06, 0.08, 0.1, 0.14, 0.2, 0.25, 0.4)

LIMITS = {"cache_warmup_steps": 4, "cache_max_consecutive": 2, "cache_compute_last": True}


def sampled(pipeline: Any, references: list[Reference], threshold: float, **more: Any) -> GenerationReport:
    """Sample with First Block Cache; forecast is on, as by default."""
    settings = KontextSettings(sizing="no change", cache_threshold=threshold, **more)
    job = Job(PHRASINGS["left_right"][0], SIDE, SIDE, steps=STEPS, seed=1)
    return generate(pipeline, job, references, settings).report


@pytest.mark.parametrize(
    ("count", "bases", "told"),
    [
        (0, (NOTHING_REUSED, 0.08, 0.14, MANY_REUSED), {}),
        (2, (NOTHING_REUSED, 0.08, 0.14, MANY_REUSED), {}),
        # From fewer bases: a step that had to be computed after the longest run was not measured.
        (2, (NOTHING_REUSED, 0.08), LIMITS),
    ],
)
def test_predictions_are_within_two_steps_of_twenty(
    pipeline: Any, woman: Reference, cat: Reference, count: int, bases: tuple[float, ...], told: dict[str, Any]
) -> None:
    references = [woman, cat][:count]
    runs = {threshold: sampled(pipeline, references, threshold, **told) for threshold in {*bases, *THRESHOLDS}}
    assert runs[NOTHING_REUSED].reused_steps == 0
    assert MANY_REUSED not in runs or runs[MANY_REUSED].reused_steps >= 14
    for base in bases:
        sampling = runs[base].passes[0]
        errors = {
            threshold: len(predict_reused(sampling, threshold)) - runs[threshold].reused_steps
            for threshold in THRESHOLDS
        }
        print(f"{count} references, {told}, from {base:g}: mean {mean(errors.values()):+.2f}, {errors}")
        assert errors.get(base, 0) == 0
        assert all(abs(error) <= 2 for error in errors.values()), errors


def test_the_suggestion_does_what_it_promises(pipeline: Any, woman: Reference, cat: Reference) -> None:
    for threshold, low, high in ((0.01, 5, 9), (1.0, 5, 13)):
        report = sampled(pipeline, [woman, cat], threshold)
        advice, suggestion = advise(report), suggested_threshold(report)
        assert advice is not None
        assert advice.reason == ("nothing" if threshold < 0.5 else "everything")
        assert advice.suggestion is not None
        assert suggestion == advice.suggestion.threshold
        followed = sampled(pipeline, [woman, cat], suggestion)
        assert abs(followed.reused_steps - advice.suggestion.reused) <= 2
        assert low <= followed.reused_steps <= high
        assert suggested_threshold(followed) is None  # and then nothing more is said
