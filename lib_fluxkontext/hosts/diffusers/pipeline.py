"""One generation with a ``FluxKontextPipeline``: the same references, caches, telemetry and report as in Forge."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lib_fluxkontext.caching.sample_key import Decision
from lib_fluxkontext.geometry import TOKEN_SIDE
from lib_fluxkontext.hosts.diffusers.prompts import PromptCache
from lib_fluxkontext.hosts.diffusers.sampling import PipelineSampling
from lib_fluxkontext.images.decode import Reference
from lib_fluxkontext.images.stitch import apply_stitch, plan_sizes
from lib_fluxkontext.job import Job
from lib_fluxkontext.references.encode import EncodedReferences, encode_references, join_references
from lib_fluxkontext.references.latent_cache import LatentCache
from lib_fluxkontext.references.placement import position_ids
from lib_fluxkontext.settings import KontextSettings
from lib_fluxkontext.telemetry.memory import MemoryMeter
from lib_fluxkontext.telemetry.records import CallRecord, GenerationReport


@dataclass(frozen=True)
class Generated:
    """The pictures, their latents as the pipeline packs them, (images, tokens, C·4), and what they cost.

    Attributes:
        decisions: of each model call: one per picture, or none where nothing could be reused.
        encoded: references of each picture that went through the VAE for it.
    """

    images: list[Image.Image]
    latents: Tensor
    report: GenerationReport
    decisions: Sequence[Sequence[Decision]] = ()
    encoded: Sequence[int] = ()

    @property
    def image(self) -> Image.Image:
        """The first one."""
        return self.images[0]

    def report_of(self, image: int) -> GenerationReport:
        """Return the report of one picture: what was decided for it, and its share of the seconds.

        The memory is the whole batch's.
        """
        count = len(self.images)
        if count == 1:
            return self.report
        (sampling,) = self.report.passes
        calls = [
            _call_of(call, decisions[image] if decisions else Decision(False))
            for call, decisions in zip(sampling.calls, self.decisions, strict=False)  # no calls: they were not measured
        ]
        references = (sampling.encoded + sampling.cached) // count
        own = replace(
            sampling,
            calls=calls,
            seconds=sampling.seconds / count,
            encode_seconds=sampling.encode_seconds / count,
            encoded=self.encoded[image],
            cached=references - self.encoded[image],
        )
        return replace(self.report, passes=(own,))


def generate(
    pipeline: Any,
    job: Job,
    references: Sequence[Reference] = (),
    settings: KontextSettings | None = None,
    *,
    latents: Tensor | None = None,
    latent_cache: LatentCache | None = None,
) -> Generated:
    """Make one picture, or a batch of them from the same prompt and references.

    Args:
        pipeline: a loaded ``FluxKontextPipeline``.
        job: prompt, size, steps, seed.
        references: any number of decoded images.
        settings: sizing, placement, stitching and cache; its own image fields are not read.
        latents: start noise, (images, tokens, C·4), instead of what the seed gives.
        latent_cache: of encoded references, between calls.

    Raises:
        KontextError: a reference that cannot be sized, or references that cannot be stitched, as asked.
    """
    rows = [BatchRow(job.prompt, job.seed + image, references) for image in range(job.images)]
    return generate_batch(pipeline, job, rows, settings, latents=latents, latent_cache=latent_cache)


@dataclass(frozen=True)
class BatchRow:
    """What the pictures of a batch may differ in: prompt, seed and references (of the same sizes)."""

    prompt: str
    seed: int
    references: Sequence[Reference] = ()


def generate_batch(
    pipeline: Any,
    job: Job,
    rows: Sequence[BatchRow],
    settings: KontextSettings | None = None,
    *,
    latents: Tensor | None = None,
    latent_cache: LatentCache | None = None,
    prompt_cache: PromptCache | None = None,
    interrupt: threading.Event | None = None,
) -> Generated:
    """Make one picture for each row, in one batch. The caches decide for each as if it were alone.

    Args:
        pipeline: a loaded ``FluxKontextPipeline``.
        job: size, steps and guidance of all; its prompt, seed and number of images are not read.
        rows: one or more.
        settings: as ``generate``.
        latents: as ``generate``.
        latent_cache: of encoded references, between calls.
        prompt_cache: of embedded prompts, between calls.
        interrupt: set by another thread to stop.

    Raises:
        KontextError: as ``generate``.
        ValueError: the references of the rows are not of the same number and sizes.
        Interrupted: ``interrupt`` was set.
    """
    settings = settings or KontextSettings()
    memory = MemoryMeter(torch.device(pipeline._execution_device), reset_peaks=True)
    with torch.inference_mode():
        encoded = _encode(pipeline, job, rows, settings, latent_cache if latent_cache is not None else LatentCache())
        texts, pooled = (prompt_cache or PromptCache()).embed(pipeline, [row.prompt for row in rows])
        size = (job.width, job.height)
        together = join_references(encoded)
        sampling = PipelineSampling(pipeline, size, job.steps, settings, together, memory, interrupt)
        try:
            with sampling.hooked():
                result = pipeline(
                    prompt_embeds=texts,
                    pooled_prompt_embeds=pooled,
                    width=job.width,
                    height=job.height,
                    max_area=job.width * job.height,  # or the pipeline would rescale to a megapixel
                    num_inference_steps=job.steps,
                    guidance_scale=job.guidance,
                    generator=[torch.Generator("cpu").manual_seed(row.seed) for row in rows],
                    latents=latents,
                    callback_on_step_end=sampling.step_ended,
                    output_type="latent",
                )
        finally:
            report = sampling.session.close()
        generation = GenerationReport((report,), memory.peaks())  # before decoding, whose peak is not sampling's
        images = _decode(pipeline, result.images, job)
    counts = [one.encoded for one in encoded] or [0] * len(rows)
    return Generated(images, result.images, generation, sampling.decisions, counts)


def _encode(
    pipeline: Any, job: Job, rows: Sequence[BatchRow], settings: KontextSettings, cache: LatentCache
) -> list[EncodedReferences]:
    """Encode the references of each row; nothing where no row has any."""
    place = partial(position_ids, settings.placement, canvas=(job.height // TOKEN_SIDE, job.width // TOKEN_SIDE))
    encoded: list[EncodedReferences] = []
    for number, row in enumerate(rows):
        if number and row.references is rows[0].references:
            encoded += [replace(one, seconds=0.0, encoded=0, cached=0) for one in encoded[:1]]  # the same object
        elif row.references:
            plans = plan_sizes(row.references, settings, (job.width, job.height))
            references, plans = apply_stitch(row.references, plans, settings.stitch)
            vae, encoder = str(pipeline.vae.dtype), VaeEncoder(pipeline)
            encoded.append(encode_references(references, plans, cache, vae, encoder, place))
    if encoded and len(encoded) != len(rows):
        raise ValueError("some rows of the batch have references, others have none")
    return encoded


def _call_of(call: CallRecord, decision: Decision) -> CallRecord:
    return replace(
        call,
        seconds=call.seconds / call.images,
        reused=int(decision.reuse),
        images=1,
        distance=decision.distance,
        kept=int(decision.cached_references),
    )


class VaeEncoder:
    """Encodes an RGB image to the posterior's mean as the transformer expects it, (1, C, h, w)."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    def __call__(self, image: Image.Image) -> Tensor:
        vae = self._pipeline.vae
        pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / 127.5 - 1.0).permute(2, 0, 1)[None]
        mean = vae.encode(pixels.to(self._pipeline._execution_device, vae.dtype)).latent_dist.mean
        latent: Tensor = (mean - vae.config.shift_factor) * vae.config.scaling_factor
        return latent


def _decode(pipeline: Any, latents: Tensor, job: Job) -> list[Image.Image]:
    spatial = pipeline._unpack_latents(latents, job.height, job.width, pipeline.vae_scale_factor)
    spatial = spatial / pipeline.vae.config.scaling_factor + pipeline.vae.config.shift_factor
    pixels = pipeline.vae.decode(spatial.to(pipeline.vae.dtype), return_dict=False)[0]
    images: list[Image.Image] = pipeline.image_processor.postprocess(pixels.float(), output_type="pil")
    return images
