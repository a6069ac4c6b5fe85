"""What the distances of a sampling say of First Block Cache's other thresholds, and which to try next.

A distance is measured against the last *computed* step, and at another threshold that is another step. So the changes
are added up along the trajectory: with dᵢ the change from one step to the next, the distance from step a to step b is
taken as

    D(a, b) = (Σ dᵢᵖ)^(1/p), over the steps after a up to b.

p = 1 is a straight path, p = 2 a random walk. What a deterministic sampler does is nearly straight; noise that is drawn
anew in every step does not add up. The exponents below predicted best, with the small model, what really happened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from lib_fluxkontext.caching.first_block import FirstBlockConfig
from lib_fluxkontext.telemetry.records import CallRecord, GenerationReport, PassReport

SMOOTH_EXPONENT = 1.1
NOISY_EXPONENT = 1.5
"""Of samplers that add noise in every step."""

SLIDER_STEP = 0.01
VISIBLE_LOSS = 0.2
"""The threshold above which a suggestion comes with a warning: the highest of a preset that does not also limit how
many steps are reused in a row."""

MIN_STEPS = 4
"""With fewer there is hardly anything to reuse."""

USEFUL_SHARE = 1 / 3
"""Of the steps: what a suggestion for more aims at. Half of that is well enough to say nothing."""

CAREFUL_SHARE = 0.6
"""Of the steps: the most that a suggestion for less lets reuse; as many as the default does with the small model."""


@dataclass(frozen=True)
class Suggestion:
    """A threshold to try.

    Attributes:
        threshold: 0.01 to 1, in steps of the slider.
        reused: steps that it would reuse for every image, predicted.
    """

    threshold: float
    reused: int

    @property
    def visible_loss(self) -> bool:
        """Whether the picture can be expected to suffer visibly."""
        return self.threshold > VISIBLE_LOSS


@dataclass(frozen=True)
class Advice:
    """Why a sampling reused so little or so much, and what to try.

    Attributes:
        reason: nothing was reused, little, or everything that may be.
        threshold: of this sampling.
        reused: steps that were reused for every image.
        steps: how many there were.
        smallest: smallest distance that was measured; in a batch, of each call's largest.
        largest: largest one.
        suggestion: None where no threshold helps.
        noisy_sampler: name of the sampler if it adds noise in every step, else None.
        label: of the sampling.
    """

    reason: Literal["nothing", "little", "everything"]
    threshold: float
    reused: int
    steps: int
    smallest: float
    largest: float
    suggestion: Suggestion | None
    noisy_sampler: str | None
    label: str


@dataclass(frozen=True)
class _Evaluation:
    """Model calls of one sampler step at one sigma: one, or more where the host splits a batch.

    Attributes:
        step: sampler step.
        distance: largest, or None where the step had to be computed.
        hit: whether every image was reused.
        mixed: whether some were and some were not.
    """

    step: int
    distance: float | None
    hit: bool
    mixed: bool


def advise(report: GenerationReport) -> Advice | None:
    """Look at a finished generation's first sampling: its hires pass has few steps, its other batches are alike.

    Returns:
        None where the cache was off, nothing was measured, or enough was reused but not everything.
    """
    if not report.passes:
        return None
    sampling = report.passes[0]
    steps, config = sampling.steps, sampling.first_block
    distances = [step.distance for step in steps if step.distance is not None]
    if config is None or not distances or len(steps) < MIN_STEPS:
        return None
    reason = _reason(sampling, config)
    if reason is None:
        return None
    suggestion = _lower(sampling, config) if reason == "everything" else _higher(sampling, config)
    if suggestion is None and reason != "nothing":
        return None
    return Advice(
        reason=reason,
        threshold=config.threshold,
        reused=sum(step.kind == "reused" for step in steps),
        steps=len(steps),
        smallest=min(call.distance for call in sampling.calls if call.distance is not None),
        largest=max(distances),
        suggestion=suggestion,
        noisy_sampler=sampling.noisy_sampler,
        label=sampling.label,
    )


def predict_reused(sampling: PassReport, threshold: float) -> list[int]:
    """Predict which sampler steps First Block Cache would have reused for every image at another threshold.

    Warm-up, longest run and last step are kept as they were told.

    Args:
        sampling: a finished one.
        threshold: 0 never reuses.

    Returns:
        Indices of the steps, in order; none where the cache was off.
    """
    config = sampling.first_block
    if config is None:
        return []
    evaluations = list(_evaluations(sampling.calls))
    exponent = NOISY_EXPONENT if sampling.noisy_sampler is not None else SMOOTH_EXPONENT
    hits: dict[int, bool] = {}
    path, computed_step = 0.0, None  # since the last computed evaluation
    for evaluation, increment in zip(evaluations, _increments(evaluations, config, exponent), strict=True):
        hit = False
        if increment is not None and computed_step is not None:
            path = max(0.0, path + increment)
            within_run = not config.max_consecutive or evaluation.step - computed_step <= config.max_consecutive
            hit = within_run and path < threshold**exponent
        if not hit:
            path, computed_step = 0.0, evaluation.step
        hits[evaluation.step] = hits.get(evaluation.step, True) and hit
    return [step for step, hit in hits.items() if hit]


def _evaluations(calls: Sequence[CallRecord]) -> Iterator[_Evaluation]:
    """Join the calls of one evaluation: the parts of a split batch have the same sigma."""
    for (step, _), group in groupby(calls, key=lambda call: (call.step, call.sigma)):
        parts = list(group)
        distances = [part.distance for part in parts if part.distance is not None]
        reused, images = sum(part.reused for part in parts), sum(part.images for part in parts)
        yield _Evaluation(step, max(distances, default=None), reused == images, 0 < reused < images)


def _increments(evaluations: Sequence[_Evaluation], config: FirstBlockConfig, exponent: float) -> list[float | None]:
    """Return each evaluation's dᵢᵖ; None where it is computed at any threshold.

    What could not be measured is the mean of the nearest that could: where the run of reused steps was at its longest,
    and after a step that a batch's images took differently, because they compare with different steps from there on.
    """
    increments: list[float | None] = []
    unknown: list[int] = []
    previous: _Evaluation | None = None
    run_start = 0
    for index, evaluation in enumerate(evaluations):
        distance = evaluation.distance
        limited = bool(config.max_consecutive) and evaluation.step - run_start > config.max_consecutive
        last = evaluation.step == evaluations[-1].step
        if distance is not None and not (previous is not None and previous.mixed):
            before = previous.distance if previous is not None and previous.hit else None
            increments.append(distance**exponent - (before or 0.0) ** exponent)
        elif distance is not None or (limited and not (last and config.compute_last)):
            unknown.append(index)
            increments.append(None)
        else:
            increments.append(None)
        if not evaluation.hit:
            run_start = evaluation.step
        previous = evaluation
    known = list(increments)
    for index in unknown:
        before_it = next((value for value in reversed(known[:index]) if value is not None), None)
        after_it = next((value for value in known[index + 1 :] if value is not None), None)
        nearest = [value for value in (before_it, after_it) if value is not None]
        increments[index] = sum(nearest) / len(nearest) if nearest else None
    return increments


def _reason(sampling: PassReport, config: FirstBlockConfig) -> Literal["nothing", "little", "everything"] | None:
    steps = sampling.steps
    images_reused = sum(step.reused for step in steps)
    if not images_reused:
        return "nothing"
    # In a batch a step can be reused for some images alone; that is a gain too.
    share = images_reused / sum(step.images for step in steps)
    open_steps = [step for step in steps[config.warmup_steps :] if step.distance is not None]
    may_be_reused = len(steps) - config.warmup_steps - config.compute_last
    if share > CAREFUL_SHARE and len(open_steps) >= may_be_reused and all(step.kind == "reused" for step in open_steps):
        return "everything"
    return "little" if share < USEFUL_SHARE / 2 else None


def _higher(sampling: PassReport, config: FirstBlockConfig) -> Suggestion | None:
    """Suggest the smallest threshold that reuses a useful share; rather less than that than a visible loss."""
    predictions = [item for item in _predictions(sampling) if item.threshold > config.threshold]
    most = max((item.reused for item in predictions), default=0)
    already = sum(step.kind == "reused" for step in sampling.steps)
    wanted = min(int(len(sampling.steps) * USEFUL_SHARE), most)
    if wanted <= already:
        return None
    suggestion = next(item for item in predictions if item.reused >= wanted)
    if suggestion.visible_loss:
        careful = [item for item in predictions if not item.visible_loss]
        best = max(careful, key=lambda item: item.reused, default=None)  # the first of equals: the smallest
        if best is not None and best.reused > already and best.reused * 2 >= wanted:
            return best
    return suggestion


def _lower(sampling: PassReport, config: FirstBlockConfig) -> Suggestion | None:
    """Suggest the largest threshold that reuses no more than a careful share, without visible loss."""
    most = len(sampling.steps) * CAREFUL_SHARE
    fitting = [
        item
        for item in _predictions(sampling)
        if item.threshold < config.threshold and 0 < item.reused <= most and not item.visible_loss
    ]
    return fitting[-1] if fitting else None


def _predictions(sampling: PassReport) -> list[Suggestion]:
    """Every position of the slider above 0, with what it would reuse."""
    thresholds = [round(position * SLIDER_STEP, 2) for position in range(1, round(1 / SLIDER_STEP) + 1)]
    return [Suggestion(threshold, len(predict_reused(sampling, threshold))) for threshold in thresholds]
