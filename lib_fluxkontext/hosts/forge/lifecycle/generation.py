"""One generation, from Forge's first callback to its last. The state hangs on ``p``, never on the script.

Nested generations (ADetailer and others) have a ``p`` of their own, and so a state of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from lib_fluxkontext import infotext
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.hosts.forge.integration import options, run_log, xyz_axes
from lib_fluxkontext.hosts.forge.lifecycle import live_reports as latest
from lib_fluxkontext.hosts.forge.lifecycle.abort import abort_generation
from lib_fluxkontext.hosts.forge.lifecycle.image_source import open_source
from lib_fluxkontext.hosts.forge.lifecycle.sampler_hook import SamplerEndHook
from lib_fluxkontext.hosts.forge.runtime.adapter import ForgeFluxLayout, flux_layout
from lib_fluxkontext.hosts.forge.runtime.model_wrapper import SamplingPass
from lib_fluxkontext.hosts.forge.runtime.sampler_compatibility import compatible_settings
from lib_fluxkontext.hosts.forge.runtime.vae import encoder
from lib_fluxkontext.hosts.forge.runtime.vram import demand, reserve
from lib_fluxkontext.images.decode import Reference, decode_reference
from lib_fluxkontext.images.sizing import plan_size
from lib_fluxkontext.references.encode import EncodedReferences
from lib_fluxkontext.sampling.factory import caches_for
from lib_fluxkontext.settings import IMAGE_FIELDS, KontextSettings
from lib_fluxkontext.telemetry.memory import MemoryMeter
from lib_fluxkontext.telemetry.records import GenerationReport, PassReport

ATTRIBUTE = "flux_kontext_generation"
LATENT_SCALE = 8
"""Pixels on a latent pixel's side."""


