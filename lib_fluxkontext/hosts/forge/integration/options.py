"""Settings → Flux Kontext: what stands there, and what it is set to. The core gets plain values from here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lib_fluxkontext import infotext
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.history.store import LIMIT
from lib_fluxkontext.hosts.forge.ui.element_ids import TITLE
from lib_fluxkontext.images.decode import WHITE, colour
from lib_fluxkontext.references.latent_cache import MAX_BYTES
from lib_fluxkontext.settings import PRESETS, SIZINGS, Count, KontextSettings, Preset, Sizing, describe

PREFIX = "flux_kontext_"
"""Before the fields' names in Forge's ``config.json``."""

MOST_RUNS = 100_000
MOST_MIB = 1024

_API = KontextSettings()


class Options(BaseModel):
    """What a user can set for all generations, with defaults and bounds. ``panel_…`` never reaches the API."""

    model_config = ConfigDict(frozen=True, strict=True)

    panel_sizing: Sizing = _API.sizing
    panel_half_size: bool = _API.half_size
    panel_speed: Preset = "Balanced"
    panel_hires_references: bool = _API.hires_references
    log: bool = True
    log_limit: Count = Field(LIMIT, ge=1, le=MOST_RUNS)
    log_prompt: bool = False
    store_mib: Count = Field(MAX_BYTES // 2**20, ge=0, le=MOST_MIB)
    background: Annotated[str, BeforeValidator(colour)] = WHITE

    def panel_defaults(self) -> dict[str, Any]:
        """What the panel begins with, by setting name."""
        return {
            "sizing": self.panel_sizing,
            "half_size": self.panel_half_size,
            "hires_references": self.panel_hires_references,
            **PRESETS[self.panel_speed],
        }


PANEL_FIELDS: tuple[str, ...] = tuple(Options().panel_defaults())
"""Settings whose start on the panel is set here."""


def read(data: Mapping[str, Any]) -> Options:
    """Options out of Forge's.

    Args:
        data: everything that is set in Forge. What is missing, of a wrong type or out of range (a hand edited
            ``config.json``, or sent the API something else) has its default: it must not cost a generation.
    """
    found = {}
    for name in Options.model_fields:
        if PREFIX + name in data:
            try:
                found[name] = getattr(Options(**{name: data[PREFIX + name]}), name)
            except ValidationError:
                continue
    return Options(**found)


def current() -> Options:
    """What is set now; a request's ``override_settings`` hold from ``process`` to ``postprocess``."""
    from modules import shared

    return read(shared.opts.data)


def background_of(p: Any) -> str:
    """``"#rrggbb"`` for this generation's references. Forge applies a request's overrides only after
    ``before_process``, so they are read from ``p``.

    Raises:
        KontextError: the request's own is no colour.
    """
    name = f"{PREFIX}background"
    if name not in p.override_settings:
        return current().background
    asked = p.override_settings[name]
    try:
        return colour(asked)
    except ValueError:
        raise KontextError(f'got {describe(asked)}; allowed: a colour such as "{WHITE}"', name) from None


def add_options() -> None:
    """Add the section to Forge's settings.

    What ``config.json`` has and cannot be used becomes its default here, so that the page shows what is in effect;
    gradio would refuse such a value, and with it everything else that is applied.
    """
    import gradio as gr
    from modules import shared

    data = shared.opts.data
    for name, entry in _entries(gr, shared.OptionInfo).items():
        entry.section = ("flux_kontext", TITLE)
        shared.opts.add_option(PREFIX + name, entry)
    data.update({PREFIX + name: value for name, value in read(data).model_dump().items()})


def _entries(gr: Any, option: Any) -> dict[str, Any]:
    from modules.ui_components import FormColorPicker

    start = Options()
    return {
        "panel_sizing": option(  # no dropdown: Forge's page shows no hint on those, and so not what needs a reload
            start.panel_sizing, "Panel's default: reference size", gr.Radio, {"choices": list(SIZINGS)}
        )
        .info("the API's defaults stay what they are")
        .needs_reload_ui(),
        "panel_half_size": option(start.panel_half_size, "Panel's default: half size").needs_reload_ui(),
        "panel_speed": option(
            start.panel_speed, "Panel's default: speed", gr.Radio, {"choices": list(PRESETS)}
        ).needs_reload_ui(),
        "panel_hires_references": option(
            start.panel_hires_references, "Panel's default: references in the hires pass too"
        ).needs_reload_ui(),
        "log": option(start.log, "Keep a run log").info("a row for every finished generation"),
        "log_limit": option(
            start.log_limit,
            "Runs in the log at most",
            gr.Number,
            {"precision": 0, "minimum": 1, "maximum": MOST_RUNS},
        ).info("the oldest go first; 10,000 take about 50 MB"),
        "log_prompt": option(start.log_prompt, "Store the prompt with a run").info(
            "from then on; it is in the log's CSV and Markdown too"
        ),
        "store_mib": option(
            start.store_mib,
            "Keep encoded references, in MiB",
            gr.Slider,
            {"minimum": 0, "maximum": MOST_MIB, "step": 1},
        ).info("another seed then encodes nothing; a reference of a megapixel takes 1 MiB; 0 keeps none"),
        "background": option(
            start.background,
            "Background of transparent references",
            FormColorPicker,
            {},
            infotext=infotext.BACKGROUND,
        ).info('"fit inside output" pads with it, too'),
    }
