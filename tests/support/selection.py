"""Another checkpoint in a running WebUI for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support import checkpoint_files as files
from tests.support.forge_server import ForgeServer

MERGED, ONLINE = "Automatic", "Automatic (fp16 LoRA)"
"""Two of Forge's "Diffusion in Low Bits": a LoRA goes into the quantised weights, or is added at each use of them."""


@contextmanager
def selected(
    forge: ForgeServer, checkpoint: str, low_bits: str = MERGED, modules: list[str] | None = None
) -> Iterator[None]:
    """Select a checkpoint while the context lasts; Forge takes ``low_bits`` up with the change of checkpoint."""
    forge.post("/sdapi/v1/options", {"forge_unet_storage_dtype": low_bits})
    forge.select(checkpoint, modules)
    try:
        yield
    finally:
        forge.post("/sdapi/v1/options", {"forge_unet_storage_dtype": MERGED})
        forge.select(files.FLUX)
