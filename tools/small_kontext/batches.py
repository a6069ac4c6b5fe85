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
from tools.small_kontext.data import to_array
from tools.small_kontext.instructions import PHRASINGS, Instruction, all_phrasings, of_kind
from tools.small_kontext.pictures import PictureSource
from tools.small_kontext.region_probe import cells_of
from tools.small_kontext.targets import Size, example
from tools.small_kontext.text import TextEncoders
from tools.small_kontext.vae import features_of, latents_of

TEXT_LENGTHS = {24: 0.6, 64: 0.2, 128: 0.08, 256: 0.1, 512: 0.02}
"""Padded lengths of the T5 text, and how often each is trained: diffusers' default is 512, Forge's 256."""

KIND_WEIGHTS = {
    "left_right": 0.05,
    "swap": 0.05,
    "first": 0.03,
    "second": 0.04,
    "inset": 0.14,
    "grey": 0.05,
    "blur": 0.05,
    "brighten": 0.05,
    "tint": 0.06,
    "mirror": 0.05,
    "add": 0.11,
    "remove": 0.09,
    "repaint": 0.09,
    "frame": 0.08,
    "caption": 0.06,
}
"""How often each kind is trained where there are two references."""

LATE_KIND_WEIGHTS = {
    "left_right": 0.09,
    "swap": 0.09,
    "first": 0.04,
    "second": 0.08,
    "inset": 0.12,
    "grey": 0.03,
    "blur": 0.03,
    "brighten": 0.03,
    "tint": 0.03,
    "mirror": 0.05,
    "add": 0.08,
    "remove": 0.13,
    "repaint": 0.07,
    "frame": 0.05,
    "caption": 0.08,
}
"""The same for the end of the training: more of what moves pictures, and of what was still hard."""

NEEDS_TWO = ("left_right", "swap", "second", "inset")
NEEDS_NONE = ("left_right", "swap", "first", "second", "add", "frame", "caption")
"""What is trained without references, on a grey canvas."""


@dataclass(frozen=True)
class Layout:
    """A canvas size and the sizes of the references, all (width, height).

    Attributes:
        canvas: size of the generated picture.
        references: size of each reference, none to two.
        weight: how often a training step uses this layout.
    """

    canvas: Size
    references: tuple[Size, ...]
    weight: float = 1.0


S128, S256, WIDE, HIGH = (128, 128), (256, 256), (192, 128), (128, 192)
POOL_SIZES = {S128: 3000, WIDE: 400, HIGH: 400, S256: 900}
"""How many pictures of each size are drawn and encoded beforehand."""

SMALL_LAYOUTS = (
    Layout(S128, (S128, S128), 0.66),
    Layout(S128, (S128,), 0.10),
    Layout(S128, (), 0.02),
    Layout(WIDE, (WIDE, WIDE), 0.03),
    Layout(HIGH, (HIGH, HIGH), 0.03),
    Layout(S128, (WIDE, HIGH), 0.03),
    Layout(WIDE, (S128, S128), 0.03),
    Layout(S128, (S256, S256), 0.05),
    Layout(S128, (S128, S256), 0.03),
    Layout(S128, (S256, S128), 0.03),
)
"""The first part of the training."""

LARGE_LAYOUTS = (
    Layout(S256, (S256, S256), 0.5),
    Layout(S256, (S256,), 0.06),
    Layout(S256, (), 0.02),
    Layout(S256, (S256, S128), 0.06),
    Layout(S256, (S128, S128), 0.06),
    *(Layout(layout.canvas, layout.references, 0.31 * layout.weight) for layout in SMALL_LAYOUTS),
)
"""The second part."""

MIXED_LAYOUTS = (
    Layout(S256, (S256, S256), 0.34),
    Layout(S256, (S256,), 0.03),
    Layout(S256, (), 0.01),
    Layout(S256, (S128, S128), 0.11),
    Layout(S128, (S256, S256), 0.10),
    Layout(S256, (S256, S128), 0.05),
    Layout(S256, (S128, S256), 0.05),
    Layout(S128, (S128, S256), 0.05),
    Layout(S128, (S256, S128), 0.05),
    Layout(S128, (WIDE, HIGH), 0.03),
    Layout(WIDE, (S128, S128), 0.03),
    Layout(S128, (S128, S128), 0.10),
    Layout(S128, (S128,), 0.02),
    Layout(WIDE, (WIDE, WIDE), 0.01),
    Layout(HIGH, (HIGH, HIGH), 0.01),
    Layout(S128, (), 0.01),
)
"""The end of the training: half of it with references of another size than the canvas."""


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
        """Return the pictures' normalised posterior means, (mean - shift) * scale; computed in bfloat16."""
        parts = []
        for start in range(0, len(pictures), batch):
            pixels = np.stack([to_array(picture) for picture in pictures[start : start + batch]])
            with torch.autocast(self.device, torch.bfloat16):
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


assert set(KIND_WEIGHTS) == set(LATE_KIND_WEIGHTS) == set(PHRASINGS)
