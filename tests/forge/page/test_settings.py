"""Settings → Flux Kontext on the page: the panel's defaults, and what pasted parameters restore."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lib_fluxkontext.hosts.forge.integration.options import PREFIX, Options
from lib_fluxkontext.images.decode import decode_reference
from lib_fluxkontext.infotext import image_to_infotext
from lib_fluxkontext.settings import PRESETS
from tests.support.forge_page import ForgePage
from tests.support.forge_server import ForgeServer
from tests.support.option_defaults import DEFAULTS
from tests.support.panel import PANEL, paste, unfold
from tests.support.payloads import TITLE, kontext
from tests.support.photos import cut_out
from tests.support.reload import rebuild, reload_ui

STALE = {
    "customscript/flux_kontext.py/txt2img/Threshold/value": 0.5,
    "customscript/flux_kontext.py/txt2img/Reference size/value": "to output",
}
"""Entries that Forge would write if the panel did not keep them out of ``ui-config.json``."""


@pytest.fixture
def page(folded_page: ForgePage, forge_page: ForgeServer) -> Iterator[ForgePage]:
    """A fresh page; afterwards all options have their defaults."""
    yield folded_page
    forge_page.post("/sdapi/v1/options", DEFAULTS)


@pytest.fixture
def ui_config(forge_page: ForgeServer) -> Iterator[Path]:
    """``ui-config.json``, to be changed; afterwards, when pages asked for behind it are closed, all is restored."""
    path = forge_page.data / "ui-config.json"
    before = path.read_text(encoding="utf-8")
    yield path
    path.write_text(before, encoding="utf-8")
    forge_page.post("/sdapi/v1/options", DEFAULTS)
    rebuild(forge_page)


def setting(page: ForgePage, name: str) -> Any:
    """Return the field of an option."""
    return page.element(f"setting_{PREFIX}{name}")


def test_panel_defaults_from_the_settings_show_after_a_reload_and_leave_the_api_alone(
    ui_config: Path, page: ForgePage, forge_page: ForgeServer
) -> None:
    config = json.loads(ui_config.read_text(encoding="utf-8"))
    assert "customscript/flux_kontext.py/txt2img/Stitch/value" in config
    assert not STALE.keys() & config.keys()
    ui_config.write_text(json.dumps(config | STALE), encoding="utf-8")
    page.open_tab("Settings")
    page.page.locator("#settings > .tab-nav > button", has_text=TITLE).click()
    for name in Options.model_fields:
        assert setting(page, name).is_visible(), name
        needs_reload = name.startswith("panel_") or name == "report_place"
        assert ("requires Reload UI" in setting(page, name).inner_text()) == needs_reload, name
    setting(page, "panel_sizing").get_by_label("no change").check()
    setting(page, "panel_half_size").locator("input").check()
    setting(page, "panel_speed").get_by_label("Fast", exact=True).check()
    setting(page, "panel_hires_references").locator("input").uncheck()
    setting(page, "log").locator("input").uncheck()
    page.click("settings_submit")
    page.element("settings_result").get_by_text("flux_kontext_panel_sizing").wait_for()
    reload_ui(page, forge_page)
    unfold(page)

    def control(name: str) -> Any:
        return page.element(f"{PANEL}_{name}").locator("input").first

    assert control("sizing").input_value() == "no change"
    assert control("threshold").input_value() == str(PRESETS["Fast"]["cache_threshold"])
    assert control("reference_refresh").input_value() == str(PRESETS["Fast"]["reference_refresh"])
    assert control("half_size").is_checked()
    assert control("correct").is_checked()
    assert not control("hires_references").is_checked()
    assert "primary" in (page.element(f"{PANEL}_preset_fast").get_attribute("class") or "").split()
    page.open_accordion(f"{PANEL}_runs")
    page.click(f"{PANEL}_runs_show")
    page.element(f"{PANEL}_runs_table").get_by_text("The run log is off").wait_for()
    through_api = forge_page.txt2img(**kontext(True), steps=1).info["extra_generation_params"]
    assert through_api["Kontext sizing"] == "to BFL recommended"
    assert (through_api["Kontext half size"], through_api["Kontext cache threshold"]) == ("False", "0.14")
    assert "Kontext reference refresh" not in through_api
    _, scripts = forge_page.get("/sdapi/v1/script-info")
    ours = [script for script in scripts if script["name"] == TITLE.lower()]
    assert len(ours) == 2  # txt2img's and img2img's
    for script in ours:
        assert [script["args"][index]["value"] for index in (3, 4, 6, 13, 14)] == [
            "to BFL recommended", False, 0.14, True, 0,
        ]  # fmt: skip


def test_pasted_parameters_restore_the_white_background_that_infotext_leaves_out(
    page: ForgePage, forge_page: ForgeServer, tmp_path: Path
) -> None:
    forge_page.post("/sdapi/v1/options", {f"{PREFIX}background": "#000000"})
    cut_out().save(tmp_path / "cat.png")
    mark = image_to_infotext(decode_reference(cut_out(), "image1"))
    infotext = (
        "a cat\nSteps: 1, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Seed: 5, Size: 256x256, "
        f"Kontext: True, Kontext half size: True, Kontext image 1: {mark}"
    )
    paste(page, infotext)
    missing = page.element(f"{PANEL}_missing").get_by_text("is missing")
    missing.wait_for()
    page.element("txt2img_override_settings").get_by_text("Kontext background: #ffffff").wait_for()
    page.drop_image(f"{PANEL}_image1", tmp_path / "cat.png")
    missing.wait_for(state="detached")
    page.generate()
    assert f"Kontext image 1: {mark}" in page.infotext()
    assert "Kontext background" not in page.infotext()
