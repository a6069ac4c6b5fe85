"""The pipeline of a batch: loaded when rows ask for another checkpoint, with what is kept between its rows."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lib_fluxkontext.batch.row import Lora
from lib_fluxkontext.errors import KontextError, first_line, is_device_failure
from lib_fluxkontext.hosts.diffusers.loader import SMALL_MODEL, check_checkpoint, load_pipeline
from lib_fluxkontext.hosts.diffusers.options import LoadOptions
from lib_fluxkontext.hosts.diffusers.prompts import PromptCache
from lib_fluxkontext.job import SMALL_MODEL_NAME
from lib_fluxkontext.references.latent_cache import LatentCache

LATENT_BYTES = 256 * 2**20
"""Bound of encoded references: those of 256 one-megapixel photographs."""


class ModelStore:
    """One pipeline at a time.

    Args:
        options: how to load.
    """

    def __init__(self, options: LoadOptions) -> None:
        self._options = options
        self._pipeline: Any = None
        self._checkpoint: Path | None = None
        self._loras: tuple[Lora, ...] = ()
        self._components: tuple[object, ...] = ()
        self._errors: dict[object, KontextError] = {}
        self.latents = LatentCache(LATENT_BYTES)
        self.prompts = PromptCache()
        self.loads = 0
        """Checkpoints that were loaded."""

    def pipeline(self, checkpoint: str, loras: Sequence[Lora] = ()) -> Any:
        """Return the pipeline of a checkpoint with these LoRAs; load what is not loaded.

        Raises:
            KontextError: it cannot be loaded. The next call for the same raises the same without trying.
        """
        path, wanted = self._options.path_for(checkpoint), tuple(loras)
        for key in (path, (path, wanted)):
            if key in self._errors:
                raise self._errors[key]
        if self._pipeline is None or path != self._checkpoint:
            with self._remembered(path, "checkpoint", [path.name if path is not None else SMALL_MODEL_NAME]):
                self._load(path)
        if wanted != self._loras:
            with self._remembered((path, wanted), "lora", [lora.name for lora in wanted]):
                self._set_loras(wanted)
        return self._pipeline

    @contextmanager
    def _remembered(self, key: object, field: str, names: Sequence[str]) -> Iterator[None]:
        """Turn what a library raises of files that do not fit, or do not fit into memory, into one error, and keep it.

        Raises:
            KontextError: with that field. A device that answers nothing any more is nobody's file's fault, and what is
                missing can be installed: those errors pass.
        """
        try:
            yield
        except KontextError as error:
            self._errors[key] = error
            raise
        except ImportError:
            raise
        except Exception as error:  # diffusers, peft and safetensors raise all kinds
            if is_device_failure(error):
                raise
            reason = f"{' and '.join(names)} could not be loaded: {first_line(error)}"
            self._errors[key] = KontextError(reason, field)
            raise self._errors[key] from None

    def clear(self) -> None:
        """Let go of the pipeline, and of what is kept."""
        self._unload()
        self._forget_components()

    def _load(self, path: Path | None) -> None:
        options = self._options
        loading = (path, options.base, options.device, options.nf4, options.offload)
        check_checkpoint(*loading)  # before the one that is loaded goes
        self._unload()
        pipeline = load_pipeline(*loading)
        pipeline.set_progress_bar_config(disable=True)
        self.loads += 1
        # Checkpoints in one file share the autoencoder and the text encoders of one folder.
        folder = options.base if path is not None and path.is_file() else path or SMALL_MODEL
        components = (folder, pipeline.vae.dtype, pipeline.text_encoder_2.dtype)
        if components != self._components:
            self._forget_components()
            self._components = components
        self._pipeline, self._checkpoint = pipeline, path

    def _unload(self) -> None:
        if self._pipeline is None:
            return
        self._set_loras(())
        self._pipeline = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _forget_components(self) -> None:
        self.latents.clear()
        self.prompts.clear()

    def _set_loras(self, loras: tuple[Lora, ...]) -> None:
        if self._loras:
            if _changes_texts(self._pipeline):
                self.prompts.clear()
            self._pipeline.unload_lora_weights()
            self._loras = ()
        if not loras:
            return
        names = [f"lora{number}" for number in range(len(loras))]
        try:
            for name, lora in zip(names, loras, strict=True):
                self._pipeline.load_lora_weights(lora.name, adapter_name=name)
                # diffusers only warns of a file that has nothing for this model.
                if name not in {one for some in self._pipeline.get_list_adapters().values() for one in some}:
                    raise KontextError(f"{lora.name} has nothing for a FLUX.1 transformer", "lora")
            self._pipeline.set_adapters(names, [lora.weight for lora in loras])
        except BaseException:  # or the next rows would have those that were loaded first
            self._pipeline.unload_lora_weights()
            raise
        self._loras = loras
        if _changes_texts(self._pipeline):
            self.prompts.clear()


def _changes_texts(pipeline: Any) -> bool:
    """Whether a LoRA that is loaded has a part for a text encoder."""
    encoders = (pipeline.text_encoder, pipeline.text_encoder_2)
    return any(getattr(encoder, "peft_config", None) for encoder in encoders)
