"""How checkpoints are loaded, as the command line says it. Imports nothing that takes long."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from lib_fluxkontext.job import SMALL_MODEL_NAME


@dataclass(frozen=True)
class LoadOptions:
    """How checkpoints are loaded; see ``loader.load_pipeline``.

    Attributes:
        checkpoint: of rows that name none; None for the small model.
    """

    checkpoint: Path | None = None
    base: Path | None = None
    device: str | None = None
    nf4: bool = False
    offload: bool = False

    @classmethod
    def from_namespace(cls, options: argparse.Namespace) -> LoadOptions:
        """Take what ``add_load_options`` has parsed."""
        return cls(options.checkpoint, options.base, options.device, options.nf4, options.offload)

    def path_for(self, checkpoint: str) -> Path | None:
        """Return the checkpoint of a row; None for the small model."""
        return Path(checkpoint) if checkpoint else self.checkpoint

    def model_name(self, checkpoint: str = "") -> str:
        """Return what generation parameters call the model of a row."""
        path = self.path_for(checkpoint)
        return path.stem if path is not None else SMALL_MODEL_NAME


def add_load_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--checkpoint``, ``--base``, ``--device``, ``--nf4`` and ``--offload``."""
    parser.add_argument("--checkpoint", type=Path, help="folder, .safetensors or .gguf; default: the small model")
    add_device_options(parser)


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Add those of them that say how, and not what."""
    add = parser.add_argument
    add("--base", type=Path, help="folder with the other components, beside a single file")
    add("--device", help="cuda, cuda:1 for the second card, or cpu; default: cuda where there is one")
    add("--nf4", action="store_true", help="quantise the transformer to NF4 (bitsandbytes, CUDA)")
    add("--offload", action="store_true", help="keep on the GPU only what is at work")


def quiet_libraries(small_model: bool) -> None:
    """Turn off what the libraries would say on the console while they are imported and load; before that.

    Args:
        small_model: whether all pictures are the small model's. With any other, diffusers' warnings may tell why a
            picture is wrong.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it recommends packages that are not needed here
    if small_model:
        os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
