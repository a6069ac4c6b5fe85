"""What the panel's controls say and what Forge keeps of them: hints of the presets, mute boxes that share a label."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib_fluxkontext.settings import PRESETS
from tests.support.forge_page import ForgePage
from tests.support.forge_server import ForgeServer
from tests.support.panel import PANEL, facts

HYPER = "a cat <lora:Hyper-FLUX.1-dev-8steps-lora:0.125>"


@pytest.mark.both_hosts
def test_every_preset_says_what_it_does(page: ForgePage) -> None:
    hints = [page.element(f"{PANEL}_preset_{name.lower()}").get_attribute("title") or "" for name in PRESETS]
    assert all(hints)
    assert len(set(hints)) == len(PRESETS)
    assert hints[-1] == "Computes about 4 of 20 steps: for trying prompts and seeds"


@pytest.mark.both_hosts
def test_mute_is_not_kept_as_a_default(page: ForgePage, forge_page: ForgeServer) -> None:
    config = json.loads((forge_page.data / "ui-config.json").read_text(encoding="utf-8"))
    ours = [key for key in config if key.startswith("customscript/flux_kontext.py/")]
    assert ours
    assert [key for key in ours if "/Mute/" in key] == []


@pytest.mark.both_hosts
def test_references_are_spoken_of_only_while_a_slot_has_one(page: ForgePage, files: dict[str, Path]) -> None:
    page.element("txt2img_prompt").locator("textarea").fill(HYPER)
    hint = page.element(f"{PANEL}_lora_hint")
    hint.get_by_text("Suggested: First Block Cache off, 8 to 10 steps;").wait_for()
    page.drop_image(f"{PANEL}_image1", files["woman"])
    hint.get_by_text("references refreshed every 2 steps").wait_for()
    page.element(f"{PANEL}_mute1").locator("input").check()
    hint.get_by_text("references refreshed every 2 steps").wait_for(state="detached")
    page.element(f"{PANEL}_mute1").locator("input").uncheck()
    hint.get_by_text("references refreshed every 2 steps").wait_for()
    page.click(f"{PANEL}_clear")
    facts(page, 1, "Empty")
    hint.get_by_text("references refreshed every 2 steps").wait_for(state="detached")
