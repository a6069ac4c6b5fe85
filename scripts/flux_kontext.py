"""Forge's door to the extension: Forge finds the script class here and runs this file at every start."""

from __future__ import annotations

from lib_fluxkontext.hosts.forge import callbacks
from lib_fluxkontext.hosts.forge.callbacks import FluxKontextScript

__all__ = ["FluxKontextScript"]

callbacks.register()
