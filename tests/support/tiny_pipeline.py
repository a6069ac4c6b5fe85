"""A ``FluxKontextPipeline`` around a tiny transformer with random weights: no VAE, no text encoders."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxKontextPipeline
from torch import Tensor

from benchmarks.frontier.steps import build

GRID = (4, 6)
"""Rows and columns of the picture in tokens; the reference has as many."""

STEPS = 12
TEXT_TOKENS = 8
TOKENS = TEXT_TOKENS + 2 * GRID[0] * GRID[1]

CONFIG: dict[str, Any] = {
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 4,
    "joint_attention_dim": 32,
    "pooled_projection_dim": 32,
    "axes_dims_rope": (4, 6, 6),
    "guidance_embeds": True,
}


def tiny_pipeline() -> Any:
    """Build the pipeline, in float32 on the CPU."""
    transformer = build(CONFIG, torch.device("cpu"), torch.float32)
    pipeline: Any = FluxKontextPipeline(FlowMatchEulerDiscreteScheduler(), None, None, None, None, None, transformer)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sampled(pipeline: Any, steps: int = STEPS) -> Tensor:
    """Sample a batch of two pictures with a reference each; the same noise every time. (2, tokens, 64)."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = GRID

    def noise(*shape: int) -> Tensor:
        return torch.randn(2, *shape, generator=generator)

    latents: Tensor = pipeline(
        prompt_embeds=noise(TEXT_TOKENS, 32),
        pooled_prompt_embeds=noise(32),
        latents=noise(rows * columns, 64),
        image=noise(16, 2 * rows, 2 * columns),  # 16 channels are taken for latents
        height=16 * rows,
        width=16 * columns,
        max_area=256 * rows * columns,
        num_inference_steps=steps,
        output_type="latent",
    ).images
    return latents


def call_arguments(tokens: int = TOKENS, sigma: float = 1.0, seed: int = 0) -> dict[str, Any]:
    """Arguments of one call of the transformer.

    Args:
        tokens: text, picture and references together.
        sigma: noise level.
        seed: of what differs from call to call; the text is always the same.
    """
    rows, columns = GRID
    image = tokens - TEXT_TOKENS
    ids = torch.stack([torch.arange(image) // (rows * columns), torch.arange(image) // columns, torch.arange(image)], 1)
    text = torch.Generator().manual_seed(1)
    return {
        "hidden_states": torch.randn(1, image, 64, generator=torch.Generator().manual_seed(seed)),
        "encoder_hidden_states": torch.randn(1, TEXT_TOKENS, 32, generator=text),
        "pooled_projections": torch.randn(1, 32, generator=text),
        "timestep": torch.tensor([sigma]),
        "guidance": torch.tensor([3.5]),
        "img_ids": ids.float(),
        "txt_ids": torch.zeros(TEXT_TOKENS, 3),
        "return_dict": False,
    }
