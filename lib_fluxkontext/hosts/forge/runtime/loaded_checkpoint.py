"""The loaded checkpoint, in the words of messages."""

from __future__ import annotations

from lib_fluxkontext.hosts.forge.runtime.adapter import why_not_hooked
from lib_fluxkontext.hosts.forge.runtime.protocols import Processing


def quoted_name(p: Processing) -> str:
    """Return its name: ``'the checkpoint "flux1-kontext-dev"'``."""
    return f'the checkpoint "{p.sd_model.sd_checkpoint_info.name_for_extra}"'


def why_not_flux(p: Processing) -> str:
    """Say why there is no adapter for it."""
    transformer = p.sd_model.forge_objects.unet.model.diffusion_model
    return f"{quoted_name(p)} {why_not_hooked(transformer, type(p.sd_model).__name__)}"
