"""The small model's transformer: what it is shown, and its training by rectified flow."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lib_fluxkontext.references.placement import offset_ids
from lib_fluxkontext.references.tokens import pack
from tools.small_kontext.data import KINDS, PHRASINGS, target, to_array
from tools.small_kontext.optim import Muon
from tools.small_kontext.pictures import PictureSource
from tools.small_kontext.text import WIDTH, TextEncoders
from tools.small_kontext.vae import Average, progress, rate_at

TEXT_LENGTHS = {24: 0.45, 64: 0.25, 128: 0.1, 256: 0.17, 512: 0.03}
"""Padded lengths of the T5 text, and how often each is trained: diffusers' default is 512, Forge's 256."""

GUIDANCE = 3.5
"""The guidance value in half of the training; the rest is uniform from 1 to 6, so that it means nothing."""


@dataclass(frozen=True)
class Layout:
    """A canvas size and the sizes of the references, all (width, height).

    Attributes:
        canvas: size of the generated picture.
        references: size of each reference, none to two.
        pictures: how many different examples are made.
        weight: how often a training step uses this layout.
    """

    canvas: tuple[int, int]
    references: tuple[tuple[int, int], ...]
    pictures: int
    weight: float


S64, S96, S128 = (64, 64), (96, 96), (128, 128)
LAYOUTS = (
    Layout(S96, (S96, S96), 2400, 0.46),
    Layout(S128, (S128, S128), 600, 0.10),
    Layout((128, 96), (S96, S96), 350, 0.05),
    Layout((96, 128), (S128, S128), 250, 0.03),
    Layout((128, 96), ((128, 96), (128, 96)), 250, 0.03),
    Layout(S128, (S96, S96), 250, 0.03),
    Layout(S96, (S128, S128), 250, 0.03),
    Layout(S96, (S64, S64), 250, 0.03),
    Layout(S96, (S64, S128), 200, 0.02),
    Layout(S96, (S128, S64), 200, 0.02),
    Layout(S96, (S96, S64), 200, 0.02),
    Layout(S96, (S64, S96), 200, 0.02),
    Layout(S96, ((128, 96), (96, 128)), 200, 0.02),
    Layout(S96, ((96, 64), (64, 96)), 200, 0.02),
    Layout(S96, (S96,), 350, 0.06),
    Layout(S128, (S128,), 150, 0.02),
    Layout(S96, (S128,), 120, 0.01),
    Layout(S96, (), 1, 0.015),
    Layout(S128, (), 1, 0.01),
)
"""What is trained on."""


def build_transformer() -> FluxTransformer2DModel:
    """Return an untrained transformer of Flux's architecture, 2 double and 4 single blocks of width 128."""
    model = FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if (".norm" in name and ".linear" in name) or "norm_out.linear" in name or name.startswith("proj_out"):
                parameter.zero_()
    return model


def image_ids(height: int, width: int) -> Tensor:
    """Return the position ids (h*w, 3) of an image of ``height`` x ``width`` tokens, first axis 0."""
    ids = torch.zeros(height, width, 3)
    ids[..., 1] = torch.arange(height)[:, None]
    ids[..., 2] = torch.arange(width)[None]
    return ids.reshape(-1, 3)


