"""Distilled LoRAs are recognised by the words of their names, and by nothing that merely looks like them."""

from __future__ import annotations

import pytest

from lib_fluxkontext.distilled_lora import distilled_loras, recognise

DISTILLED = {
    "Hyper-FLUX.1-dev-8steps-lora": 8,
    "Hyper-FLUX.1-dev-16steps-lora": 16,
    "hyper-flux.1-dev-8steps-lora.safetensors": 8,
    "HYPER-FLUX.1-DEV-8STEPS-LORA": 8,
    "HyperFlux8Steps": 8,
    "hyperflux_lora": None,
    "flux-hyper": None,
    "FLUX.1-Turbo-Alpha": None,
    "FLUX.1-Turbo-Alpha.safetensors": None,
    "Flux1TurboAlpha": None,
    "flux-turbo": None,
    "flux_dev_turbo_v2": None,
    "kontext-turbo": None,
    "speed/FLUX.1-Turbo-Alpha": None,
    r"C:\loras\flux-turbo.safetensors": None,
    "Flux-Lightning": None,
    "flux-dev2schnell": None,
    "FluxDev-to-4step": 4,
    "TDD-FLUX.1-dev-lora-beta": None,
    "some fast 4-step one": 4,
}

OTHERS = [
    "hyperrealistic",
    "flux-hyperrealistic-skin",
    "flux-hyper-realistic",
    "Flux_Hyper_Detailed_v2",
    "HyperRealism",
    "flux-surreal",
    "turbocharged car",
    "flux-turbocharged",
    "porsche-911-turbo",
    "flux-porsche-911-turbo",
    "turbo-diesel-flux-smoke",
    "flux-lightning-storm",
    "lightning",
    "portrait-2000steps",
    "flux-portrait-step00000008",
    "flux-portrait-000008-steps",
    "footsteps",
    "eight-steps-of-stairs",
    "flux-realism-lora",
    "alpha-beta",
    "devil-turbo",
    "",
    "文字",
]


@pytest.mark.parametrize("name", DISTILLED)
def test_it_is_recognised(name: str) -> None:
    lora = recognise(name)
    assert lora is not None
    assert lora.steps == DISTILLED[name]
    assert "/" not in lora.name
    assert "\\" not in lora.name
    assert not lora.name.lower().endswith(".safetensors")


@pytest.mark.parametrize("name", OTHERS)
def test_a_false_friend_is_not(name: str) -> None:
    assert recognise(name) is None


def names(prompt: str) -> list[str]:
    return [lora.name for lora in distilled_loras(prompt)]


def test_they_are_found_in_the_tags_of_a_prompt_alone() -> None:
    assert names("a Hyper-FLUX 8steps flux-turbo car") == []
    assert names("a cat <lora:flux-turbo:1>, by the sea") == ["flux-turbo"]
    prompt = "<lora:realism:1> x <lora:Hyper-FLUX.1-dev-8steps-lora:0.125> <lora:flux-turbo:1> <lora:flux-turbo:0.5>"
    assert names(prompt) == ["Hyper-FLUX.1-dev-8steps-lora", "flux-turbo"]
    assert names("<lora:flux-turbo> <LORA:a/flux-turbo:1>") == ["flux-turbo"]
    assert names("<hypernet:flux-turbo:1>") == []


@pytest.mark.parametrize("arguments", ["0", "0.0", "1:0", "unet=0", "te=1:unet=0", "te=0"])
def test_one_of_weight_0_has_no_effect(arguments: str) -> None:
    assert names(f"<lora:flux-turbo:{arguments}>") == []


@pytest.mark.parametrize("arguments", ["0.125", ".5", "-1", "0:1", "0:unet=1", "te=0:unet=1", "", "much", "1:1:32"])
def test_any_other_weight_counts(arguments: str) -> None:
    assert names(f"<lora:flux-turbo:{arguments}>") == ["flux-turbo"]
