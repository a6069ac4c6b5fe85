"""What is used of Forge's objects, and no more. Forge itself is not typed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

ApplyModel = Callable[..., Tensor]
"""Forge's model: (input, timestep, **conditioning) → (B, C, h, w)."""

ModelFunctionWrapper = Callable[[ApplyModel, dict[str, Any]], Tensor]
"""What ``set_model_unet_function_wrapper`` takes: (apply_model, params) → output."""


class Denoiser(Protocol):
    """``CFGDenoiser``: counts model evaluations."""

    step: int
    steps: int | None
    total_steps: int | None


class SamplerConfig(Protocol):
    """``SamplerData``."""

    name: str


class Sampler(Protocol):
    """Forge's sampler of one sampling (``modules.sd_samplers_common.Sampler``)."""

    config: SamplerConfig
    funcname: str | Callable[..., Any]
    model_wrap_cfg: Denoiser


class KModel(Protocol):
    """The patcher's model (``backend.modules.k_model.KModel``)."""

    diffusion_model: nn.Module


class UnetPatcher(Protocol):
    """``backend.patcher.unet.UnetPatcher``."""

    model: KModel
    model_options: dict[str, Any]
    load_device: torch.device
    extra_preserved_memory_during_sampling: int
    controlnet_linked_list: Any
    lora_patches: Any

    def model_dtype(self) -> torch.dtype: ...
    def has_online_lora(self) -> bool: ...
    def clone(self) -> UnetPatcher: ...
    def is_clone(self, other: object) -> bool: ...
    def memory_required(self, input_shape: Sequence[int]) -> float: ...
    def set_model_unet_function_wrapper(self, wrapper: ModelFunctionWrapper) -> None: ...
    def add_extra_preserved_memory_during_sampling(self, memory_in_bytes: int) -> None: ...


class FirstStageModel(Protocol):
    """Flux's autoencoder in Forge (``IntegratedAutoencoderKL``)."""

    encode: Callable[..., Tensor]
    encoder: Callable[[Tensor], Tensor]
    quant_conv: Callable[[Tensor], Tensor] | None

    def process_in(self, latent: Tensor) -> Tensor: ...


class Vae(Protocol):
    """``backend.patcher.vae.VAE``."""

    first_stage_model: FirstStageModel
    vae_dtype: torch.dtype

    def encode(self, pixels: Tensor) -> Tensor: ...


class ForgeObjects(Protocol):
    """``backend.diffusion_engine.base.ForgeObjects``."""

    unet: UnetPatcher
    vae: Vae


class CheckpointInfo(Protocol):
    """``modules.sd_models.CheckpointInfo``."""

    name_for_extra: str


class LoadedModel(Protocol):
    """The loaded checkpoint (``ForgeDiffusionEngine``)."""

    forge_objects: ForgeObjects
    sd_checkpoint_info: CheckpointInfo


class Processing(Protocol):
    """``modules.processing.StableDiffusionProcessing``; some attributes exist in txt2img or img2img alone."""

    sd_model: LoadedModel
    sampler: Sampler
    extra_generation_params: dict[str, Any]
    override_settings: Mapping[str, Any]
    iteration: int
    n_iter: int
    do_not_save_grid: bool
    is_hr_pass: bool
    width: int
    height: int
    cfg_scale: float
    hr_cfg: float
    prompt: str
    all_prompts: list[str]
    seed: int
    steps: int
    sampler_name: str
    scheduler: str | None
    init: Callable[..., object]

    def comment(self, text: str) -> None: ...


class Img2Img(Processing, Protocol):
    """``modules.processing.StableDiffusionProcessingImg2Img``, in inpainting."""

    init_images: list[Image.Image]
    image_mask: Image.Image | None
    mask_blur_x: int
    mask_blur_y: int
    mask_round: bool
    inpainting_mask_invert: int
    resize_mode: int
    paste_to: tuple[int, int, int, int] | None
    batch_index: int


class MaskOverlay(Protocol):
    """``modules.scripts.PostProcessMaskOverlayArgs``; the overlay is a tuple with a mask in a mode of Forge Neo."""

    index: int
    overlay_image: object


class PostprocessedImage(Protocol):
    """``modules.scripts.PostprocessImageArgs``."""

    image: Image.Image


class Processed(Protocol):
    """``modules.processing.Processed``."""

    images: list[Image.Image]
    index_of_first_image: int
    extra_generation_params: dict[str, Any]
