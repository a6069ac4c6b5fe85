"""What happens when something on the panel is dropped, pressed or moved."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr
from PIL import Image

from lib_fluxkontext import infotext
from lib_fluxkontext.geometry import pixel_tokens
from lib_fluxkontext.hosts.forge.lifecycle import live_reports as latest
from lib_fluxkontext.hosts.forge.ui.checkpoint_line import checkpoint_line
from lib_fluxkontext.hosts.forge.ui.markup import line
from lib_fluxkontext.hosts.forge.ui.panel import Panel, preset_variant
from lib_fluxkontext.hosts.forge.ui.recommended import FORGE_FIELDS, recommended
from lib_fluxkontext.hosts.forge.ui.slot_facts import missing_images, output_size, slot_facts, tokens_of
from lib_fluxkontext.images.decode import WHITE
from lib_fluxkontext.presentation import text
from lib_fluxkontext.presentation.html import live_html, report_html
from lib_fluxkontext.sampling.vram import SamplingLoad
from lib_fluxkontext.settings import IMAGE_FIELDS, PRESET_FIELDS, PRESETS, KontextSettings, preset_of

UNKNOWN_OUTPUT = (1024, 1024)
"""Assumed where a size slider is empty."""

CHECKPOINT_NEEDS = ("width", "height", "cfg_scale", "batch_size")
"""Element ids of Forge's controls, behind ``txt2img_`` or ``img2img_``, that say how much is sampled at once."""

FIELDS_OF_MEMORY = (
    *IMAGE_FIELDS,
    "mute_image1",
    "mute_image2",
    "init_image_as_reference",
    "sizing",
    "half_size",
    "cache",
    "cache_threshold",
    "cache_forecast",
    "reference_refresh",
)
"""Settings that memory while sampling depends on."""


def connect(panel: Panel) -> None:
    """Connect everything but what needs Forge's own controls: see ``CONNECTIONS``."""
    controls = panel.controls
    first, second = controls["image1"], controls["image2"]
    panel.swap.click(
        lambda one, two, mute_one, mute_two: (two, one, mute_two, mute_one),
        inputs=[first, second, controls["mute_image1"], controls["mute_image2"]],
        outputs=[first, second, controls["mute_image1"], controls["mute_image2"]],
        show_progress="hidden",
    )
    panel.clear.click(lambda: (None, None), outputs=[first, second], show_progress="hidden")
    report = [panel.report, panel.spoken]
    panel.refresh.click(_report_function(panel), outputs=report, show_progress="hidden")
    panel.live.click(_live_function(panel), outputs=report, show_progress="hidden")
    _connect_presets(panel)
    for trigger in (first.change, second.change, panel.expected.change):
        trigger(
            lambda expected, one, two: missing_images(expected, {"image1": one, "image2": two}),
            inputs=[panel.expected, first, second],
            outputs=[panel.missing],
            show_progress="hidden",
        )


def _report_function(panel: Panel) -> Any:
    def report() -> list[str]:
        last = latest.get(panel.ids.tab)
        return [report_html(last, panel.ids.accordion), "" if last is None else line(text.summary(last))]

    return report


def _live_function(panel: Panel) -> Any:
    def live() -> list[Any]:
        now = latest.running(panel.ids.tab)
        if now is None:
            return [gr.update(), gr.update()]
        return [live_html(*now, panel.ids.accordion), line(text.progress(*now))]

    return live


def _connect_presets(panel: Panel) -> None:
    """A preset's button sets its controls; whatever sets them, the button that fits them lights up."""
    controls = [panel.controls[name] for name in PRESET_FIELDS]
    for name, button in panel.presets.items():
        button.click(_values_of(name), outputs=controls, show_progress="hidden")
    for control in controls:
        control.change(
            _lit,
            inputs=controls,
            outputs=list(panel.presets.values()),
            show_progress="hidden",
            trigger_mode="always_last",
        )


def _values_of(preset: str) -> Any:
    return lambda: [PRESETS[preset][field] for field in PRESET_FIELDS]


def _lit(*values: Any) -> list[Any]:
    current = preset_of(dict(zip(PRESET_FIELDS, values, strict=True)))
    return [gr.update(variant=preset_variant(name, current)) for name in PRESETS]


def _connect_sizes(panel: Panel, forge: Mapping[str, Any]) -> None:
    """The facts under the slots and the buttons that set the output size."""
    controls, width, height = panel.controls, forge["width"], forge["height"]
    for name in IMAGE_FIELDS:
        mute = controls[f"mute_{name}"]
        inputs = [controls[name], controls["sizing"], controls["half_size"], width, height, mute]
        if name == "image1":
            inputs.append(controls["init_image_as_reference"])
        for component in inputs:
            component.change(
                _facts_function(name),
                inputs=inputs,
                outputs=[panel.facts[name]],
                show_progress="hidden",
                trigger_mode="always_last",
            )
        panel.use_size[name].click(
            _size_function(name),
            inputs=[controls[name], controls["sizing"]],
            outputs=[width, height],
            show_progress="hidden",
        )


