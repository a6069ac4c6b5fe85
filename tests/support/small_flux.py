"""A Flux-like transformer small enough to reason about, in Forge's calling convention; blocks may write in place."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def attention_function(q: Tensor, k: Tensor, v: Tensor, heads: int, skip_reshape: bool = False) -> Tensor:
    """Attend: (B, heads, tokens, channels) → (B, tokens, heads·channels). Looked up at every call, as in Forge."""
    mixed = torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, -1) @ v
    return mixed.transpose(1, 2).flatten(2)


class DoubleBlock(nn.Module):
    """Joint attention over text and image, then a residual on each."""

    def __init__(self, width: int, in_place: bool) -> None:
        super().__init__()
        self.img_attn = nn.Linear(width, width)
        self.txt_attn = nn.Linear(width, width)
        self.in_place = in_place
        self.computed = 0

    def forward(self, img: Tensor, txt: Tensor, vec: Tensor, pe: Tensor) -> tuple[Tensor, Tensor]:
        self.computed += 1
        joint = torch.cat((txt, img), 1) + pe
        mixed = attention_function(joint[:, None], joint[:, None], joint[:, None], 1, skip_reshape=True)
        add_txt = torch.tanh(self.txt_attn(mixed[:, : txt.shape[1]] + vec[:, None]))
        add_img = torch.tanh(self.img_attn(mixed[:, txt.shape[1] :] + vec[:, None]))
        if self.in_place:
            img += add_img
            txt += add_txt
            return img, txt
        return img + add_img, txt + add_txt


class SingleBlock(nn.Module):
    """A residual on text and image together."""

    def __init__(self, width: int, in_place: bool) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, width)
        self.in_place = in_place
        self.computed = 0

    def forward(self, x: Tensor, vec: Tensor, pe: Tensor) -> Tensor:
        self.computed += 1
        mixed = attention_function((x + pe)[:, None], x[:, None], x[:, None], 1, skip_reshape=True)
        add = torch.tanh(self.linear1(mixed + vec[:, None]))
        if self.in_place:
            x += add
            return x
        return x + add


class SmallFluxTransformer(nn.Module):
    """Two double and three single blocks."""

    def __init__(self, channels: int = 8, width: int = 16, in_place: bool = False, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.img_in = nn.Linear(channels, width)
        self.txt_in = nn.Linear(channels, width)
        self.pe_in = nn.Linear(3, width)
        self.double_blocks = nn.ModuleList(DoubleBlock(width, in_place) for _ in range(2))
        self.single_blocks = nn.ModuleList(SingleBlock(width, in_place) for _ in range(3))
        self.final_layer = nn.Linear(width, channels)

    @property
    def computed_blocks(self) -> int:
        """How often a block computed."""
        return sum(block.computed for block in [*self.double_blocks, *self.single_blocks])

    def inner_forward(
        self, img: Tensor, img_ids: Tensor, txt: Tensor, txt_ids: Tensor, timesteps: Tensor, y: Tensor
    ) -> Tensor:
        img, txt = self.img_in(img), self.txt_in(txt)
        vec = y + timesteps[:, None]
        pe = self.pe_in(torch.cat((txt_ids, img_ids), 1).float() / 10)
        for block in self.double_blocks:
            img, txt = block(img=img, txt=txt, vec=vec, pe=pe)
        img = torch.cat((txt, img), 1)
        for block in self.single_blocks:
            img = block(img, vec=vec, pe=pe)
        return self.final_layer(img[:, txt.shape[1] :])


def inputs(batch: int = 1, tokens: int = 6, channels: int = 8, width: int = 16, seed: int = 1) -> dict[str, Tensor]:
    """Return arguments for ``inner_forward``; each image differs."""
    g = torch.Generator().manual_seed(seed)
    return {
        "img": torch.randn(batch, tokens, channels, generator=g),
        "img_ids": torch.zeros(batch, tokens, 3),
        "txt": torch.randn(batch, 4, channels, generator=g),
        "txt_ids": torch.zeros(batch, 4, 3),
        "timesteps": torch.full((batch,), 0.5),
        "y": torch.randn(batch, width, generator=g),
    }
