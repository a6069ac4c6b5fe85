"""The panel's events, and how pasted parameters restore it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from gradio.components import Component

from lib_fluxkontext import infotext
from lib_fluxkontext.hosts.forge.ui import checkpoint_events, lora_hint_events, prompt_help, recommended
from lib_fluxkontext.hosts.forge.ui.advanced_events import connect_advanced
from lib_fluxkontext.hosts.forge.ui.checkpoint_events import connect_checkpoint
from lib_fluxkontext.hosts.forge.ui.lora_hint_events import connect_lora_hint
from lib_fluxkontext.hosts.forge.ui.panel import Panel
from lib_fluxkontext.hosts.forge.ui.preset_events import connect_presets
from lib_fluxkontext.hosts.forge.ui.prompt_help import connect_prompt_help
from lib_fluxkontext.hosts.forge.ui.recommended import connect_recommended
from lib_fluxkontext.hosts.forge.ui.reference_events import connect_missing, connect_sizes, connect_stitched
from lib_fluxkontext.hosts.forge.ui.report_events import connect_report
from lib_fluxkontext.hosts.forge.ui.slot_events import connect_slots
from lib_fluxkontext.images.decode import WHITE

Parser = Callable[[dict[str, Any]], Any]
"""From pasted parameters to a component's value; None leaves it as it is."""

Connect = Callable[[Panel, Mapping[str, Component]], None]
"""Connects a panel with Forge's own controls, given by their element ids."""

CONNECTIONS: tuple[tuple[tuple[str, ...], Connect], ...] = (
    (("width", "height"), connect_sizes),
    (("width", "height"), connect_stitched),
    (checkpoint_events.FORGE_CONTROLS, connect_checkpoint),
    (recommended.FORGE_CONTROLS, connect_recommended),
    (prompt_help.FORGE_CONTROLS, connect_prompt_help),
    (lora_hint_events.FORGE_CONTROLS, connect_lora_hint),
)
"""Element ids of Forge's own controls, behind ``txt2img_`` or ``img2img_`` → what connects the panel with them."""


IMG2IMG_ALONE = ("init_image_as_reference", "keep_outside_mask")
"""Settings whose controls are hidden in txt2img."""


def connect(panel: Panel) -> None:
    """Connect all events that need none of Forge's own controls; for the others see ``CONNECTIONS``."""
    connect_slots(panel)
    connect_report(panel)
    connect_presets(panel)
    connect_missing(panel)
    connect_advanced(panel)


def paste_fields(panel: Panel) -> list[tuple[Component, Parser]]:
    """Return (component, parser) pairs that restore the panel from infotext, on the page and through the API."""
    controls = panel.controls
    # What txt2img hides stays off there: nobody could turn it off again.
    names = [name for name in infotext.LABELS if panel.ids.tab == "img2img" or name not in IMG2IMG_ALONE]
    fields: list[tuple[Component, Parser]] = [(controls[name], infotext.parser(name)) for name in names]
    fields.append((panel.hidden.expected, expected_references))
    return fields


def expected_references(params: dict[str, Any]) -> str | None:
    """Return the references of pasted parameters as JSON; None where the image was made without Kontext."""
    if infotext.LABELS["enabled"] not in params:
        return None
    background = params.get(infotext.BACKGROUND, WHITE)
    return json.dumps({**infotext.expected_images(params), "background": background})
