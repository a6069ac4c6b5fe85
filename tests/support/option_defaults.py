"""Settings → Flux Kontext as they are before anybody changes them."""

from __future__ import annotations

from lib_fluxkontext.hosts.forge.integration.options import PREFIX, Options

DEFAULTS = {PREFIX + name: value for name, value in Options().model_dump().items()}
"""Forge's name of each option → its default."""
