"""RegionE for diffusers' ``FluxTransformer2DModel``: only the tokens that an instruction changes are computed.

After Chen et al., "RegionE: Adaptive Region-Aware Generation for Efficient Image Editing", arXiv:2510.25590, and its
release for FLUX.1 Kontext (https://github.com/Peyton-Chen/RegionE); written anew for any Euler sampler that calls the
transformer with the picture's tokens, then the references'.

With noise levels σ_0 > … > σ_N = 0, steps counted from 0, W first steps and P last steps:

1. Steps 0 … W−1 are computed in full. In step W−1 a token is *edited* where x₀ = x − σ·v is unlike the reference
   (``region_e_partition``).
2. In a full step i before a stretch of region steps that ends at the full step j, or at N, an unedited token goes
   straight to x_j = x_i + (σ_j − σ_i)·v. The sampler is outside and makes x_{i+1} = x_i + (σ_{i+1} − σ_i)·v′, so it is
   given v′ = v · (σ_j − σ_i) / (σ_{i+1} − σ_i), and 0 in steps i+1 … j−1.
3. In these steps text and edited tokens run; attention reads keys and values of the others from step i.
4. Between the stages there are full steps, and the last P steps are full too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor

from benchmarks.rivals.flux_parts import Grid
from benchmarks.rivals.region_e_key_values import (
    KeyValues,
    Region,
    hooked_attention,
    keep_key_values,
    same_regions,
)
from benchmarks.rivals.region_e_partition import edited_tokens, jump_factor, one_step_estimate
from benchmarks.rivals.region_e_schedule import PlannedStep, RegionESettings, StepKind, plan_steps
from benchmarks.rivals.work import Work
from lib_fluxkontext.hooks.adapter import named_arguments
from lib_fluxkontext.hooks.patch import patched_attr

BATCHED = ("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "guidance")
"""Arguments of the transformer with one row for each picture."""


@contextmanager
def region_e(
    pipeline: Any, picture_tokens: Grid, steps: int, settings: RegionESettings | None = None
) -> Iterator[Work]:
    """Sample under RegionE while the context lasts.

    Nothing else may cache: ``KontextSettings(cache=False, reference_refresh=0)``. The first reference must have the
    picture's size (``sizing="to output"``). In a batch each picture has its own region; pictures with the same one are
    computed together, others one by one. Works for several samplings in a row; a sampling starts at step 0.

    Args:
        pipeline: diffusers', with ``transformer`` and a ``FlowMatchEulerDiscreteScheduler`` as ``scheduler``.
        picture_tokens: rows and columns of the picture in tokens.
        steps: sampler steps.
        settings: the authors', taken to ``steps`` in proportion, if None.

    Yields:
        The transformer's work. Evaluations are the mean over a batch's pictures. All calls of the sampler are counted,
        those too that needed no block.

    Raises:
        ValueError: there is no reference of the picture's size, or the calls are not those of such a sampling; out of
            the call of the transformer.
    """
    work = Work()
    transformer = pipeline.transformer
    settings = settings or RegionESettings.scaled(steps)
    forward = _RegionForward(pipeline, transformer.forward, picture_tokens, steps, settings, work)
    with patched_attr(transformer, "forward", forward):
        try:
            yield work
        finally:
            forward.forget()


class _RegionForward:
    """Stands in for the transformer's forward."""

    def __init__(
        self,
        pipeline: Any,
        original: Callable[..., Any],
        grid: Grid,
        steps: int,
        settings: RegionESettings,
        work: Work,
    ) -> None:
        self._pipeline = pipeline
        self._original = original
        self._grid = grid
        self._count = grid[0] * grid[1]
        self._steps = steps
        self._settings = settings
        self._work = work
        self._sigmas: list[float] = []
        self._plan: list[PlannedStep] = []
        self._next = 0
        self._shape = torch.Size()
        self._edited: Tensor | None = None
        self._regions: list[Region] = []
        self._velocity: Tensor | None = None
        """(B, n, C) as the transformer gave it last, token by token."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        arguments = named_arguments(self._original, args, kwargs)
        return_dict = arguments.pop("return_dict", True)
        step = self._begin(arguments)
        self._work.calls += 1
        planned = self._plan[step]
        if planned.kind is StepKind.FULL:
            velocity = self._full(arguments, step, planned.target)
        elif planned.kind is StepKind.REGION:
            velocity = self._region(arguments)
        else:
            velocity = self._held(planned.ratio)
        return Transformer2DModelOutput(sample=velocity) if return_dict else (velocity,)

    def forget(self) -> None:
        """Free what was kept."""
        self._edited = self._velocity = None
        self._regions = []

    def _begin(self, arguments: Mapping[str, Any]) -> int:
        """Return the step that this call makes."""
        step = self._pipeline.scheduler.step_index or 0  # None before the first
        hidden_states = arguments["hidden_states"]
        if step == 0:
            self._sigmas = self._pipeline.scheduler.sigmas.tolist()
            if len(self._sigmas) != self._steps + 1:
                raise ValueError(f"the scheduler makes {len(self._sigmas) - 1} steps, RegionE was told {self._steps}")
            self._plan = plan_steps(self._sigmas, self._settings)
            self._check_reference(arguments)
            self._shape = hidden_states.shape
            self._next = 0
            self.forget()
        if step != self._next:
            raise ValueError(f"RegionE expects one call for each step, in order: step {step} after {self._next - 1}")
        if hidden_states.shape != self._shape:
            before, now = tuple(self._shape), tuple(hidden_states.shape)
            raise ValueError(f"RegionE needs the same tokens in all steps, without another cache: {now} after {before}")
        self._next += 1
        return step

    def _check_reference(self, arguments: Mapping[str, Any]) -> None:
        count = self._count
        references = arguments["hidden_states"].shape[1] - count
        if references <= 0:
            raise ValueError("RegionE needs a reference: it computes what differs from it")
        ids = _unbatched(arguments["img_ids"])[:, 1:]
        picture, reference = ids[:count], ids[count : 2 * count]
        if references < count or not torch.equal(picture - picture[0], (reference - reference[0]).to(picture.dtype)):
            raise ValueError(f"RegionE needs a first reference of the picture's size, {self._grid} tokens")

    def _full(self, arguments: Mapping[str, Any], step: int, target: int) -> Tensor:
        """Compute all tokens; unedited ones then go on to step ``target``."""
        self._work.evaluations += 1
        if target == step + 1:
            output: Tensor = self._original(**arguments, return_dict=False)[0]
            return output[:, : self._count]
        for region in self._regions:
            region.buffers.clear()  # before there are as many again
        stored: list[KeyValues] = []

        def store(block: int, keys: Tensor, values: Tensor) -> KeyValues:
            stored.append((keys, values))
            return keys, values

        with hooked_attention(self._pipeline.transformer, store):
            output = self._original(**arguments, return_dict=False)[0]
        velocity = output[:, : self._count]
        if self._edited is None:
            picture, rest = arguments["hidden_states"].split_with_sizes(
                (self._count, self._shape[1] - self._count), dim=1
            )
            estimate = one_step_estimate(picture, velocity, self._sigmas[step])
            reference = rest[:, : self._count]
            threshold, morphology = self._settings.threshold, self._settings.morphology
            self._edited = edited_tokens(estimate, reference, self._grid, threshold, morphology)
            self._regions = same_regions(self._edited, self._shape[1])
        keep_key_values(self._regions, stored)
        self._velocity = velocity
        jump = velocity * jump_factor(self._sigmas, step, target)
        return torch.where(self._edited[..., None], velocity, jump)

    def _region(self, arguments: Mapping[str, Any]) -> Tensor:
        """Compute the edited tokens."""
        assert self._velocity is not None  # a full step comes first
        text = arguments["encoder_hidden_states"].shape[1]
        uncached = self._shape[0] * (text + self._shape[1])
        for region in self._regions:
            if not len(region.edited):
                continue
            with hooked_attention(self._pipeline.transformer, region.on_attention):
                velocity = self._original(**self._select(arguments, region), return_dict=False)[0]
            self._velocity[region.rows[:, None], region.edited] = velocity
            self._work.evaluations += len(region.rows) * (text + len(region.edited)) / uncached
        return self._held(1.0)

    def _held(self, ratio: float) -> Tensor:
        """Return ``ratio`` times the last velocity of edited tokens, and 0 for the others."""
        assert self._velocity is not None  # as above
        assert self._edited is not None
        return torch.where(self._edited[..., None], self._velocity * ratio, 0.0)

    def _select(self, arguments: Mapping[str, Any], region: Region) -> dict[str, Any]:
        """Cut a call down to a region."""
        selected = dict(arguments)
        if len(region.rows) < self._shape[0]:
            for name in BATCHED:
                if selected.get(name) is not None:
                    selected[name] = selected[name][region.rows]
        selected["hidden_states"] = selected["hidden_states"][:, region.edited]
        selected["img_ids"] = _unbatched(selected["img_ids"])[region.edited]
        return selected


def _unbatched(ids: Tensor) -> Tensor:
    """Return position ids as (tokens, 3): those of (B, tokens, 3) are the same for all pictures."""
    return ids[0] if ids.ndim == 3 else ids