def _connect_recommended(panel: Panel, forge: Mapping[str, Any]) -> None:
    """The button that sets Forge's own controls, and the one that takes that back."""
    controls = [forge[name] for name in FORGE_FIELDS]
    before = gr.State(None)
    panel.recommend.click(
        lambda one, two, *values: [
            *recommended(one, two, *values[-2:]),
            list(values),
            gr.update(interactive=True),
        ],
        inputs=[panel.controls["image1"], panel.controls["image2"], *controls],
        outputs=[*controls, before, panel.undo],
        show_progress="hidden",
    )
    panel.undo.click(
        lambda values: [*(values or [gr.update()] * len(controls)), None, gr.update(interactive=False)],
        inputs=[before],
        outputs=[*controls, before, panel.undo],
        show_progress="hidden",
    )


def _connect_checkpoint(panel: Panel, forge: Mapping[str, Any]) -> None:
    """What the chosen checkpoint is and whether it fits, whenever the panel is opened or what it needs changes.

    Forge's own checkpoint list is built after the panel, so its changes show at the next of these events.
    """
    controls = panel.controls
    inputs = [*(forge[name] for name in CHECKPOINT_NEEDS), *(controls[name] for name in FIELDS_OF_MEMORY)]
    for trigger in [controls["enabled"].change, panel.refresh.click, *(one.change for one in inputs)]:
        trigger(
            _checkpoint_line,
            inputs=inputs,
            outputs=[panel.checkpoint],
            show_progress="hidden",
            trigger_mode="always_last",
        )


def _checkpoint_line(width: Any, height: Any, cfg_scale: Any, batch_size: Any, *values: Any) -> str:
    output = (int(width), int(height)) if width and height else UNKNOWN_OUTPUT
    given = dict(zip(FIELDS_OF_MEMORY, values, strict=True))
    images = {name: None if given[f"mute_{name}"] else given[name] for name in IMAGE_FIELDS}
    if given["init_image_as_reference"]:  # it stands elsewhere on the page, and most have the output's shape
        images["image1"] = Image.new("1", output)
    tokens = sum(
        tokens_of(image, name, given["sizing"], given["half_size"], output)
        for name, image in images.items()
        if image is not None
    )
    load = SamplingLoad(
        rows=int(batch_size or 1) * (1 if cfg_scale == 1 else 2),
        image_tokens=pixel_tokens(*output),
        reference_tokens=tokens,
    )
    # A number field that was emptied counts as 0.
    used = {name: given[name] or 0 for name in ("cache", "cache_threshold", "cache_forecast", "reference_refresh")}
    return checkpoint_line(load, KontextSettings.model_construct(**used))


CONNECTIONS: tuple[tuple[tuple[str, ...], Callable[[Panel, Mapping[str, Any]], None]], ...] = (
    (("width", "height"), _connect_sizes),
    (CHECKPOINT_NEEDS, _connect_checkpoint),
    (FORGE_FIELDS, _connect_recommended),
)
"""Element ids of Forge's own controls of the same tab → what connects the panel with them."""


def paste_fields(panel: Panel) -> list[tuple[Any, Any]]:
    """(component, parser) pairs that restore the panel from infotext, in the page and through the API."""
    fields: list[tuple[Any, Any]] = [(panel.controls[name], infotext.parser(name)) for name in infotext.LABELS]
    fields.append((panel.expected, _expected))
    return fields


def _expected(params: dict[str, Any]) -> str | None:
    # A picture made without Kontext says nothing about references; leave what stands there.
    if infotext.LABELS["enabled"] not in params:
        return None
    background = params.get(infotext.BACKGROUND, WHITE)
    return json.dumps({**infotext.expected_images(params), "background": background})


def _facts_function(name: str) -> Any:
    def facts(image: Any, sizing: Any, half: bool, width: Any, height: Any, muted: bool, replaced: bool = False) -> str:
        output = (int(width), int(height)) if width and height else UNKNOWN_OUTPUT
        return slot_facts(image, name, sizing, half, output, muted, replaced)

    return facts


def _size_function(name: str) -> Any:
    def size(image: Any, sizing: Any) -> tuple[Any, Any]:
        found = output_size(image, name, sizing) if image is not None else None
        return found if found is not None else (gr.update(), gr.update())

    return size
