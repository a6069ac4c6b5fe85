"""Events of the facts on the checkpoint: shown when the panel is opened, and when its memory estimate changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from gradio.components import Component

from lib_fluxkontext.geometry import pixel_tokens
from lib_fluxkontext.hosts.forge.ui import references_in_use
from lib_fluxkontext.hosts.forge.ui.checkpoint_line import checkpoint_line
from lib_fluxkontext.hosts.forge.ui.markup import warnings_in
from lib_fluxkontext.hosts.forge.ui.panel import Panel
from lib_fluxkontext.hosts.forge.ui.reference_events import output_of
from lib_fluxkontext.sampling.vram import SamplingLoad
from lib_fluxkontext.settings import KontextSettings

FORGE_CONTROLS = ("width", "height", "cfg_scale", "batch_size")
"""Element ids of Forge's own controls, behind ``txt2img_`` or ``img2img_``, that memory depends on."""

CACHE_FIELDS = ("cache", "cache_threshold", "cache_forecast", "reference_refresh")
"""Settings of the caches that memory depends on."""

MEMORY_FIELDS = (*references_in_use.FIELDS, *CACHE_FIELDS)
"""All settings that memory while sampling depends on."""


def connect_checkpoint(panel: Panel, forge: Mapping[str, Component]) -> None:
    """Connect the facts on the checkpoint; for Forge's list of checkpoints see ``connect_checkpoint_list``."""
    inputs = _inputs(panel, forge)
    for trigger in (panel.enabled.change, panel.hidden.refresh.click, *(component.change for component in inputs)):
        trigger(
            partial(show_checkpoint, None),
            inputs=inputs,
            outputs=[panel.advanced.checkpoint, panel.warning],
            show_progress="hidden",
            trigger_mode="always_last",
        )


def connect_checkpoint_list(panel: Panel, forge: Mapping[str, Component], checkpoints: Component) -> None:
    """Connect the facts with Forge's list of checkpoints, which belongs to no tab.

    Args:
        panel: of a tab.
        forge: Forge's own controls of that tab, by ``FORGE_CONTROLS``.
        checkpoints: the list.
    """
    checkpoints.change(
        show_checkpoint,
        # What is chosen, too: Forge's own event may not have told its settings yet.
        inputs=[checkpoints, *_inputs(panel, forge)],
        outputs=[panel.advanced.checkpoint, panel.warning],
        show_progress="hidden",
        trigger_mode="always_last",
    )


def _inputs(panel: Panel, forge: Mapping[str, Component]) -> Sequence[Component]:
    controls = panel.controls
    return [*(forge[name] for name in FORGE_CONTROLS), *(controls[name] for name in MEMORY_FIELDS)]


def show_checkpoint(
    chosen: str | None,
    width: float | None,
    height: float | None,
    cfg_scale: float | None,
    batch_size: float | None,
    *values: Any,
) -> list[str]:
    """Return the facts on the checkpoint, and those of them that are warnings, as HTML.

    Args:
        chosen: the checkpoint's name; None for the one in Forge's settings.
        width: of the output, in pixels; None where a number field is empty.
        height: likewise.
        cfg_scale: above 1 it doubles the rows of a model call.
        batch_size: images per batch.
        values: of ``MEMORY_FIELDS``.
    """
    settings = dict(zip(MEMORY_FIELDS, values, strict=True))
    output = output_of(width, height)
    load = SamplingLoad(
        rows=int(batch_size or 1) * (1 if cfg_scale == 1 else 2),
        image_tokens=pixel_tokens(*output),
        reference_tokens=references_in_use.count_tokens(settings, output),
    )
    cache_settings: dict[str, Any] = {name: settings[name] or 0 for name in CACHE_FIELDS}  # 0 where a field is empty
    facts = checkpoint_line(load, KontextSettings.model_construct(**cache_settings), chosen)
    return [facts, warnings_in(facts)]
