"""Every way in which Forge makes a picture, with references: sizes, hires fix, img2img, tiles, checkpoints, LoRA."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from PIL import Image

from tests.forge.conftest import CACHED
from tests.support import checkpoint_files as files
from tests.support.forge_install import FORGE, NEO
from tests.support.forge_server import ForgeServer, Result
from tests.support.images import encode_image
from tests.support.payloads import difference, first_pass, kontext, made, pixels, report, step_kinds, two_references
from tests.support.photos import woman, woman_base64


def from_picture(forge: ForgeServer, settings: dict | None, image: Image.Image, **payload: object) -> Result:
    """Generate by img2img, which must succeed."""
    result = forge.img2img(image, **(kontext(settings) if settings else {}), steps=8, **payload)
    assert result.status == 200, result.reply
    return result


@pytest.mark.parametrize(("width", "height"), [(264, 328), (328, 264), (200, 64), (64, 392), (256, 256)])
@pytest.mark.parametrize("sizing", ["to output", "fit inside output"])
def test_any_output_size_gets_references_of_that_size(forge: ForgeServer, width: int, height: int, sizing: str) -> None:
    """Forge allows multiples of 8, whose latents may be odd; Flux pads them itself. Neo may round to more."""
    result = made(forge, two_references(sizing=sizing, **CACHED), width=width, height=height)
    plain = pixels(made(forge, width=width, height=height))
    if forge.host is NEO:
        width, height = plain.shape[1::-1]
    assert result.images[0].size == (width, height)
    assert difference(pixels(result), plain) > 0.5
    tokens = -(-width // 16) * -(-height // 16)
    assert first_pass(result)["reference_tokens"] == [tokens, tokens]


def test_each_sizing_mode_gives_the_expected_tokens(forge: ForgeServer) -> None:
    tokens = {}
    for sizing in ("to BFL recommended", "to output", "no change", "fit inside output"):
        for half in (False, True):
            result = made(forge, two_references(sizing=sizing, half_size=half), steps=1)
            tokens[sizing, half] = first_pass(result)["reference_tokens"]
    assert tokens["to BFL recommended", False] == [4096, 78 * 52]
    assert tokens["to BFL recommended", True] == [1024, 39 * 26]
    assert tokens["to output", False] == tokens["fit inside output", False] == [256, 256]
    assert tokens["no change", False] == [32 * 32, 28 * 19]
    assert tokens["no change", True] == [16 * 16, 14 * 9]


@pytest.mark.both_hosts
@pytest.mark.parametrize("upscaler", [pytest.param("Latent", marks=pytest.mark.forge_only), "None"])
def test_hires_fix_gets_references_in_both_passes_or_in_the_first_alone(
    forge: ForgeServer, upscaler: str, cached: dict
) -> None:
    payload = {
        "enable_hr": True,
        "hr_scale": 1.5,
        "hr_upscaler": upscaler,
        "hr_second_pass_steps": 3,
        "denoising_strength": 0.5,
        "hr_additional_modules": ["Use same choices"],
        "hr_cfg": 1.0,
    }
    both = made(forge, two_references(**cached), **payload)
    first = made(forge, two_references(hires_references=False, **cached), **payload)
    plain = made(forge, **payload)
    assert both.images[0].size == (384, 384)
    assert [sampling["reference_tokens"] for sampling in report(both)["passes"]] == [[256, 256], [576, 576]]
    assert [sampling["reference_tokens"] for sampling in report(first)["passes"]] == [[256, 256], []]
    assert [len(sampling["steps"]) for sampling in report(both)["passes"]] == [4, 3]
    assert difference(pixels(both), pixels(first)) > 0.2
    assert difference(pixels(first), pixels(plain)) > 0.2
    assert np.array_equal(pixels(both), pixels(made(forge, two_references(**cached), **payload)))


@pytest.mark.parametrize(
    "target", [{"hr_scale": 2.0}, {"hr_resize_x": 3200}, {"hr_resize_x": 3200, "hr_resize_y": 3200}]
)
def test_references_too_large_for_the_hires_pass_are_refused_before_the_first(forge: ForgeServer, target: dict) -> None:
    printed = len(forge.log_text())
    size = {"width": 1600, "height": 1600, "enable_hr": True, "hr_upscaler": "Latent", **target}
    refused = forge.txt2img(**kontext(two_references()), **size)
    assert refused.status == 422
    assert "3200×3200" in refused.reply["detail"]
    assert "it/s" not in forge.log_text()[printed:]


@pytest.mark.both_hosts
def test_img2img_takes_references_and_its_init_image_as_one(forge: ForgeServer, cached: dict) -> None:
    plain = from_picture(forge, None, woman())
    two = from_picture(forge, two_references(**cached), woman())
    init = from_picture(forge, {"enabled": True, "init_image_as_reference": True, "sizing": "to output"}, woman())
    assert difference(pixels(two), pixels(plain)) > 0.5
    assert difference(pixels(init), pixels(plain)) > 0.5
    assert first_pass(init)["reference_tokens"] == [256]
    same = from_picture(forge, {"enabled": True, "image1": woman_base64(), "sizing": "to output"}, woman())
    # These two differ only in the init latent, which Forge itself samples anew for each generation.
    assert difference(pixels(init), pixels(same)) < difference(pixels(init), pixels(plain))


@pytest.mark.parametrize("only_masked", [False, True])
def test_inpainting_with_references_changes_the_masked_area_alone(forge: ForgeServer, only_masked: bool) -> None:
    mask = Image.new("L", woman().size, 0)
    mask.paste(255, (128, 128, 384, 384))
    payload = {"mask": encode_image(mask), "inpaint_full_res": only_masked, "mask_blur": 0, "inpainting_fill": 1}
    plain = from_picture(forge, None, woman(), **payload)
    two = from_picture(forge, two_references(**CACHED), woman(), **payload)
    assert difference(pixels(two)[96:160, 96:160], pixels(plain)[96:160, 96:160]) > 0.5
    assert difference(pixels(two)[:32], pixels(plain)[:32]) < 2


@pytest.mark.both_hosts
def test_cfg_with_a_negative_prompt_reaches_both_conditionings(forge: ForgeServer, cached: dict) -> None:
    payload = {"cfg_scale": 3.0, "negative_prompt": "fog and rain"}
    result = made(forge, two_references(**cached), **payload)
    assert difference(pixels(result), pixels(made(forge, **payload))) > 0.5
    calls = first_pass(result)["calls"]
    assert [call["images"] for call in calls] == [2] * 4


def test_prompts_joined_by_and_have_cache_states_of_their_own(forge: ForgeServer, cached: dict) -> None:
    payload = {"prompt": "a red house AND a green tree :0.5", "steps": 10}
    without = made(forge, two_references(), **payload)
    measured = made(forge, two_references(cache=True, cache_threshold=1e-9), **payload)
    assert np.array_equal(pixels(without), pixels(measured))
    once = made(forge, two_references(**cached), **payload)
    again = made(forge, two_references(**cached), **payload)
    assert np.array_equal(pixels(once), pixels(again))


@pytest.mark.both_hosts
def test_multidiffusion_gives_every_tile_the_references_and_caches_none(forge: ForgeServer) -> None:
    tiles = {"MultiDiffusion Integrated": {"args": [True, "MultiDiffusion", 192, 192, 64, 1]}}
    generate = forge.txt2img if forge.host is FORGE else partial(forge.img2img, woman())  # Neo has tiles there alone
    plain = generate(alwayson_scripts=tiles)
    both = generate(
        alwayson_scripts=tiles
        | kontext(two_references(cache=True, cache_threshold=1.0, reference_refresh=2))["alwayson_scripts"]
    )
    assert difference(pixels(both), pixels(plain)) > 0.2
    assert set(step_kinds(both)) == {"computed"}
    assert "tiles" in first_pass(both)["notes"][0]


def test_a_checkpoint_without_guidance_takes_references_and_caches(forge: ForgeServer) -> None:
    """Like FLUX.1 schnell; those with guidance are in ``test_formats.py``."""
    forge.select(files.FLUX_SCHNELL)
    try:
        plain = pixels(made(forge))
        without = made(forge, two_references(), steps=8)
        measured = made(forge, two_references(cache=True, cache_threshold=1e-9), steps=8)
        cached = made(forge, two_references(cache=True, cache_threshold=1.0), steps=8)
        kept = made(forge, two_references(reference_refresh=4), steps=8)
        assert step_kinds(kept) == (["computed"] + ["kept"] * 3) * 2
        assert difference(pixels(kept), pixels(without)) < 0.75 * difference(
            pixels(made(forge, steps=8)), pixels(without)
        )
        assert np.array_equal(pixels(without), pixels(measured))
        assert difference(pixels(made(forge, two_references())), plain) > 0.5
        # In one step of Neo's linear schedule for schnell the distance is above 1.
        assert report(cached)["reused_steps"] == (6 if forge.host is NEO else 7)
        assert np.array_equal(pixels(made(forge)), plain)
    finally:
        forge.select(files.FLUX)


@pytest.mark.both_hosts
def test_a_lora_and_references_both_change_the_picture(forge: ForgeServer, cached: dict) -> None:
    prompt = f"a red lighthouse <lora:{files.LORA.removesuffix('.safetensors')}:1>"
    with_lora = pixels(made(forge, two_references(**cached), prompt=prompt, steps=8))
    without = pixels(made(forge, two_references(**cached), prompt="a red lighthouse", steps=8))
    assert difference(with_lora, without) > 0.5
    assert np.array_equal(with_lora, pixels(made(forge, two_references(**cached), prompt=prompt, steps=8)))
    assert difference(with_lora, pixels(made(forge, prompt=prompt, steps=8))) > 0.5


@pytest.mark.both_hosts
def test_a_checkpoint_that_is_not_flux_is_refused_with_references_and_else_untouched(forge: ForgeServer) -> None:
    forge.select(files.SD15)
    try:
        plain = pixels(made(forge))
        refused = forge.txt2img(**kontext(two_references()))
        assert refused.status == 422
        assert "is not FLUX" in refused.reply["detail"]
        untouched = made(forge, {"enabled": True})
        assert np.array_equal(plain, pixels(untouched))
    finally:
        forge.select(files.FLUX)
