"""Forge's door to the extension: every callback hands on to ``lib_fluxkontext.hosts.forge``."""

from __future__ import annotations

from typing import Any

import gradio as gr
from modules import script_callbacks, scripts

from lib_fluxkontext import infotext
from lib_fluxkontext.hosts.forge.integration import language, options, xyz_axes
from lib_fluxkontext.hosts.forge.lifecycle import generation
from lib_fluxkontext.hosts.forge.ui import events as panel_events
from lib_fluxkontext.hosts.forge.ui import gallery, panel
from lib_fluxkontext.hosts.forge.ui.element_ids import TITLE

FORGE_CONTROLS = {name for needs, _ in panel_events.CONNECTIONS for name in needs}


class FluxKontextScript(scripts.Script):
    """The always-on script; it keeps no state of a generation, that hangs on ``p``."""

    sorting_priority = 0

    def __init__(self) -> None:
        super().__init__()
        self._forge_controls: dict[str, tuple[Any, Any]] = {}
        self._connected: set[tuple[str, ...]] = set()
        self._panel: tuple[panel.Panel, Any] | None = None
        self._gallery: Any = None

    def title(self) -> str:
        return TITLE

    def show(self, is_img2img: bool) -> Any:
        return scripts.AlwaysVisible

    def ui(self, is_img2img: bool) -> list[Any]:
        # The page asks once. Forge's API asks again, for what a request leaves out: that has the API's defaults.
        for_page = self.controls is None
        built = panel.build_panel(is_img2img, options.current().panel_defaults() if for_page else {})
        if not for_page:
            self._tell_api_defaults(built)
        panel_events.connect(built)
        self.infotext_fields = panel_events.paste_fields(built)
        self.paste_field_names = list(infotext.LABELS.values())
        self._panel = (built, gr.context.Context.root_block)
        self._connected.clear()
        self._connect()
        return built.arguments()

    def _tell_api_defaults(self, built: panel.Panel) -> None:
        """Correct what ``/sdapi/v1/script-info`` says: Forge noted it down from the page's panel."""
        if self.api_info is not None:
            for told, control in zip(self.api_info.args, built.arguments(), strict=True):
                told.value = control.value

    def after_component(self, component: Any, **kwargs: Any) -> None:
        tab = "img2img" if self.is_img2img else "txt2img"
        name = str(kwargs.get("elem_id") or "").removeprefix(f"{tab}_")
        if name in FORGE_CONTROLS:
            self._forge_controls[name] = (component, gr.context.Context.root_block)
            self._connect()
        elif name == "gallery":
            self._gallery = component
        elif name == gallery.LAST_SEND_TO_BUTTON and self._panel is not None:
            gallery.add_buttons(self._panel[0], self._gallery)

    def _connect(self) -> None:
        """Once panel and Forge's own controls stand in the same page; Forge's API builds panels that have no page."""
        if self._panel is None:
            return
        built, root = self._panel
        forge = {name: component for name, (component, place) in self._forge_controls.items() if place is root}
        for needs, connect in panel_events.CONNECTIONS:
            if needs not in self._connected and forge.keys() >= set(needs):
                self._connected.add(needs)
                connect(built, forge)

    def connect_img2img(self) -> None:
        """Connect what leads from this tab to img2img's; the page is built but for its footer."""
        if self._panel is not None and self._gallery is not None:
            gallery.connect_img2img(self._panel[0], self._gallery)

    def before_process(self, p: Any, *args: Any) -> None:
        generation.prepare(p, args)

    def process(self, p: Any, *args: Any) -> None:
        generation.check(p)

    def process_before_every_sampling(self, p: Any, *args: Any, **kwargs: Any) -> None:
        generation.before_sampling(p, kwargs["x"])

    def postprocess_batch(self, p: Any, *args: Any, **kwargs: Any) -> None:
        generation.after_batch(p)

    def postprocess(self, p: Any, processed: Any, *args: Any) -> None:
        generation.finish(p, processed)


def connect_tabs(component: Any, **kwargs: Any) -> None:
    """Only at the page's footer are both tabs there and can events still be added."""
    if kwargs.get("elem_id") == "footer":
        for runner in (scripts.scripts_txt2img, scripts.scripts_img2img):
            for script in runner.alwayson_scripts:
                if isinstance(script, FluxKontextScript):
                    script.connect_img2img()


script_callbacks.on_after_component(connect_tabs)
xyz_axes.add_axes()  # Forge without a page builds its scripts before it calls back
script_callbacks.on_before_ui(xyz_axes.add_axes)
script_callbacks.on_before_ui(language.load_page_language)
script_callbacks.on_ui_settings(options.add_options)
script_callbacks.on_infotext_pasted(lambda text, params: infotext.fill_in_background(params))
