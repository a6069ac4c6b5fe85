"""What the panel suggests for a distilled LoRA: what is not so yet, and nothing where nothing is left."""

from __future__ import annotations

import re

from lib_fluxkontext.hosts.forge.ui.lora_hint import Speed, lora_hint_html
from lib_fluxkontext.hosts.forge.ui.markup import warnings_in
from lib_fluxkontext.settings import PRESETS

HYPER = "the woman hugs the cat <lora:Hyper-FLUX.1-dev-8steps-lora:0.125>"
BALANCED = Speed(steps=20, cache=True, cache_threshold=0.14, reference_refresh=0)
FOLLOWED = Speed(steps=8, cache=False, cache_threshold=0.14, reference_refresh=2)


def suggestion(prompt: str, speed: Speed) -> str:
    return re.sub(r"<[^>]+>", "", lora_hint_html(prompt, speed))


def test_all_is_suggested_where_nothing_is_so() -> None:
    assert suggestion(HYPER, BALANCED) == (
        "Hyper-FLUX.1-dev-8steps-lora is distilled for few steps, and each of them counts. "
        "Suggested: First Block Cache off, references refreshed every 2 steps, 8 to 10 steps; "
        "weight and guidance as its model card says."
    )
    assert warnings_in(lora_hint_html(HYPER, BALANCED)) == ""  # a suggestion, no warning


def test_what_is_so_is_not_suggested() -> None:
    assert "Suggested: First Block Cache off;" in suggestion(HYPER, Speed(9, True, 0.2, 4))
    assert "Suggested: references refreshed every 2 steps;" in suggestion(HYPER, Speed(10, False, 0.2, 1))
    assert "Suggested: 8 to 10 steps;" in suggestion(HYPER, Speed(7, False, 0.2, 2))
    assert "Suggested: 8 to 10 steps;" in suggestion(HYPER, Speed(None, True, 0.0, 2))
    for steps in (8, 9, 10):
        assert suggestion(HYPER, Speed(steps, False, 0.14, 2)) == ""
    assert suggestion(HYPER, Speed(8, True, 0, 3)) == ""  # at threshold 0 the cache is at rest


def test_the_steps_are_those_in_the_name() -> None:
    assert "16 to 18 steps" in suggestion("<lora:Hyper-FLUX.1-dev-16steps-lora:0.125>", FOLLOWED)
    assert "4 to 6 steps" in suggestion("<lora:flux-4step:1>", FOLLOWED)
    assert suggestion("<lora:FLUX.1-Turbo-Alpha:1>", FOLLOWED) == ""


def test_nothing_without_a_distilled_lora() -> None:
    for prompt in ("", "a hyperrealistic turbocharged car", "x <lora:flux-realism:1>", "<lora:flux-turbo:0>"):
        assert lora_hint_html(prompt, BALANCED) == ""


def test_a_name_is_escaped() -> None:
    assert "<b" not in lora_hint_html('<lora:flux-turbo"&<b:1>', BALANCED)


def test_every_preset_but_off_is_spoken_of() -> None:
    for name, preset in PRESETS.items():
        speed = Speed(8, bool(preset["cache"]), float(preset["cache_threshold"]), 2)
        assert bool(lora_hint_html(HYPER, speed)) == (name != "Off")