def layout_ids(layout: Layout) -> Tensor:
    """Return the position ids of the image tokens and, after them, of the references' tokens."""
    ids = image_ids(layout.canvas[1] // 16, layout.canvas[0] // 16)
    if layout.references:
        grids = [(height // 16, width // 16) for width, height in layout.references]
        ids = torch.cat([ids, offset_ids(grids)[0]])
    return ids


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: list, device: str, batch: int = 32, autocast: bool = True) -> Tensor:
    """Return the pictures' normalised posterior means, (mean - shift) * scale; bfloat16 with ``autocast``."""
    parts = []
    for start in range(0, len(pictures), batch):
        pixels = np.stack([to_array(picture) for picture in pictures[start : start + batch]])
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            mean = vae.encode(torch.from_numpy(pixels).to(device)).latent_dist.mean
        parts.append((mean.float() - vae.config.shift_factor) * vae.config.scaling_factor)
    return torch.cat(parts)


@dataclass
class Examples:
    """Latents of one layout: the references', and the targets' for each of ``KINDS``."""

    layout: Layout
    references: list[Tensor]
    targets: list[Tensor]


def make_examples(layout: Layout, vae: AutoencoderKL, source: PictureSource, device: str, share: float) -> Examples:
    """Draw pictures for a layout and encode them together with all four exact targets.

    With one reference, it is the first or the second picture of nothing: the first; the missing one is grey.
    """
    count = max(1, round(layout.pictures * share))
    pictures = [[source.picture(size) for size in layout.references] for _ in range(count)]
    padded = [(*row, None, None)[:2] for row in pictures]
    references = [encode(vae, [row[i] for row in pictures], device) for i in range(len(layout.references))]
    targets = []
    for kind in KINDS:
        i = ("first", "second").index(kind) if kind in ("first", "second") else None
        if i is not None and i < len(references) and layout.references[i] == layout.canvas:
            targets.append(references[i])
        else:
            targets.append(encode(vae, [target(kind, *row, layout.canvas) for row in padded], device))
    return Examples(layout, references, targets)


def flip(latents: Tensor, dims: list[int]) -> Tensor:
    """Return latents mirrored along ``dims``."""
    return latents.flip(dims) if dims else latents


def draw_batch(
    examples: Examples, size: int, rng: np.random.Generator, shares: tuple[float, ...]
) -> tuple[Tensor, Tensor | None, list[int]]:
    """Return (packed targets, packed references or None, kinds) of a random batch, kinds drawn by ``shares``.

    Half of the batches are mirrored as latents: left-right mirroring turns ``left_right`` into ``swap``.
    """
    number = len(examples.targets[0])
    kinds = rng.choice(4, size, p=shares)
    rows = torch.from_numpy(rng.integers(0, number, size))
    dims = [dim for dim, chance in ((2, 0.2), (3, 0.4)) if rng.random() < chance]
    device = examples.targets[0].device
    stored = kinds if 3 not in dims else np.array([1, 0, 2, 3])[kinds]
    stack = torch.stack([examples.targets[kind][row] for kind, row in zip(stored, rows.tolist(), strict=True)])
    references = [pack(flip(part[rows.to(device)], dims)) for part in examples.references]
    return pack(flip(stack, dims)), torch.cat(references, 1) if references else None, kinds.tolist()


class TextTable:
    """Text encodings of every phrasing at every trained length, computed once."""

    def __init__(self, folder: Path, device: str) -> None:
        encoders = TextEncoders(folder, device)
        self.prompts: list[str] = []
        self.of_kind: list[list[int]] = []
        for kind in KINDS:
            rows = []
            for phrase in PHRASINGS[kind]:
                rows.append(len(self.prompts))
                self.prompts.append(phrase)
            self.of_kind.append(rows)
        self.states: dict[int, Tensor] = {}
        for length in TEXT_LENGTHS:
            self.states[length], self.pooled = encoders.encode(self.prompts, length)

    def pick(self, kinds: list[int], length: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return the states and pooled vectors of a random phrasing for each kind."""
        rows = torch.tensor([int(rng.choice(self.of_kind[kind])) for kind in kinds], device=self.pooled.device)
        return self.states[length][rows], self.pooled[rows]


def train_transformer(
    pools: list[Examples],
    texts: TextTable,
    steps: int,
    minutes: float | None,
    device: str,
    compiled: bool,
    seed: int,
    log: Callable[[str], None],
    checkpoint: Callable[[FluxTransformer2DModel], None],
    start: FluxTransformer2DModel | None = None,
    peak: float = 0.02,
    batch: int = 32,
    pair_share: float = 0.5,
    sharpen: float = 1.0,
    layout_weights: dict[int, float] | None = None,
) -> FluxTransformer2DModel:
    """Train by rectified flow: x = sigma*noise + (1-sigma)*x0, predict noise - x0.

    sigma is uniform, then shifted by a factor of 1.6, as the scheduler does at these sizes. One step uses
    one layout and one text length; the batch is smaller for longer sequences. ``pair_share`` is the share of
    instructions that use both pictures; ``layout_weights`` replaces weights of ``LAYOUTS`` by their index.
    """
    model = (start or build_transformer()).to(device)
    parameters = list(model.parameters())
    optimiser = Muon(model, r"^proj_out|embed|\.norm", peak, 0.08 * peak, sharpen)
    average = Average(model, 0.998)
    rng = np.random.default_rng(seed)
    weights = np.array([pool.layout.weight for pool in pools])
    for index, weight in (layout_weights or {}).items():
        weights[index] = weight
    weights /= weights.sum()
    lengths, chances = list(TEXT_LENGTHS), list(TEXT_LENGTHS.values())
    ids = [layout_ids(pool.layout).to(device) for pool in pools]
    run = torch.compile(model, dynamic=True) if compiled else model
    # On the CPU, short sequences: plain matrix products are nearly twice as fast as the fused attention.
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    attention = partial(sdpa_kernel, SDPBackend.MATH) if device == "cpu" else nullcontext
    started = last = time.time()
    step, total, counted = 0, 0.0, 0
    while (done := progress(step, steps, started, minutes)) < 1:
        index = int(rng.choice(len(pools), p=weights))
        length = int(rng.choice(lengths, p=chances))
        size = max(8, min(batch, round(batch * 132 / (len(ids[index]) + length))))
        both = pair_share / 2
        clean, references, kinds = draw_batch(pools[index], size, rng, (both, both, 0.5 - both, 0.5 - both))
        states, pooled = texts.pick(kinds, length, rng)
        uniform = (torch.rand(size, device=device) + torch.arange(size, device=device)) / size
        sigma = 1.6 * uniform / (1 + 0.6 * uniform)
        noise = torch.randn_like(clean)
        noisy = torch.lerp(clean, noise, sigma[:, None, None])
        guidance = torch.full((size,), GUIDANCE, device=device)
        if rng.random() < 0.5:
            guidance = torch.rand(size, device=device) * 5 + 1
        tokens = noisy if references is None else torch.cat([noisy, references], 1)
        with torch.autocast(device, torch.bfloat16), attention():
            velocity = run(
                hidden_states=tokens,
                encoder_hidden_states=states,
                pooled_projections=pooled,
                timestep=sigma,
                guidance=guidance,
                img_ids=ids[index],
                txt_ids=torch.zeros(length, 3, device=device),
                return_dict=False,
            )[0]
        loss = (velocity[:, : clean.shape[1]].float() - (noise - clean)).square().mean()
        with attention():
            loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step(rate_at(done, 1.0))
        average.update(model)
        step += 1
        if index == 0:
            total, counted = total + float(loss.detach()), counted + 1
        if step % 100 == 0 or step == 5:
            rate = (time.time() - last) / (100 if step > 5 else 5)
            last = time.time()
            mean = total / counted if counted else math.nan
            log(f"flow {step}/{steps} loss {mean:.4f} (first layout) {rate:.3f} s/step")
            total, counted = 0.0, 0
        if step % 500 == 0:
            checkpoint(model)
    average.copy_to(model)
    log(f"flow done after {step} steps, {(time.time() - started) / 60:.1f} min")
    return model
