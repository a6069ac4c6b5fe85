"""The small Flux as Forge Neo calls it: references of its own, residuals between blocks, blocks that write in place."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tests.support.small_flux import SmallFluxTransformer

dynamic_args = SimpleNamespace(ref_latents=[], kontext=False, klein=False)
"""Stands for ``backend.args.dynamic_args``."""


class SmallNeoFluxTransformer(SmallFluxTransformer):
    """``forward`` appends the references of ``dynamic_args`` and cuts them off again, as Neo's does."""

    patch_size = 2
    inner_forward = property()  # Neo has none

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(in_place=True, **kwargs)

    def forward_orig(
        self,
        img: Tensor,
        img_ids: Tensor,
        txt: Tensor,
        txt_ids: Tensor,
        timesteps: Tensor,
        y: Tensor,
        control: dict[str, list[Tensor]] | None = None,
        transformer_options: dict[str, Any] | None = None,
    ) -> Tensor:
        img, txt = self.img_in(img), self.txt_in(txt)
        vec = y + timesteps[:, None]
        pe = self.pe_in(torch.cat((txt_ids, img_ids), 1).float() / 10)
        for index, block in enumerate(self.double_blocks):
            img, txt = block(img=img, txt=txt, vec=vec, pe=pe)
            if control is not None:
                add = control["input"][index]
                img[:, : add.shape[1]] += add
        img = torch.cat((txt, img), 1)
        for block in self.single_blocks:
            img = block(img, vec=vec, pe=pe)
        return self.final_layer(img[:, txt.shape[1] :])

    def forward(self, img: Tensor, img_ids: Tensor, **arguments: Any) -> Tensor:
        """Take what ``forward_orig`` takes, references not yet appended."""
        tokens = img.shape[1]
        for index, latent in enumerate(dynamic_args.ref_latents):
            rows = latent.shape[-2] // 2 * (latent.shape[-1] // 2)
            reference = latent.flatten()[: rows * img.shape[-1]].reshape(1, rows, img.shape[-1])
            ids = torch.full((1, rows, 3), float(index + 1))
            img = torch.cat((img, reference.expand(img.shape[0], -1, -1)), 1)
            img_ids = torch.cat((img_ids, ids.expand(img.shape[0], -1, -1)), 1)
        return self.forward_orig(img, img_ids, **arguments)[:, :tokens]
