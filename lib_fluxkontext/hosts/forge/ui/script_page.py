"""One script's panel in the page that Forge is building, connected with Forge's own controls as they appear."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import gradio as gr

from lib_fluxkontext.hosts.forge.integration.options import Options
from lib_fluxkontext.hosts.forge.ui import events, gallery
from lib_fluxkontext.hosts.forge.ui.align_events import GENERATION_INFO, connect_align
from lib_fluxkontext.hosts.forge.ui.checkpoint_events import connect_checkpoint, connect_checkpoint_list
from lib_fluxkontext.hosts.forge.ui.events import Connect
from lib_fluxkontext.hosts.forge.ui.panel import Panel, build_panel
from lib_fluxkontext.hosts.forge.ui.slot_events import register_restore

FORGE_CONTROLS = {name for needed, _ in events.CONNECTIONS for name in needed}
"""Element ids of Forge's controls, behind the tab, that the panel is connected with."""


class ScriptPage:
    """The panel that was built last; Forge's API builds panels that have no page."""

    def __init__(self) -> None:
        self._forge_controls: dict[str, tuple[Any, Any]] = {}
        self._connected: set[Connect] = set()
        self._panel: Panel | None = None
        self._root: Any = None
        self._gallery: Any = None
        self._report_in_gallery = False
        self._generation_info = ""

    def build(self, is_img2img: bool, options: Options | None) -> Panel:
        """Build a panel and connect it.

        Args:
            is_img2img: which tab it is for.
            options: the user's, for a panel on the page; without, it has the API's defaults.
        """
        self._generation_info = GENERATION_INFO.format(tab="img2img" if is_img2img else "txt2img")
        self._report_in_gallery = options is not None and options.report_place == "under the gallery"
        panel = build_panel(is_img2img, options.panel_defaults() if options else {}, self._report_in_gallery)
        events.connect(panel)
        if options is not None:
            register_restore(panel)
        self._panel, self._root = panel, gr.context.Context.root_block
        self._connected.clear()
        self._connect_forge_controls()
        return panel

    def paste_fields(self) -> list[tuple[Any, Any]]:
        """(component, parser) pairs that restore the panel from infotext."""
        return events.paste_fields(self._panel) if self._panel is not None else []

    def after_component(self, component: Any, name: str) -> None:
        """Take note of a component that Forge has built.

        Args:
            component: gradio's.
            name: its element id behind the tab.
        """
        if name in FORGE_CONTROLS:
            self._forge_controls[name] = (component, gr.context.Context.root_block)
            self._connect_forge_controls()
        elif name == "gallery":
            self._gallery = component
            if self._report_in_gallery and self._panel is not None:
                self._panel.report.html.render()
        elif name == self._generation_info and self._panel is not None:
            connect_align(self._panel.ids.tab, self._panel.hidden.align, self._gallery, component)
        elif name == gallery.LAST_SEND_TO_BUTTON and self._panel is not None:
            gallery.add_buttons(self._panel, self._gallery)

    def connect_img2img(self) -> None:
        """Connect what leads from this tab to img2img's; the page is built but for its footer."""
        if self._panel is not None and self._gallery is not None:
            gallery.connect_img2img(self._panel, self._gallery)

    def connect_checkpoint_list(self) -> None:
        """Connect this tab's panel with Forge's list of checkpoints at the top of the page, where there is one."""
        checkpoints = getattr(import_module("modules_forge.main_entry"), "ui_checkpoint", None)
        if self._panel is not None and checkpoints is not None and connect_checkpoint in self._connected:
            connect_checkpoint_list(self._panel, self._available(), checkpoints)

    def _available(self) -> dict[str, Any]:
        """Forge's own controls that stand in the panel's page."""
        return {name: component for name, (component, root) in self._forge_controls.items() if root is self._root}

    def _connect_forge_controls(self) -> None:
        """Connect once panel and Forge's own controls stand in the same page."""
        if self._panel is None:
            return
        available = self._available()
        for needed, connect in events.CONNECTIONS:
            if connect not in self._connected and available.keys() >= set(needed):
                self._connected.add(connect)
                connect(self._panel, available)
