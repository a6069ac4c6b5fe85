"""Makes one picture by one method, and counts what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from benchmarks.frontier.calibration import Calibration
from benchmarks.frontier.methods import Method
from benchmarks.rivals.counting import counted
from benchmarks.rivals.work import Work
from lib_fluxkontext.geometry import pixel_tokens
from lib_fluxkontext.hosts.diffusers.pipeline import Generated, Job, generate
from lib_fluxkontext.images.decode import Reference
from lib_fluxkontext.references.latent_cache import LatentCache


def run_method(
    pipeline: Any,
    sampled: Any,
    method: Method,
    job: Job,
    references: Sequence[Reference],
    calibration: Calibration,
    latents: LatentCache,
) -> tuple[Generated, float]:
    """Make one picture.

    Args:
        pipeline: diffusers', which other caches hook.
        sampled: of ``samplers.sampled_by``.
        method: which.
        job: one picture.
        references: all of the picture's size.
        calibration: of the other caches.
        latents: of references, so that they are encoded once for all methods; not part of what is timed.

    Returns:
        The picture, and what it cost in full evaluations of the transformer.
    """
    around: AbstractContextManager[Work]
    if method.rival is not None:
        around = method.rival(pipeline, calibration)
    else:
        text = min(512, int(pipeline.tokenizer_2.model_max_length))  # as ``generate`` pads
        tokens = text + (1 + len(references)) * pixel_tokens(job.width, job.height)
        around = counted(pipeline.transformer, tokens)
    with around as work:
        made = generate(sampled, job, references, method.settings, latent_cache=latents)
    return made, work.evaluations
