"""A tiny random ``FluxKontextPipeline`` that ``generate`` can run: with an autoencoder, and texts that are noise."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image

from benchmarks.frontier.tasks import Task
from lib_fluxkontext.images.decode import decode_reference
from tests.support.tiny_pipeline import CONFIG, TEXT_TOKENS, tiny_pipeline

SIDE = 64


class Texts:
    """Stands in for the text encoders: every prompt is the same noise."""

    def __call__(self, **arguments: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(2)
        text = torch.randn(1, TEXT_TOKENS, CONFIG["joint_attention_dim"], generator=generator)
        pooled = torch.randn(1, CONFIG["pooled_projection_dim"], generator=generator)
        return text, pooled, torch.zeros(TEXT_TOKENS, 3)


def tiny_generator() -> Any:
    """Build the pipeline, in float32 on the CPU."""
    pipeline = tiny_pipeline()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae: Any = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            latent_channels=16,
            norm_num_groups=4,
            shift_factor=0.1,
            scaling_factor=0.4,
        )
    vars(pipeline).update(
        vae=vae.eval().requires_grad_(False),
        tokenizer_2=SimpleNamespace(model_max_length=TEXT_TOKENS),
        encode_prompt=Texts(),
    )
    return pipeline


def noise_task(references: int = 1, seed: int = 0) -> Task:
    """A task on pictures of noise; its upper half is edited."""
    random = np.random.default_rng(seed)
    pictures = [Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)) for _ in range(references)]
    region = np.zeros((SIDE, SIDE), bool)
    region[: SIDE // 2] = True
    return Task("editing", "x", tuple(decode_reference(picture, "image1") for picture in pictures), region)
