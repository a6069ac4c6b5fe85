"""One row of a manifest, validated: everything that its picture depends on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lib_fluxkontext.settings import KontextSettings


@dataclass(frozen=True)
class Lora:
    """A LoRA and its weight.

    Attributes:
        name: a path for the diffusers host, a name for a Forge server.
        weight: usually 0 to 1.
    """

    name: str
    weight: float = 1.0


@dataclass(frozen=True)
class Row:
    """A picture to make. Hashable, picklable, and small: images are paths.

    Attributes:
        number: place in the expanded manifest, from 1.
        line: line of the manifest that it came from, from 1.
        key: 32 hex digits; the same for the same content (``identity.row_key``). Names the files of its result.
        prompt: the instruction.
        images: absolute paths of the references, in order.
        digests: SHA-256 of each image file's bytes, hex.
        settings: the extension's; its own image fields are empty.
        width: of the picture in pixels, a multiple of 16.
        height: likewise.
        steps: sampler steps.
        seed: of the start noise.
        guidance: distilled guidance scale.
        checkpoint: a path for the diffusers host, a name for a Forge server; empty for the worker's own.
        loras: in order.
    """

    number: int
    line: int
    key: str
    prompt: str
    images: tuple[Path, ...]
    digests: tuple[str, ...]
    settings: KontextSettings
    width: int
    height: int
    steps: int = 20
    seed: int = 0
    guidance: float = 3.5
    checkpoint: str = ""
    loras: tuple[Lora, ...] = ()


@dataclass(frozen=True)
class RowError:
    """What is wrong with a row of a manifest.

    Attributes:
        line: of the manifest, from 1.
        field: column at fault, or None where no single one is.
        reason: one line: what came, and what is allowed.
    """

    line: int
    field: str | None
    reason: str

    def __str__(self) -> str:
        place = f"line {self.line}"
        return f"{place}, {self.field}: {self.reason}" if self.field else f"{place}: {self.reason}"
