"""The section *Flux Kontext* of Forge's settings: its entries and their current values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lib_fluxkontext import infotext
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.history.store import DEFAULT_LIMIT
from lib_fluxkontext.hosts.forge.runtime.protocols import Processing
from lib_fluxkontext.hosts.forge.ui.element_ids import TITLE
from lib_fluxkontext.images.decode import WHITE, colour
from lib_fluxkontext.references.latent_cache import MAX_BYTES
from lib_fluxkontext.settings import PRESETS, SIZINGS, Count, KontextSettings, Preset, Sizing, describe

if TYPE_CHECKING:
    from modules.options import OptionInfo

PREFIX = "flux_kontext_"
"""In Forge's ``config.json`` this stands before the names of the fields."""

MAX_LOGGED_RUNS = 100_000
MAX_STORE_MIB = 1024

ReportPlace = Literal["under the references", "under the gallery"]
REPORT_PLACES: tuple[ReportPlace, ...] = get_args(ReportPlace)

_API = KontextSettings()


class Options(BaseModel):
    """What a user can set for all generations.

    Attributes:
        panel_sizing: initial value on the panel; the API's defaults do not follow the ``panel_…`` fields.
        panel_half_size: the same.
        panel_speed: the preset that the panel starts with.
        panel_hires_references: initial value on the panel.
        report_place: where the report stands on the page.
        log: whether finished generations are logged.
        log_limit: maximum number of runs in the log.
        log_prompt: whether a run's prompt is logged.
        store_mib: size of the cache of encoded references, in MiB.
        background: ``"#rrggbb"`` that transparent references are flattened on.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    panel_sizing: Sizing = _API.sizing
    panel_half_size: bool = _API.half_size
    panel_speed: Preset = "Balanced"
    panel_hires_references: bool = _API.hires_references
    report_place: ReportPlace = "under the references"
    log: bool = True
    log_limit: Count = Field(DEFAULT_LIMIT, ge=1, le=MAX_LOGGED_RUNS)
    log_prompt: bool = False
    store_mib: Count = Field(MAX_BYTES // 2**20, ge=0, le=MAX_STORE_MIB)
    background: Annotated[str, BeforeValidator(colour)] = WHITE

    def panel_defaults(self) -> dict[str, object]:
        """Return the panel's initial values, by setting name."""
        return {
            "sizing": self.panel_sizing,
            "half_size": self.panel_half_size,
            "hires_references": self.panel_hires_references,
            **PRESETS[self.panel_speed],
        }


PANEL_FIELDS: tuple[str, ...] = tuple(Options().panel_defaults())
"""Settings whose initial value on the panel is an option."""


def read(data: Mapping[str, object]) -> Options:
    """Read the options from Forge's settings.

    Args:
        data: all of Forge's settings. A value that is missing, of a wrong type or out of range (``config.json`` can be
            edited, and the API takes anything) becomes the default: it must not fail a generation.
    """
    values: dict[str, Any] = {}
    for name in Options.model_fields:
        if PREFIX + name in data:
            try:
                values[name] = getattr(Options.model_validate({name: data[PREFIX + name]}), name)
            except ValidationError:
                continue
    return Options(**values)


def current() -> Options:
    """Return the current options; a request's ``override_settings`` hold from ``process`` to ``postprocess``."""
    from modules import shared

    return read(shared.opts.data)


def background_of(p: Processing) -> str:
    """Return the background of a generation's references, as ``"#rrggbb"``.

    Forge applies a request's overrides only after ``before_process``, so they are read from ``p``.

    Raises:
        KontextError: the request overrides it with something that is not a colour.
    """
    name = f"{PREFIX}background"
    if name not in p.override_settings:
        return current().background
    requested = p.override_settings[name]
    try:
        return colour(requested)
    except ValueError:
        raise KontextError(f'got {describe(requested)}; allowed: a colour such as "{WHITE}"', name) from None


def add_options() -> None:
    """Add the section to Forge's settings.

    Unusable values in ``config.json`` are replaced by the defaults, so that the page shows what is in effect. gradio
    would refuse such a value, and with it every other setting that is applied at the same time.
    """
    from modules import shared

    data = shared.opts.data
    for name, entry in _entries().items():
        entry.section = ("flux_kontext", TITLE)
        shared.opts.add_option(PREFIX + name, entry)
    data.update({PREFIX + name: value for name, value in read(data).model_dump().items()})


def _entries() -> dict[str, OptionInfo]:
    """Build Forge's entry of each option; the text in brackets behind a label comes from ``info``."""
    import gradio as gr
    from modules.shared import OptionInfo
    from modules.ui_components import FormColorPicker

    defaults = Options()
    return {
        # Not a dropdown: Forge shows no hints on those, and so not that the option needs a reload.
        "panel_sizing": OptionInfo(
            defaults.panel_sizing, "Panel's default: reference size", gr.Radio, {"choices": list(SIZINGS)}
        )
        .info("the API's defaults stay what they are")
        .needs_reload_ui(),
        "panel_half_size": OptionInfo(defaults.panel_half_size, "Panel's default: half size").needs_reload_ui(),
        "panel_speed": OptionInfo(
            defaults.panel_speed, "Panel's default: speed", gr.Radio, {"choices": list(PRESETS)}
        ).needs_reload_ui(),
        "panel_hires_references": OptionInfo(
            defaults.panel_hires_references, "Panel's default: references in the hires pass too"
        ).needs_reload_ui(),
        "report_place": OptionInfo(
            defaults.report_place, "Report", gr.Radio, {"choices": list(REPORT_PLACES)}
        ).needs_reload_ui(),
        "log": OptionInfo(defaults.log, "Keep a run log").info("a row for every finished generation"),
        "log_limit": OptionInfo(
            defaults.log_limit,
            "Runs in the log at most",
            gr.Number,
            {"precision": 0, "minimum": 1, "maximum": MAX_LOGGED_RUNS},
        ).info("the oldest go first; 10,000 take about 50 MB"),
        "log_prompt": OptionInfo(defaults.log_prompt, "Store the prompt with a run").info(
            "from then on; it is in the log's CSV and Markdown too"
        ),
        "store_mib": OptionInfo(
            defaults.store_mib,
            "Keep encoded references, in MiB",
            gr.Slider,
            {"minimum": 0, "maximum": MAX_STORE_MIB, "step": 1},
        ).info("another seed then encodes nothing; a reference of a megapixel takes 1 MiB; 0 keeps none"),
        "background": OptionInfo(
            defaults.background,
            "Background of transparent references",
            FormColorPicker,
            {},
            infotext=infotext.BACKGROUND,
        ).info('"fit inside output" pads with it, too'),
    }