class Generation:
    """Settings, decoded references and everything measured for one ``p``.

    Attributes:
        active: False where the checkpoint is not Flux and there is nothing to do.
        whole_batches: how many came to their end.
    """

    def __init__(self, settings: KontextSettings, references: Sequence[Reference]) -> None:
        self.settings = settings
        self.references = list(references)
        self.active = True
        self.whole_batches = 0
        self._memory: MemoryMeter | None = None
        self._guard: SamplerEndHook | None = None
        self._passes: list[tuple[int, SamplingPass]] = []
        self._notes: list[str] = []

    def check_model(self, p: Any) -> None:
        """The checkpoint is loaded by now. Without references one that is not Flux goes on untouched.

        Raises:
            KontextError: references were given, and the checkpoint cannot take them.
        """
        transformer = p.sd_model.forge_objects.unet.model.diffusion_model
        name = p.sd_model.sd_checkpoint_info.name_for_extra
        if flux_layout(transformer) is None:
            what = type(p.sd_model).__name__
            reason = f'the checkpoint "{name}" is not FLUX (Forge loaded it as {what})'
            if self.references:
                raise KontextError(f"{reason}; choose a FLUX.1 Kontext checkpoint, or turn Flux Kontext off", "image1")
            self.active = False
            for label in infotext.settings_to_infotext(self.settings, self.references):
                p.extra_generation_params.pop(label, None)
            p.comment(f"Flux Kontext did nothing: {reason}.")
        elif self.references and getattr(transformer, "in_channels", 64) != 64:
            reason = f'the checkpoint "{name}" is a FLUX variant with extra input channels (Fill, Canny or Depth)'
            raise KontextError(f"{reason}, which cannot take references", "image1")

    def open_pass(self, p: Any, x: torch.Tensor) -> None:
        """Hook one sampling; idempotent, since Forge announces the hires pass twice and resets in between.

        Args:
            p: Forge's processing object.
            x: (B, C, h, w) start latent of this sampling.
        """
        if self._guard is not None:
            self._guard.remove()
            self._passes.pop()[1].release()
        hires = bool(p.is_hr_pass)
        use_references = self.references and (self.settings.hires_references or not hires)
        encoded = self._encode(p, x) if use_references else None
        layout = flux_layout(p.sd_model.forge_objects.unet.model.diffusion_model)
        if layout is None:  # the hires pass has a checkpoint of its own
            if encoded is not None:
                reason = "the hires pass cannot take references: its checkpoint is not FLUX"
                raise KontextError(reason, "hires_references")
            self._note("The hires pass ran without cache: its checkpoint is not FLUX.")
            return
        self._attach(p, x, layout, encoded, _label(p, hires))

    def _attach(
        self, p: Any, x: torch.Tensor, layout: ForgeFluxLayout, encoded: EncodedReferences | None, label: str
    ) -> None:
        settings, notes = compatible_settings(self.settings, encoded is not None, p.sampler)
        for note in notes:
            self._note(note)
        unet = p.sd_model.forge_objects.unet.clone()
        if self._memory is None:
            self._memory = MemoryMeter(torch.device(unet.load_device), reset_peaks=not _forge_resets_peaks(p))
        image_tokens = -(-x.shape[2] // 2) * -(-x.shape[3] // 2)
        cfg_scale = p.hr_cfg if p.is_hr_pass else p.cfg_scale
        rows = x.shape[0] * (1 if cfg_scale == 1 else 2)
        reference_tokens = encoded.tokens.tokens.shape[1] if encoded else 0
        needs = demand(unet, settings, rows, image_tokens, reference_tokens)
        caches = caches_for(settings, encoded is not None, needs.place)
        transformer = unet.model.diffusion_model
        one = SamplingPass(label, p.sampler, transformer, layout, image_tokens, encoded, caches, self._memory)
        unet.set_model_unet_function_wrapper(one.wrapper(unet.model_options.get("model_function_wrapper")))
        reserve(unet, needs.bytes)
        p.sd_model.forge_objects.unet = unet
        self._passes.append((p.iteration, one))
        latest.watch(p, self.so_far)
        self._guard = SamplerEndHook(p.sampler, lambda: self._close(p, one))

    def _close(self, p: Any, one: SamplingPass) -> None:
        """The sampling is over, finished or failed."""
        self._guard = None
        latest.unwatch(p, self.so_far)
        one.release()
        latest.keep(p, self.report())

    def _encode(self, p: Any, x: torch.Tensor) -> EncodedReferences:
        output = (x.shape[3] * LATENT_SCALE, x.shape[2] * LATENT_SCALE)
        plans = [
            plan_size(reference.size, self.settings.sizing, self.settings.half_size, output, reference.name)
            for reference in self.references
        ]
        return encoder.encode(p.sd_model.forge_objects.vae, self.references, plans)

    def _note(self, text: str) -> None:
        if text not in self._notes:  # passes are announced more than once, and every batch has some
            self._notes.append(text)

    def so_far(self) -> tuple[GenerationReport, int] | None:
        """The pass that runs now, asked from another thread, and how many steps it will have."""
        passes = tuple(self._passes)
        if not passes:  # between two announcements of the same pass
            return None
        one, steps = passes[-1][1].so_far()
        return GenerationReport((one,), self._memory.read() if self._memory else None), steps

    def report(self, iteration: int | None = None) -> GenerationReport:
        """What has been measured: of one batch, or of all."""
        passes: list[PassReport] = [
            one.release() for batch, one in self._passes if iteration is None or batch == iteration
        ]
        memory = self._memory.read() if self._memory is not None else None
        return GenerationReport(tuple(passes), memory, tuple(self._notes))

    def comment(self, p: Any) -> None:
        """Put what the user should know of this batch under the picture, not in the report alone."""
        report = self.report(p.iteration)
        for note in [*report.notes, *(note for one in report.passes for note in one.notes)]:
            p.comment(f"Flux Kontext: {note}")


def prepare(p: Any, arguments: Sequence[Any]) -> None:
    """``before_process``: read and decode everything; whatever is wrong ends the generation here."""
    setattr(p, ATTRIBUTE, None)
    # X/Y/Z plot shares one dict among all its cells.
    p.extra_generation_params = infotext.strip_own_fields(p.extra_generation_params)
    try:
        axes = xyz_axes.values_of(p)
        if arguments and arguments[0] is False:  # the panel is off: an emptied number field there is no error
            return
        settings = KontextSettings.from_arguments(arguments)
        if axes:
            settings = KontextSettings.from_mapping({**settings.model_dump(), **axes})
        if not settings.enabled:
            return
        generation = Generation(settings, _decode(p, settings, options.background_of(p)))
        for output in _output_sizes(p, settings):
            for reference in generation.references:
                plan_size(reference.size, settings.sizing, settings.half_size, output, reference.name)
    except Exception as error:
        abort_generation(p, ("setup_prompts",), error)
        return
    setattr(p, ATTRIBUTE, generation)
    p.extra_generation_params.update(infotext.settings_to_infotext(settings, generation.references))


def check(p: Any) -> None:
    """``process``: the checkpoint is loaded, nothing is sampled yet."""
    generation = of(p)
    if generation is None:
        return
    try:
        generation.check_model(p)
    except Exception as error:
        abort_generation(p, ("init",), error)


def before_sampling(p: Any, x: torch.Tensor) -> None:
    """``process_before_every_sampling``: encode and hook."""
    generation = of(p)
    if generation is None or not generation.active:
        return
    try:
        generation.open_pass(p, x)
    except Exception as error:
        abort_generation(p.sampler, ("sample", "sample_img2img"), error)


def after_batch(p: Any) -> None:
    """``postprocess_batch``: the infotexts of this batch's pictures are built right after this."""
    from modules.shared import state

    generation = of(p)
    if generation is None or not generation.active:
        return
    generation.whole_batches += not (state.interrupted or state.skipped)
    generation.comment(p)
    p.extra_generation_params.update(infotext.report_to_infotext(generation.report(p.iteration)))


def finish(p: Any, processed: Any) -> None:
    """``postprocess``: infotexts are built, so what is added now reaches the API's ``info`` alone."""
    generation = of(p)
    # Forge's p is part of a cycle and lives on until Python collects; the photographs need not.
    setattr(p, ATTRIBUTE, None)
    if generation is None or not generation.active:
        return
    report = generation.report()
    trouble = None
    if generation.whole_batches == p.n_iter:  # among the runs of the log one cut short would pass for a very fast one
        trouble = run_log.record(p, processed, generation.settings, report)
    if trouble is not None:
        report = replace(report, notes=(*report.notes, f"{trouble[:1].upper()}{trouble[1:]}"))
    latest.keep(p, report)
    processed.extra_generation_params = {**processed.extra_generation_params, infotext.REPORT: report.to_dict()}


def of(p: Any) -> Generation | None:
    """The state of ``p``, or None where the extension is off."""
    return getattr(p, ATTRIBUTE, None)


def _decode(p: Any, settings: KontextSettings, background: str) -> list[Reference]:
    sources = {
        "image1": None if settings.mute_image1 else settings.image1,
        "image2": None if settings.mute_image2 else settings.image2,
    }
    references = []
    if settings.init_image_as_reference:
        init_images = getattr(p, "init_images", None)
        if not init_images:
            raise KontextError("there is no init image; it is for img2img", "init_image_as_reference")
        if len({id(image) for image in init_images}) > 1:
            reason = f"there are {len(init_images)} init images, and a batch shares its references; send one at a time"
            raise KontextError(reason, "init_image_as_reference")
        sources["image1"] = None  # the init image takes its place
        references.append(decode_reference(init_images[0], "init_image_as_reference", background))
    for name in IMAGE_FIELDS:
        if sources[name] is not None:
            references.append(decode_reference(open_source(sources[name], name), name, background))
    return references


def _output_sizes(p: Any, settings: KontextSettings) -> list[tuple[int, int]]:
    """Sizes of the passes that will have references, so that one too large is refused before the first runs."""
    from modules.shared import opts

    sizes = [(p.width, p.height)]
    # By Forge's old rule, an option, width and height are the second pass's already.
    if getattr(p, "enable_hr", False) and settings.hires_references and not opts.use_old_hires_fix_width_height:
        # Forge reckons it later: a side that is not given follows the other, and with neither given the scale holds.
        x, y = int(p.hr_resize_x or 0), int(p.hr_resize_y or 0)
        scale = x / p.width if x else y / p.height if y else p.hr_scale
        sizes.append((x or int(p.width * scale), y or int(p.height * scale)))
    return sizes


def _forge_resets_peaks(p: Any) -> bool:
    """In the page Forge's own memory monitor resets torch's peaks, unless it is off; through the API nothing does."""
    from modules import shared

    return not getattr(p, "is_api", False) and shared.opts.memmon_poll_rate > 0 and not shared.mem_mon.disabled


def _label(p: Any, hires: bool) -> str:
    label = f"Batch {p.iteration + 1}" if p.n_iter > 1 else "Sampling"
    return f"{label}, hires pass" if hires else label
