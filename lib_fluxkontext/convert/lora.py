"""Merge LoRAs into weights: W + weight · (alpha / rank) · B A (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lib_fluxkontext.errors import KontextError

FIELD = "lora"

DOWN, UP = ".lora_A.weight", ".lora_B.weight"
"""How the names of a pair end."""

PREFIX = "transformer."
"""Of what is for the transformer; a LoRA may be for a text encoder, too."""


@dataclass(frozen=True)
class LoraFile:
    """A LoRA and how strongly it is merged."""

    path: Path
    weight: float


class Lora:
    """A LoRA's matrices by the names of the weights that they change, in diffusers' layout.

    Args:
        name: for messages.
        weight: how strongly it is merged.
        tensors: in the names of diffusers and peft, ``transformer.….lora_A.weight`` (rank, columns) and
            ``….lora_B.weight`` (rows, rank).
        alphas: by the names' modules; without one, alpha is the rank.

    Raises:
        KontextError: tensors of another kind, or a matrix without its other half.
    """

    def __init__(self, name: str, weight: float, tensors: Mapping[str, Tensor], alphas: Mapping[str, float]) -> None:
        self.name = name
        self.elsewhere = sum(not key.startswith(PREFIX) for key in tensors)
        self._pairs: dict[str, tuple[Tensor, Tensor, float]] = {}
        own = {key.removeprefix(PREFIX): tensor for key, tensor in tensors.items() if key.startswith(PREFIX)}
        strange = [key for key in own if not key.endswith((DOWN, UP))]
        if strange:
            raise KontextError(f"{name}: cannot merge {', '.join(sorted(strange)[:3])}", FIELD)
        for key, down in own.items():
            if not key.endswith(DOWN):
                continue
            module = key.removesuffix(DOWN)
            up = own.get(module + UP)
            if up is None or down.ndim != 2 or up.ndim != 2 or up.shape[1] != down.shape[0]:
                raise KontextError(f"{name}: the two matrices of {module} do not fit together", FIELD)
            scale = weight * alphas.get(module, down.shape[0]) / max(1, down.shape[0])
            self._pairs[f"{module}.weight"] = (down, up, scale)
        if lonely := [key for key in own if key.endswith(UP) and key.removesuffix(UP) + DOWN not in own]:
            raise KontextError(f"{name}: the two matrices of {lonely[0]} do not fit together", FIELD)

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Check that all matrices have a weight to be added to.

        Args:
            shapes: of the weights, by name in diffusers' layout.

        Raises:
            KontextError: one has none, or one of another shape.
        """
        if not self._pairs:
            raise KontextError(f"{self.name} has nothing for a FLUX.1 transformer", FIELD)
        if unknown := sorted(self._pairs.keys() - shapes.keys()):
            more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
            raise KontextError(f"{self.name} is for weights that are not there: {', '.join(unknown[:3])}{more}", FIELD)
        for name, (down, up, _) in self._pairs.items():
            if shapes[name] != (up.shape[0], down.shape[1]):
                raise KontextError(
                    f"{self.name} is for another model: its {name} is {up.shape[0]}×{down.shape[1]}, "
                    f"the checkpoint's {'×'.join(map(str, shapes[name]))}",
                    FIELD,
                )

    def add(self, values: Tensor, name: str, start: int) -> None:
        """See ``Addition``."""
        if (pair := self._pairs.get(name)) is not None:
            down, up, scale = pair
            rows = up[start : start + values.shape[0]].float()
            torch.addmm(values, rows, down.float(), alpha=scale, out=values)
