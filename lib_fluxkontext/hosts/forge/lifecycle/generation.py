"""One generation, from Forge's first callback to its last. The state belongs to a ``p``, never to the script.

Nested generations (ADetailer and others) have a ``p`` of their own, and so a state of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import psutil
import torch
from torch import Tensor

from lib_fluxkontext import infotext
from lib_fluxkontext.distilled_lora import REUSED_FEW_STEPS, distilled_loras
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.geometry import VAE_SCALE, latent_grid
from lib_fluxkontext.hosts.forge.integration import options
from lib_fluxkontext.hosts.forge.lifecycle import hires, inpaint, live_reports
from lib_fluxkontext.hosts.forge.lifecycle.inputs import Inputs
from lib_fluxkontext.hosts.forge.lifecycle.sampler_hook import SamplerEndHook
from lib_fluxkontext.hosts.forge.runtime.adapter import ForgeFluxAdapter, flux_adapter, why_no_references
from lib_fluxkontext.hosts.forge.runtime.loaded_checkpoint import quoted_name, why_not_flux
from lib_fluxkontext.hosts.forge.runtime.model_wrapper import COMPILED, HookedSampling, is_compiled, total_steps
from lib_fluxkontext.hosts.forge.runtime.protocols import Img2Img, Processing
from lib_fluxkontext.hosts.forge.runtime.sampler_compatibility import compatible_settings, noisy_sampler
from lib_fluxkontext.hosts.forge.runtime.vae import encoder
from lib_fluxkontext.hosts.forge.runtime.vram import estimate_sampling, keep_loaded, reserve
from lib_fluxkontext.images.decode import Reference
from lib_fluxkontext.images.stitch import apply_stitch, plan_sizes
from lib_fluxkontext.references.encode import EncodedReferences
from lib_fluxkontext.references.placement import position_ids
from lib_fluxkontext.sampling.factory import build_caches
from lib_fluxkontext.sampling.session import SamplingSession
from lib_fluxkontext.sampling.vram import SamplingLoad, settings_within_host_memory
from lib_fluxkontext.telemetry.memory import MemoryMeter
from lib_fluxkontext.telemetry.records import GenerationReport

ATTRIBUTE = "flux_kontext_generation"

INIT_IMAGE_GIVEN = "Forge Neo gives a Kontext model the init image as a reference itself; it is not there twice."


class Generation:
    """Settings, decoded references and everything measured for one ``p``.

    Attributes:
        active: False where the checkpoint is not Flux and there is nothing to do.
        given_references: as decoded; ``references`` may be cropped to the canvas.
        finished_batches: how many were not cut short.
        outside: what keeps the original outside the mask, where that is asked for and there is a mask.
    """

    def __init__(self, inputs: Inputs) -> None:
        self.settings = inputs.settings
        self.references = self.given_references = inputs.references
        self.active = True
        self.finished_batches = 0
        self.outside: inpaint.OutsideKeeper | None = None
        self._memory: MemoryMeter | None = None
        self._end_hook: SamplerEndHook | None = None
        self._samplings: list[tuple[int, HookedSampling]] = []
        self._notes: list[str] = []
        self._has_distilled_lora = False

    def check_model(self, p: Processing) -> None:
        """Check the checkpoint, which is loaded by now. Without references one that is not Flux goes on untouched.

        But not by Forge's button that upscales a picture: what is loaded then is about to be replaced, and
        ``open_sampling`` sees what samples.

        Raises:
            KontextError: references were given, and the checkpoint cannot take them.
        """
        if getattr(p, "txt2img_upscale", False):
            return
        transformer = p.sd_model.forge_objects.unet.model.diffusion_model
        adapter = flux_adapter(transformer)
        if adapter is None:
            reason = why_not_flux(p)
            if self.references:
                raise KontextError(f"{reason}; choose a FLUX.1 Kontext checkpoint, or turn Flux Kontext off", "image1")
            self._stand_aside(p, reason)
            return
        why_not = why_no_references(transformer)
        ours = _without_init_image(self.references) if adapter.appends_init_image else self.references
        if ours and why_not is not None:
            raise KontextError(f"{quoted_name(p)} {why_not}", "image1")

    def _stand_aside(self, p: Processing, reason: str) -> None:
        self.active = False
        for label in infotext.settings_to_infotext(self.settings, self.references):
            p.extra_generation_params.pop(label, None)
        p.comment(f"Flux Kontext did nothing: {reason}.")

    def prepare_inpainting(self, p: Img2Img, region: inpaint.Region | None, has_mask: bool) -> None:
        """Prepare what keeps the original outside the mask; crop references that are the init image as it is cropped.

        Args:
            p: Forge's processing object.
            region: what is sampled of the init image in "only masked".
            has_mask: whether there is a mask, and it is not empty.
        """
        if not self.settings.keep_outside_mask or not has_mask:
            return
        self.outside = inpaint.OutsideKeeper(p, region)
        cropped = self.references if region is None else inpaint.crop_references(p, self.references, region)
        if region is not None and cropped != self.references:
            self.references = cropped
            p.extra_generation_params[infotext.IMAGE_CROP] = infotext.crop_to_infotext(region)
            self._note(inpaint.CROPPED)

    def open_sampling(self, p: Processing, x: Tensor) -> None:
        """Hook one sampling; idempotent, since Forge announces the hires pass twice and resets in between.

        Args:
            p: Forge's processing object.
            x: (B, C, h, w) start latent of this sampling.
        """
        if self._end_hook is not None:
            self._end_hook.remove()
            self._end_hook = None
            self._samplings.pop()[1].close()
        if self.settings.keep_outside_mask and self.outside is None:
            self._note(inpaint.NO_MASK)
        references = self.references if self.settings.hires_references or not p.is_hr_pass else ()
        transformer = p.sd_model.forge_objects.unet.model.diffusion_model
        adapter = flux_adapter(transformer)
        if adapter is None:  # the hires pass has a checkpoint of its own
            reason = why_not_flux(p)
            if references:
                raise KontextError(f"in the hires pass {reason}; {hires.REMEDY}", hires.FIELD)
            if self._samplings:
                self._note("The hires pass ran without cache: its checkpoint is not FLUX.")
            else:  # there is no other pass
                self._stand_aside(p, reason)
            return
        if self.settings.init_image_as_reference and adapter.has_init_image(p.sd_model):
            references = _without_init_image(references)
            self._note(INIT_IMAGE_GIVEN)
        why_not = why_no_references(transformer)
        if references and why_not is not None:
            raise KontextError(f"the checkpoint {why_not}", references[0].name)
        host_references = adapter.host_reference_grids(transformer)
        encoded = self._encode(p, x, references, host_references) if references else None
        self._hook(p, x, adapter, encoded, tuple(rows * columns for rows, columns in host_references))

    def _hook(
        self,
        p: Processing,
        x: Tensor,
        adapter: ForgeFluxAdapter,
        encoded: EncodedReferences | None,
        host_reference_tokens: tuple[int, ...],
    ) -> None:
        has_references = encoded is not None or bool(host_reference_tokens)
        self._has_distilled_lora = any(distilled_loras(prompt) for prompt in p.all_prompts)
        settings, notes = compatible_settings(self.settings, has_references, p.sampler)
        for note in notes:
            self._note(note)
        unet = p.sd_model.forge_objects.unet.clone()
        if self._memory is None:
            self._memory = MemoryMeter(torch.device(unet.load_device), reset_peaks=not _forge_resets_peaks(p))
        cfg_scale = p.hr_cfg if p.is_hr_pass else p.cfg_scale
        load = SamplingLoad(
            rows=x.shape[0] * (1 if cfg_scale == 1 else 2),
            image_tokens=adapter.image_tokens(unet.model.diffusion_model, x.shape[-2], x.shape[-1]),
            reference_tokens=sum(host_reference_tokens) + (sum(encoded.tokens.counts) if encoded else 0),
        )
        vram = estimate_sampling(unet, settings, load)
        settings, shortage = settings_within_host_memory(settings, vram, psutil.virtual_memory().available)
        if shortage is not None:
            self._note(shortage)
            vram = estimate_sampling(unet, settings, load)
        sampler = p.sampler
        session = SamplingSession(
            unet.model.diffusion_model,
            adapter,
            load.image_tokens,
            self._memory,
            build_caches(settings, has_references, vram.place),
            encoded,
            label=_label(p),
            total_steps=lambda: total_steps(sampler),
            vram=vram,
            host_reference_tokens=host_reference_tokens,
            noisy_sampler=noisy_sampler(p),
        )
        sampling = HookedSampling(session, sampler)
        sampling.install(unet)
        if session.hooks and is_compiled(unet):
            self._note(COMPILED)
        reserve(unet, vram.reserved)
        keep_loaded(unet)
        p.sd_model.forge_objects.unet = unet
        self._samplings.append((p.iteration, sampling))
        live_reports.watch(live_reports.tab_of(p), self, session)
        self._end_hook = SamplerEndHook(
            sampler,
            on_end=lambda: self._sampling_ended(p, sampling),
            on_start=lambda: _sampling_started(p, sampling),
        )

    def _sampling_ended(self, p: Processing, sampling: HookedSampling) -> None:
        self._end_hook = None
        sampling.close()
        self._sample_memory()
        live_reports.publish(live_reports.tab_of(p), self.report())

    def _encode(
        self, p: Processing, x: Tensor, references: Sequence[Reference], placed: Sequence[tuple[int, int]]
    ) -> EncodedReferences:
        output = (x.shape[3] * VAE_SCALE, x.shape[2] * VAE_SCALE)
        references, plans = apply_stitch(
            references, plan_sizes(references, self.settings, output), self.settings.stitch
        )
        max_bytes = options.current().store_mib * 2**20
        place = partial(
            position_ids, self.settings.placement, placed=placed, canvas=latent_grid(x.shape[2], x.shape[3])
        )
        return encoder.encode(p.sd_model.forge_objects.vae, references, plans, max_bytes, place)

    def _note(self, text: str) -> None:
        if text not in self._notes:  # samplings are announced more than once, and every batch has some
            self._notes.append(text)

    def close(self) -> None:
        """Close whatever is still open: where the sampler never ran, the end hook never fired."""
        if self._end_hook is not None:
            self._end_hook.remove()
            self._end_hook = None
        for _, sampling in self._samplings:
            sampling.close()
        self._sample_memory()

    def _sample_memory(self) -> None:
        if self._memory is not None:
            self._memory.sample()

    def report(self, iteration: int | None = None) -> GenerationReport:
        """Report what has been measured, of one batch or of all. Changes nothing."""
        passes = [
            sampling.session.snapshot().report
            for batch, sampling in self._samplings
            if iteration is None or batch == iteration
        ]
        memory = self._memory.peaks() if self._memory is not None else None
        notes = (*self._notes, *(self.outside.notes if self.outside is not None else ()))
        report = GenerationReport(tuple(passes), memory, notes)
        if self._has_distilled_lora and report.reused_share:
            report = replace(report, notes=(*notes, REUSED_FEW_STEPS))
        return report


def _sampling_started(p: Processing, sampling: HookedSampling) -> None:
    """Hook the patcher that samples: another extension may have cloned ours, or replaced what was set on it."""
    sampling.install(p.sd_model.forge_objects.unet)
    keep_loaded(p.sd_model.forge_objects.unet)


def _without_init_image(references: Sequence[Reference]) -> tuple[Reference, ...]:
    return tuple(reference for reference in references if reference.name != "init_image_as_reference")


def of(p: object) -> Generation | None:
    """The state of ``p``, or None where the extension is off."""
    generation: Generation | None = getattr(p, ATTRIBUTE, None)
    return generation


def attach(p: object, generation: Generation | None) -> None:
    """Make this the state of ``p``. None forgets it: ``p`` lives on until Python collects it, the images need not."""
    setattr(p, ATTRIBUTE, generation)


def batch_notes(report: GenerationReport) -> Sequence[str]:
    """What the user should know of a batch."""
    return [*report.notes, *(note for sampling in report.passes for note in sampling.notes)]


def _forge_resets_peaks(p: Processing) -> bool:
    """In the page Forge's own memory monitor resets torch's peaks, unless it is off; through the API nothing does."""
    from modules import shared

    return not getattr(p, "is_api", False) and shared.opts.memmon_poll_rate > 0 and not shared.mem_mon.disabled


def _label(p: Processing) -> str:
    label = f"Batch {p.iteration + 1}" if p.n_iter > 1 else "Sampling"
    return f"{label}, hires pass" if p.is_hr_pass else label
