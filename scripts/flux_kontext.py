"""Forge's entry point to the extension: runs at every start and *Reload UI*.

Forge finds the script class here, and names callbacks by the file that registers them, so that saved callback
priorities hold.
"""

from __future__ import annotations

from modules import script_callbacks

from lib_fluxkontext.hosts.forge.callbacks import FluxKontextScript, connect_tabs, fill_in_pasted
from lib_fluxkontext.hosts.forge.integration import language, options, xyz_axes

__all__ = ["FluxKontextScript"]

script_callbacks.on_after_component(connect_tabs)
xyz_axes.add_axes()  # Forge without a page builds its scripts before it calls back
script_callbacks.on_before_ui(xyz_axes.add_axes)
script_callbacks.on_before_ui(language.load_page_language)
script_callbacks.on_ui_settings(options.add_options)
script_callbacks.on_infotext_pasted(fill_in_pasted)
