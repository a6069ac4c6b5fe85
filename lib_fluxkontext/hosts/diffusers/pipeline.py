"""One generation with a ``FluxKontextPipeline``: the same references, caches, telemetry and report as in Forge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lib_fluxkontext.caching.sample_key import Step
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.geometry import TOKEN_SIDE, pixel_tokens
from lib_fluxkontext.hooks.patch import patched_attr
from lib_fluxkontext.hosts.diffusers.adapter import DiffusersFluxAdapter
from lib_fluxkontext.images.decode import Reference
from lib_fluxkontext.images.stitch import apply_stitch, plan_sizes
from lib_fluxkontext.references.encode import EncodedReferences, encode_references
from lib_fluxkontext.references.latent_cache import LatentCache
from lib_fluxkontext.references.placement import position_ids
from lib_fluxkontext.sampling.factory import build_caches
from lib_fluxkontext.sampling.session import SamplingSession
from lib_fluxkontext.settings import KontextSettings, describe
from lib_fluxkontext.telemetry.memory import MemoryMeter
from lib_fluxkontext.telemetry.records import GenerationReport

MAX_STEPS = 1000
"""Training timesteps of the scheduler; more sampler steps would only repeat them."""


@dataclass(frozen=True)
class Job:
    """What to make, beside the references and the settings that both hosts share.

    Attributes:
        prompt: the instruction.
        width: of the picture, in pixels, a multiple of a token's 16.
        height: likewise.
        steps: sampler steps, 1 or more.
        seed: of the start noise, drawn on the CPU so that it is the same everywhere.
        guidance: distilled guidance scale.
        images: pictures to make in one batch; the seed of each is one higher, as in Forge.
    """

    prompt: str
    width: int
    height: int
    steps: int = 20
    seed: int = 0
    guidance: float = 3.5
    images: int = 1

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            side = getattr(self, name)
            if side < TOKEN_SIDE or side % TOKEN_SIDE:
                raise KontextError(f"{name} {side} is not a multiple of {TOKEN_SIDE}", "size")
        if not isinstance(self.steps, int) or not 1 <= self.steps <= MAX_STEPS:
            raise KontextError(f"got {describe(self.steps)}; allowed: a whole number, 1 to {MAX_STEPS}", "steps")
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**63:
            raise KontextError(f"got {describe(self.seed)}; allowed: a whole number, 0 or more", "seed")
        if not isinstance(self.guidance, (int, float)) or not 0 <= self.guidance <= 100:
            raise KontextError(f"got {describe(self.guidance)}; allowed: a number from 0 to 100", "guidance")
        if not isinstance(self.images, int) or self.images < 1:
            raise KontextError(f"got {describe(self.images)}; allowed: a whole number, 1 or more", "images")


@dataclass(frozen=True)
class Generated:
    """The pictures, their latents as the pipeline packs them, (images, tokens, C·4), and what they cost."""

    images: list[Image.Image]
    latents: Tensor
    report: GenerationReport

    @property
    def image(self) -> Image.Image:
        """The first one."""
        return self.images[0]


def generate(
    pipeline: Any,
    job: Job,
    references: Sequence[Reference] = (),
    settings: KontextSettings | None = None,
    *,
    latents: Tensor | None = None,
    latent_cache: LatentCache | None = None,
) -> Generated:
    """Make one picture, or a batch of them.

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
    settings = settings or KontextSettings()
    output = (job.width, job.height)
    references, plans = apply_stitch(references, plan_sizes(references, settings, output), settings.stitch)
    place = partial(position_ids, settings.placement, canvas=(job.height // TOKEN_SIDE, job.width // TOKEN_SIDE))
    memory = MemoryMeter(torch.device(pipeline._execution_device), reset_peaks=True)
    with torch.inference_mode():
        encoded = None
        if references:
            cache = latent_cache if latent_cache is not None else LatentCache()
            encoded = encode_references(references, plans, cache, str(pipeline.vae.dtype), VaeEncoder(pipeline), place)
        sampling = _PipelineSampling(pipeline, job, settings, encoded, memory)
        try:
            with sampling.hooked():
                result = pipeline(
                    prompt=job.prompt,
                    width=job.width,
                    height=job.height,
                    max_area=job.width * job.height,  # or the pipeline would rescale to a megapixel
                    num_inference_steps=job.steps,
                    guidance_scale=job.guidance,
                    num_images_per_prompt=job.images,
                    generator=[torch.Generator("cpu").manual_seed(job.seed + image) for image in range(job.images)],
                    latents=latents,
                    callback_on_step_end=sampling.step_ended,
                    output_type="latent",
                    max_sequence_length=_text_tokens(pipeline),
                )
        finally:
            report = sampling.session.close()
        generation = GenerationReport((report,), memory.peaks())  # before decoding, whose peak is not sampling's
        return Generated(_decode(pipeline, result.images, job), result.images, generation)


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


class _PipelineSampling:
    """A session, driven by the transformer's calls in one call of the pipeline."""

    def __init__(
        self, pipeline: Any, job: Job, settings: KontextSettings, encoded: EncodedReferences | None, memory: MemoryMeter
    ) -> None:
        self._transformer = pipeline.transformer
        self._steps = job.steps
        self._step = 0
        self._call_in_step = 0
        self.session = SamplingSession(
            pipeline.transformer,
            DiffusersFluxAdapter(),
            pixel_tokens(job.width, job.height),
            memory,
            build_caches(settings, encoded is not None),
            encoded,
            total_steps=lambda: job.steps,
        )

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Run each call of the transformer in the session while the context lasts."""
        original: Callable[..., Any] = self._transformer.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            # With true CFG the pipeline calls twice in a step, always in the same order.
            samples = [(self._call_in_step, image) for image in range(kwargs["hidden_states"].shape[0])]
            self._call_in_step += 1
            step = Step(self._step, self._step == self._steps - 1)
            with (
                patched_attr(self._transformer, "forward", original),
                self.session.call(samples, step, kwargs["timestep"]),
            ):
                return self._transformer.forward(*args, **kwargs)

        with patched_attr(self._transformer, "forward", forward):
            yield

    def step_ended(self, pipeline: Any, index: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        """The pipeline's callback."""
        self._step = index + 1
        self._call_in_step = 0
        return {}


def _text_tokens(pipeline: Any) -> int:
    """Return 512 as in the pipeline's own default, or what a small text encoder's tokenizer allows."""
    return min(512, int(pipeline.tokenizer_2.model_max_length))


def _decode(pipeline: Any, latents: Tensor, job: Job) -> list[Image.Image]:
    spatial = pipeline._unpack_latents(latents, job.height, job.width, pipeline.vae_scale_factor)
    spatial = spatial / pipeline.vae.config.scaling_factor + pipeline.vae.config.shift_factor
    pixels = pipeline.vae.decode(spatial.to(pipeline.vae.dtype), return_dict=False)[0]
    images: list[Image.Image] = pipeline.image_processor.postprocess(pixels.float(), output_type="pil")
    return images
