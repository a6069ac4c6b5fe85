"""EasyCache, written anew from its paper.

Zhou et al., "Less is Enough: Training-Free Video Diffusion Acceleration via Runtime-Adaptive Caching",
arXiv:2507.02860; where the paper leaves a detail open, the authors' release
(https://github.com/H-EmbodVis/EasyCache) decides. With x_t what the transformer is given, v_t what it gives, and i the
last computed call:

* transformation rate k_i = ‖v_i − v_j‖ / ‖x_i − x_j‖, j being the computed call before i;
* estimated change ε_t = k_i · ‖x_t − x_{t−1}‖ / ‖v_i‖, x_{t−1} of the call before, computed or not;
* a call is computed when Σ ε since i reaches the threshold; else v_t = x_t + (v_i − x_i).

‖·‖ is the mean absolute value, here over the picture's tokens of the whole batch: references do not change and would
only dilute it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from benchmarks.rivals.flux_parts import Arguments, Compute, Grid, padded, replaced_forward, token_count
from benchmarks.rivals.work import Work


class EasyCacheState:
    """What EasyCache knows of a run.

    Args:
        threshold: of the accumulated estimated change; 0 computes everything. The authors' is 0.025 to 0.1.
        steps: calls of the transformer in the run; the last is computed.
        warmup_steps: first calls, always computed; 2 or more. The authors' is 5 to 10 of 50.
    """

    def __init__(self, threshold: float, steps: int, warmup_steps: int) -> None:
        self._threshold = threshold
        self._steps = steps
        self._warmup_steps = warmup_steps
        self._step = 0
        self._accumulated = 0.0
        self._last_input: Tensor | None = None
        self._computed_input: Tensor | None = None
        self._output: Tensor | None = None
        self._rate: float | None = None

    def must_compute(self, x: Tensor) -> bool:
        """Decide on the next call, from its input."""
        forced = self._step < self._warmup_steps or self._step >= self._steps - 1
        if forced or self._rate is None or self._last_input is None or self._output is None:
            self._accumulated = 0.0
            compute = True
        else:
            moved = float((x - self._last_input).abs().mean())
            self._accumulated += self._rate * moved / float(self._output.abs().mean())
            compute = not self._accumulated < self._threshold
            if compute:
                self._accumulated = 0.0
        self._step += 1
        self._last_input = x
        return compute

    def computed(self, x: Tensor, v: Tensor) -> None:
        """Note a computed call's input and output."""
        if self._output is not None and self._computed_input is not None:
            moved = float((x - self._computed_input).abs().mean())
            self._rate = float((v - self._output).abs().mean()) / moved if moved else None
        self._computed_input, self._output = x, v

    def forecast(self, x: Tensor) -> Tensor:
        """Return the output for a call that is not computed: the last transformation vector, v − x, added to x."""
        assert self._output is not None
        assert self._computed_input is not None
        return x + (self._output - self._computed_input)


@contextmanager
def easycache(
    pipeline: Any, picture_tokens: Grid, steps: int, *, threshold: float, warmup_steps: int = 2
) -> Iterator[Work]:
    """Sample one batch of pictures under EasyCache.

    Args:
        pipeline: diffusers'.
        picture_tokens: rows and columns of the picture in tokens.
        steps: calls of the transformer in the run.
        threshold: see ``EasyCacheState``.
        warmup_steps: see ``EasyCacheState``; the authors compute a tenth to a fifth of all steps first.
    """
    tokens = token_count(picture_tokens)
    state = EasyCacheState(threshold, steps, warmup_steps)

    def step(compute: Compute, arguments: Arguments) -> Tensor:
        given = arguments["hidden_states"]
        x = given[:, :tokens]
        if not state.must_compute(x):
            return padded(state.forecast(x), given)
        output = compute()
        state.computed(x, output[:, :tokens])
        return output

    with replaced_forward(pipeline, step) as work:
        yield work
