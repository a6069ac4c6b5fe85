"""What the small model's transformer is shown: batches of references, an instruction and its exact answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from lib_fluxkontext.references.placement import offset_ids
from lib_fluxkontext.references.tokens import pack
from tools.small_kontext.courses import Layout
from tools.small_kontext.data import to_array
from tools.small_kontext.instructions import Instruction, all_phrasings, of_kind
from tools.small_kontext.pictures import PictureSource
from tools.small_kontext.region_probe import cells_of
from tools.small_kontext.speed import fast_autocast
from tools.small_kontext.targets import Size, example
from tools.small_kontext.text import TextEncoders
from tools.small_kontext.vae import features_of, latents_of

TEXT_LENGTHS = {24: 0.6, 64: 0.2, 128: 0.08, 256: 0.1, 512: 0.02}
"""Padded lengths of the T5 text, and how often each is trained: diffusers' default is 512, Forge's 256."""

NEEDS_TWO = ("left_right", "swap", "second", "inset")
NEEDS_NONE = ("left_right", "swap", "first", "second", "add", "frame", "caption")
"""What is trained without references, on a grey canvas."""


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


class Encoder:
    """The autoencoder's encoder, fast: with one matrix in place of its first three levels."""

    def __init__(self, vae: AutoencoderKL, device: str) -> None:
        self.vae, self.device = vae.to(device).eval(), device
        self.features = features_of(vae).to(device)

    @torch.no_grad()
    def __call__(self, pictures: list[Image.Image], batch: int = 64) -> Tensor:
        """Return the pictures' normalised posterior means, (mean - shift) * scale."""
        parts = []
        for start in range(0, len(pictures), batch):
            pixels = np.stack([to_array(picture) for picture in pictures[start : start + batch]])
            with fast_autocast(self.device):
                mean = latents_of(self.vae, self.features, torch.from_numpy(pixels).to(self.device))
            parts.append((mean.float() - self.vae.config.shift_factor) * self.vae.config.scaling_factor)
        return torch.cat(parts)


class Pool:
    """Pictures of one size and their latents."""

    def __init__(self, size: Size, count: int, source: PictureSource, encoder: Encoder) -> None:
        self.pictures = [source.picture(size) for _ in range(count)]
        self.latents = encoder(self.pictures)


@dataclass(frozen=True)
class Batch:
    """A batch of one layout.

    Attributes:
        clean: the answers' packed latents, (N, tokens, 64).
        references: the references' packed latents, one after the other, or None.
        prompts: a phrasing for each.
        instructions: what each asks for.
        regions: where each answer is edited, ``region_probe.cells_of``, (N, tokens, cells).
    """

    clean: Tensor
    references: Tensor | None
    prompts: list[str]
    instructions: list[Instruction]
    regions: Tensor


class Batches:
    """Draws batches: random pictures of the pools, a random instruction for each, its answer encoded at once."""

    def __init__(
        self, pools: dict[Size, Pool], encoder: Encoder, rng: np.random.Generator, kinds: Mapping[str, float]
    ) -> None:
        self.pools, self.encoder, self.rng, self.kinds = pools, encoder, rng, kinds

    def instruction(self, references: int) -> Instruction:
        """Return a random instruction that makes sense with so many references, mostly."""
        weights = dict(self.kinds)
        if references < 2:
            weights |= dict.fromkeys(NEEDS_TWO, 0.01)
        if references == 0:
            weights = dict.fromkeys(NEEDS_NONE, 1.0)
        chances = np.array(list(weights.values()))
        choices = of_kind(list(weights)[self.rng.choice(len(chances), p=chances / chances.sum())])
        return choices[self.rng.integers(len(choices))]

    def draw(self, layout: Layout, count: int) -> Batch:
        """Return a batch of ``count`` examples of a layout."""
        rng = self.rng
        rows = [[int(rng.integers(len(self.pools[size].pictures))) for size in layout.references] for _ in range(count)]
        latents = [
            self.pools[size].latents[[row[place] for row in rows]] for place, size in enumerate(layout.references)
        ]
        targets, prompts, instructions, regions, changed = [], [], [], [], {}
        for number, row in enumerate(rows):
            given = [self.pools[size].pictures[i] for size, i in zip(layout.references, row, strict=True)]
            instruction = self.instruction(len(given))
            made = example(instruction, *(*given, None, None)[:2], layout.canvas)
            targets.append(made.target)
            instructions.append(instruction)
            regions.append(cells_of(made.region))
            phrasings = instruction.phrasings()
            prompts.append(phrasings[rng.integers(len(phrasings))])
            if given and made.references[0] is not given[0]:
                changed[number] = made.references[0]
        if changed:
            latents[0][list(changed)] = self.encoder(list(changed.values()))
        packed = [pack(part) for part in latents]
        references = torch.cat(packed, 1) if packed else None
        return Batch(pack(self.encoder(targets)), references, prompts, instructions, torch.stack(regions))


class TextTable:
    """Text encodings of every phrasing at every trained length, computed once."""

    def __init__(self, folder: Path, device: str) -> None:
        encoders = TextEncoders(folder, device)
        prompts = all_phrasings()
        self.rows = {prompt: row for row, prompt in enumerate(prompts)}
        self.states: dict[int, Tensor] = {}
        for length in TEXT_LENGTHS:
            self.states[length], self.pooled = encoders.encode(prompts, length)

    def pick(self, prompts: list[str], length: int) -> tuple[Tensor, Tensor]:
        """Return the states (N, length, width) and pooled vectors (N, width) of the prompts."""
        rows = torch.tensor([self.rows[prompt] for prompt in prompts], device=self.pooled.device)
        return self.states[length][rows], self.pooled[rows]
