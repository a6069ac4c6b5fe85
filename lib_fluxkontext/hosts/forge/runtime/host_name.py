"""Which of the Forges this is."""

from __future__ import annotations

from importlib.util import find_spec

from lib_fluxkontext.checkpoints.support import Host


def host_name() -> Host:
    """Return the host's name. Neo has a module for ComfyUI's scaled formats; Forge and its other forks have none."""
    return "Forge" if find_spec("backend.quant_ops") is None else "Forge Neo"
