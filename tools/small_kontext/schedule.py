"""What both trainings share: how far they are, the learning rate, averaged weights."""

from __future__ import annotations

import math
import time

import torch


def progress(step: int, steps: int, started: float, minutes: float | None) -> float:
    """Return how much of the training is done, 0 to 1, by steps or by the clock, whichever is further."""
    done = step / max(1, steps)
    if minutes is not None:
        done = max(done, (time.time() - started) / (60 * minutes))
    return min(done, 1.0)


def rate_at(done: float, peak: float, warmup: float = 0.03) -> float:
    """Return the learning rate: a linear warm-up, then a cosine down to a hundredth of ``peak``."""
    if done < warmup:
        return peak * (done + 1e-3) / (warmup + 1e-3)
    fall = (done - warmup) / (1 - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fall)))


class Average:
    """Exponential moving average of a module's parameters."""

    def __init__(self, module: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = list(module.parameters())
        self.values = [p.detach().clone() for p in self.parameters]
        self.count = 0

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the module's present parameters."""
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def copy_back(self) -> None:
        """Put the averaged values into the module."""
        for parameter, value in zip(self.parameters, self.values, strict=True):
            parameter.copy_(value)
