"""Test-only script: failures, interruptions and counts on request.

It is registered only when the environment sets ``FLUX_KONTEXT_TEST_HOOKS=1``, and leaves a generation that does not
ask for it alone. Its API argument is a dict:

``{"fail_at_call": n}``      the n-th call of the transformer (from 1) raises ``RuntimeError``
``{"interrupt_at_step": n}`` interrupts the generation at step n (from 1)
``{"encoder_out_of_memory": n}`` the VAE's encoder fails n times as if the card were full
``{"keeping_out_of_memory": true}`` no key or value of a reference can be kept, as if the card were full
``{"no_room_on_card": true}`` the card has no room for the references' keys and values, so that they are streamed
``{"count_forwards": true}`` writes the counted calls into the infotext as ``Test calls``

On the page, words in the prompt do the same: ``half transparent`` makes the picture's left half transparent,
``full card`` makes the memory meter report a full card of 12 GB, ``without overlay`` empties inpainting's overlay after
the other extensions' callbacks, ``moved reference`` makes the picture the first reference, larger and further right.
"""

from __future__ import annotations

import os
from typing import Any

import gradio as gr
import torch
from modules import processing, script_callbacks, scripts, shared
from PIL import Image

ENABLED = os.environ.get("FLUX_KONTEXT_TEST_HOOKS") == "1"


class Hooks:
    """The controls of one generation, and their hooks on its transformer."""

    def __init__(self, controls: dict[str, Any], transformer: torch.nn.Module, encoder: torch.nn.Module) -> None:
        self.controls = controls
        self.counts = {"transformer": 0, "double": 0, "single": 0}
        self.steps = 0
        self.handles = []
        if "fail_at_call" in controls or controls.get("count_forwards"):
            self.watch(transformer, "transformer")
        if controls.get("encoder_out_of_memory"):
            self.handles.append(encoder.register_forward_pre_hook(self.run_out_of_memory))
        self.replaced: list[tuple[Any, str, Any]] = []
        if controls.get("keeping_out_of_memory"):
            from lib_fluxkontext.caching.kv_store import KVStore

            self.replace(KVStore, "put", self.no_room)
        if controls.get("no_room_on_card"):
            from lib_fluxkontext.hosts.forge.runtime import vram

            self.replace(vram, "available_bytes", lambda _: 0)
        if controls.get("full_card"):
            from lib_fluxkontext.telemetry.memory import MemoryMeter, MemoryUse

            full = MemoryUse("a card", 11 << 30, 12 << 30, 12 << 30, 12 << 30, 1 << 30, spill_suspected=True)
            self.replace(MemoryMeter, "peaks", lambda _: full)
        if controls.get("count_forwards"):
            for kind in ("double", "single"):
                for block in getattr(transformer, f"{kind}_blocks", []):
                    self.watch(block, kind)

    def watch(self, module: torch.nn.Module, kind: str) -> None:
        """Count the calls of ``module``, and let the one that was asked for fail."""

        def before_forward(*_: Any) -> None:
            self.counts[kind] += 1
            if kind == "transformer" and self.counts[kind] == self.controls.get("fail_at_call"):
                raise RuntimeError("failure asked for by a test")

        self.handles.append(module.register_forward_pre_hook(before_forward))

    def replace(self, owner: Any, name: str, replacement: Any) -> None:
        """Replace an attribute of a class or module until the generation ends."""
        self.replaced.append((owner, name, getattr(owner, name)))
        setattr(owner, name, replacement)

    def run_out_of_memory(self, *_: Any) -> None:
        """Fail like a full card, as often as was asked for."""
        if self.controls["encoder_out_of_memory"] > 0:
            self.controls["encoder_out_of_memory"] -= 1
            raise torch.cuda.OutOfMemoryError("CUDA out of memory, asked for by a test")

    @staticmethod
    def no_room(*_: Any) -> None:
        """Fail like a full card."""
        raise torch.cuda.OutOfMemoryError("CUDA out of memory, asked for by a test")

    def remove(self) -> None:
        """Take all hooks off."""
        while self.replaced:
            setattr(*self.replaced.pop())
        while self.handles:
            self.handles.pop().remove()


active: Hooks | None = None


def end_hooks() -> None:
    """Remove the running generation's hooks."""
    global active
    if active is not None:
        active.remove()
    active = None


def end_hooks_after_processing() -> None:
    """Wrap Forge's generation so that hooks go however it ends."""
    original = processing.process_images_inner

    def process_images_inner(p: processing.StableDiffusionProcessing) -> processing.Processed:
        try:
            return original(p)
        finally:
            end_hooks()

    processing.process_images_inner = process_images_inner


def interrupt_if_asked(_: script_callbacks.CFGDenoiserParams) -> None:
    """Interrupt the generation at the step that was asked for; Forge finishes that step's call."""
    if active is not None:
        active.steps += 1
        if active.steps == active.controls.get("interrupt_at_step"):
            shared.state.interrupted = True


def moved_reference(p: processing.StableDiffusionProcessing, size: tuple[int, int]) -> Image.Image:
    """Return the first reference 2 % larger and 6 pixels further right."""
    from lib_fluxkontext.hosts.forge.lifecycle import generation

    width, height = size
    larger, right = 1.02, 6
    affine = (1 / larger, 0, (width - (width + 2 * right) / larger) / 2, 0, 1 / larger, height * (1 - 1 / larger) / 2)
    reference = generation.of(p).references[0].image.resize(size, Image.Resampling.LANCZOS)
    return reference.transform(size, Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)


if ENABLED:

    class SmallFluxTestHooks(scripts.Script):
        """Makes the controls reachable through the API."""

        def title(self) -> str:
            return "Small Flux Test Hooks"

        def show(self, is_img2img: bool) -> object:
            return scripts.AlwaysVisible

        def ui(self, is_img2img: bool) -> list[gr.components.Component]:
            return [gr.JSON(value=None, visible=False)]

        def process(self, p: processing.StableDiffusionProcessing, controls: dict | None = None) -> None:
            global active
            if "full card" in p.prompt:
                controls = {"full_card": True}
            if controls:
                end_hooks()
                objects = p.sd_model.forge_objects
                active = Hooks(controls, objects.unet.model.diffusion_model, objects.vae.first_stage_model.encoder)

        def postprocess_image(self, p: processing.StableDiffusionProcessing, pp: Any, *_: Any) -> None:
            if "half transparent" in p.prompt:
                pp.image = pp.image.convert("RGBA")
                pp.image.paste((0, 0, 0, 0), (0, 0, pp.image.width // 2, pp.image.height))
            if "moved reference" in p.prompt:
                pp.image = moved_reference(p, pp.image.size)

        def postprocess_maskoverlay(self, p: processing.StableDiffusionProcessing, ppmo: Any, *_: Any) -> None:
            if "without overlay" in p.prompt:
                ppmo.overlay_image = Image.new("RGBA", ppmo.overlay_image.size)

        def postprocess_batch(self, p: processing.StableDiffusionProcessing, *_: Any, **__: Any) -> None:
            if active is not None and active.controls.get("count_forwards"):
                text = " ".join(f"{kind}={count}" for kind, count in active.counts.items())
                p.extra_generation_params["Test calls"] = text

    end_hooks_after_processing()
    script_callbacks.on_cfg_denoiser(interrupt_if_asked)
