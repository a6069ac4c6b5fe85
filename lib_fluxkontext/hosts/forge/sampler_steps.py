"""Which sampler step a model evaluation belongs to.

Forge counts evaluations (``CFGDenoiser.step``). A second-order sampler makes two in a step, and one in the last.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from lib_fluxkontext.cache.first_block import Step

EXTRA_ORDERS = {"sample_heunpp2": 3}
"""Evaluations a step of samplers that Forge does not mark as second-order although they evaluate more than once."""


def sampler_step(sampler: Any) -> Step:
    """The step that Forge's sampler is in, asked from inside a model call.

    Samplers that choose their own number of steps (DPM adaptive, Restart) run past the schedule: the index then
    goes on counting, and no step is called the last.
    """
    denoiser = sampler.model_wrap_cfg
    steps = int(denoiser.steps or 1)
    name = sampler.funcname if isinstance(sampler.funcname, str) else ""
    order = EXTRA_ORDERS.get(name) or max(1, int(denoiser.total_steps or steps) // steps)
    return _schedule_step(int(denoiser.step), steps, order)


@lru_cache(maxsize=4096)
def _schedule_step(evaluation: int, steps: int, order: int) -> Step:
    for index in range(steps):
        in_this = min(order, steps - index)
        if evaluation < in_this:
            return Step(index, index == steps - 1)
        evaluation -= in_this
    return Step(steps + evaluation)
