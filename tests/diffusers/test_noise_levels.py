"""The noise levels that the caches are told, whatever type the pipeline computes in."""

from __future__ import annotations

import pytest
import torch

from lib_fluxkontext.hosts.diffusers.loader import load_pipeline
from lib_fluxkontext.hosts.diffusers.pipeline import Job, generate

STEPS = 12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_they_are_the_schedulers_own_in_float32(dtype: torch.dtype) -> None:
    pipeline = load_pipeline(device="cpu").to(dtype)
    pipeline.set_progress_bar_config(disable=True)
    (sampling,) = generate(pipeline, Job("show only the first picture", 64, 64, steps=STEPS)).report.passes
    found = [call.sigma for call in sampling.calls]
    assert found == (pipeline.scheduler.timesteps / 1000).tolist()
    assert len(set(found)) == STEPS
    if dtype == torch.bfloat16:
        assert found != torch.tensor(found).bfloat16().tolist()  # or this would prove nothing
