"""Which sampler step a model evaluation belongs to.

Forge counts evaluations (``CFGDenoiser.step``), not steps. Here each sampler's pattern is written down: how many
evaluations it makes in each step of its schedule.
"""

from __future__ import annotations

from functools import lru_cache

from lib_fluxkontext.caching.sample_key import Step
from lib_fluxkontext.hosts.forge.runtime.protocols import Sampler


def sampler_step(sampler: Sampler) -> Step:
    """Return the step that Forge's sampler is in; for use inside a model call.

    Samplers that choose their own number of steps (DPM adaptive, Restart) run past the pattern: the index then
    goes on counting evaluations, and no step is called the last.
    """
    denoiser = sampler.model_wrap_cfg
    steps = int(denoiser.steps or 1)
    name = sampler.funcname if isinstance(sampler.funcname, str) else getattr(sampler.funcname, "__name__", "")
    second_order = int(denoiser.total_steps or steps) >= 2 * steps
    return _step_of(int(denoiser.step), evaluations(name, steps, second_order))


@lru_cache(maxsize=256)
def evaluations(name: str, steps: int, second_order: bool) -> tuple[int, ...]:
    """Count the model evaluations in each step.

    Args:
        name: of the sampler's function in Forge.
        steps: what the user asked for.
        second_order: whether Forge marks the sampler so. Such a sampler ends with a first-order step, because the
            next sigma is 0; HeunPP2, which Forge does not mark, with a second- and a first-order one.
    """
    timesteps = -(-1000 // max(1, 1000 // steps))  # Forge's own rounding for the samplers of the old kind
    match name:
        case "ddim" | "ddim_cfgpp":
            return (1,) * (timesteps - 1)
        case "plms":
            return (2,) + (1,) * (timesteps - 2)
        case "unipc":
            return (1,) * timesteps
        case "sample_Kohaku_LoNyu_Yog":  # Neo's: three in the first half
            return tuple(3 if index <= steps / 2 else 1 for index in range(steps))
        case "sample_dpmpp_2s_ancestral_RF":  # Neo's, which does not mark it
            order = 2
        case "sample_heunpp2":
            order = 3
        case _:
            order = 2 if second_order else 1
    return tuple(min(order, steps - index) for index in range(steps))


def _step_of(evaluation: int, pattern: tuple[int, ...]) -> Step:
    for index, in_this in enumerate(pattern):
        if evaluation < in_this:
            return Step(index, index == len(pattern) - 1)
        evaluation -= in_this
    return Step(len(pattern) + evaluation)
