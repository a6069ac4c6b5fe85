"""What the extension promises, over HTTP."""

from __future__ import annotations

import json
import threading
from itertools import combinations

import numpy as np
import pytest

from tests.forge.conftest import CACHED
from tests.support.forge_server import ForgeServer, Result
from tests.support.payloads import (
    HOOKS,
    TITLE,
    WITHIN,
    difference,
    first_pass,
    kontext,
    made,
    pixels,
    report,
    step_kinds,
    two_references,
)
from tests.support.photos import cat, cat_base64, woman, woman_base64

STEPS = 12

pytestmark = pytest.mark.both_hosts


def test_two_references_change_the_picture_and_their_order_matters(forge: ForgeServer) -> None:
    plain = pixels(made(forge))
    both = pixels(made(forge, two_references()))
    swapped = pixels(made(forge, two_references(image1=cat_base64(), image2=woman_base64())))
    first = pixels(made(forge, two_references(image2=None)))
    second = pixels(made(forge, two_references(image1=None)))
    pictures = [plain, both, swapped, first, second]
    for first_picture, second_picture in combinations(pictures, 2):
        assert difference(first_picture, second_picture) > 0.5


def test_disabled_is_bit_identical_to_no_extension(forge: ForgeServer, plain_forge: ForgeServer) -> None:
    without = pixels(made(plain_forge))
    assert np.array_equal(without, pixels(made(forge)))
    assert np.array_equal(without, pixels(made(forge, two_references(enabled=False))))
    assert np.array_equal(without, pixels(made(forge, {"enabled": True, "cache": False})))


def test_the_same_request_is_the_same_picture_whatever_came_between(forge: ForgeServer, cached: dict) -> None:
    request = two_references(**cached)
    first = made(forge, request, steps=STEPS)
    made(forge, two_references(sizing="no change", half_size=True), seed=7, width=192, batch_size=2)
    forge.img2img(woman(), steps=3)
    forge.txt2img(**kontext(two_references(cache_threshold=-1)))
    again = made(forge, request, steps=STEPS)
    assert np.array_equal(pixels(first), pixels(again))
    assert first_pass(again)["references_kept"] == 2
    assert first_pass(again)["references_encoded"] == 0


def test_threshold_zero_is_bit_identical_to_no_cache(forge: ForgeServer) -> None:
    without = pixels(made(forge, two_references(), steps=STEPS))
    assert np.array_equal(without, pixels(made(forge, two_references(cache=True, cache_threshold=0), steps=STEPS)))
    assert np.array_equal(without, pixels(made(forge, two_references(cache=True, cache_threshold=1e-9), steps=STEPS)))
    assert not np.array_equal(without, pixels(made(forge, two_references(**CACHED), steps=STEPS)))


@pytest.mark.parametrize("references", [True, False], ids=["two references", "no references"])
@pytest.mark.parametrize("cfg", [1.0, 3.0], ids=["CFG 1", "CFG 3 with a negative prompt"])
def test_a_batch_with_cache_equals_its_images_alone(
    forge: ForgeServer, cfg: float, references: bool, cached: dict
) -> None:
    settings = two_references(**cached) if references else {"enabled": True, **cached}
    payload = {"steps": STEPS, "cfg_scale": cfg, "negative_prompt": "fog", "width": 128, "height": 128}
    together = made(forge, settings, batch_size=2, n_iter=2, seed=10, **payload)
    assert len(together.images) == 4
    kinds = [step["kind"] for sampling in report(together)["passes"] for step in sampling["steps"]]
    assert kinds[0] == "computed"
    assert "reused" in kinds or "mixed" in kinds
    for index in range(4):
        alone = made(forge, settings, seed=10 + index, **payload)
        assert difference(pixels(alone), pixels(together, index)) < WITHIN


def test_a_batch_whose_images_hit_and_miss_equals_its_images_alone(forge: ForgeServer) -> None:
    """With a threshold between the two images' distances the batch splits, and still equals the images alone."""
    measuring = two_references(cache=True, cache_threshold=1e-9)
    first, second = (first_pass(made(forge, measuring, steps=STEPS, seed=seed))["steps"] for seed in (3, 4))
    pairs = [
        (first_step["distance"], second_step["distance"])
        for first_step, second_step in zip(first, second, strict=True)
        if first_step["distance"] is not None
    ]
    low, high = sorted(max(pairs, key=lambda pair: abs(pair[0] - pair[1]) / max(pair)))
    settings = two_references(cache=True, cache_threshold=(low + high) / 2)
    together = made(forge, settings, steps=STEPS, seed=3, batch_size=2)
    assert "mixed" in set(step_kinds(together))
    for index in range(2):
        alone = made(forge, settings, steps=STEPS, seed=3 + index)
        assert difference(pixels(alone), pixels(together, index)) < WITHIN


def test_batch_count_three_equals_three_single_runs(forge: ForgeServer, cached: dict) -> None:
    together = made(forge, two_references(**cached), n_iter=3, seed=20, steps=STEPS)
    assert report(together)["reused_steps"] > 0
    for index in range(3):
        alone = made(forge, two_references(**cached), seed=20 + index, steps=STEPS)
        assert np.array_equal(pixels(alone), pixels(together, index))


def test_positional_arguments_of_forge_fluxkontext_still_work(forge: ForgeServer) -> None:
    positional = forge.txt2img(**kontext(True, woman_base64(), cat_base64(), "to output", False, False))
    assert np.array_equal(pixels(positional), pixels(made(forge, two_references())))
    refused = forge.txt2img(**kontext(True, woman_base64(), None, "to output", False, True, "lots"))
    assert refused.status == 422
    assert "cache_threshold" in refused.reply["detail"]


def test_two_requests_at_once_do_not_mix(forge: ForgeServer, cached: dict) -> None:
    requests = [two_references(**cached), two_references(image1=cat_base64(), image2=None)]
    alone = [pixels(made(forge, request, steps=STEPS)) for request in requests]
    results: dict[int, Result] = {}

    def ask(index: int) -> None:
        results[index] = forge.txt2img(**kontext(requests[index % 2]), steps=STEPS)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(4):
        assert np.array_equal(pixels(results[index]), alone[index % 2])


def test_with_threshold_1_all_steps_but_the_first_are_reused(forge: ForgeServer) -> None:
    settings = two_references(cache=True, cache_threshold=1.0)
    result = forge.txt2img(**kontext(settings, **{HOOKS: {"count_forwards": True}}), steps=STEPS)
    assert pixels(result).std() > 1
    assert report(result)["reused_steps"] == STEPS - 1
    assert report(result)["speed_up"] > 1
    assert first_pass(result)["reference_tokens"] == [256, 256]
    assert first_pass(result)["image_tokens"] == 256


@pytest.mark.parametrize(
    ("settings", "reused"),
    [
        ({"cache_warmup_steps": 5}, [False] * 5 + [True] * 5),
        ({"cache_max_consecutive": 1}, [False, True] * 5),
        ({"cache_compute_last": True}, [False] + [True] * 8 + [False]),
    ],
)
def test_the_limits_of_reuse_count_steps(forge: ForgeServer, settings: dict, reused: list[bool]) -> None:
    result = made(forge, two_references(cache=True, cache_threshold=1.0, **settings), steps=10)
    assert [kind == "reused" for kind in step_kinds(result)] == reused


def test_the_report_is_in_info_and_infotext(forge: ForgeServer) -> None:
    result = made(forge, two_references(**CACHED), steps=STEPS)
    params = result.info["extra_generation_params"]
    for key in ("Kontext step time", "Kontext steps cached", "Kontext VRAM peak"):
        assert key in params
        assert f"{key}: " in result.infotext
    assert "no CUDA" in params["Kontext VRAM peak"]
    seconds = [step["seconds"] for step in first_pass(result)["steps"]]
    assert len(seconds) == STEPS
    assert min(seconds) > 0
    assert report(result)["sampling_seconds"] >= sum(seconds)
    assert report(result)["memory"]["process"] > 2**28
    assert "Kontext report" not in result.infotext


def test_infotext_restores_every_control_but_the_images(forge: ForgeServer) -> None:
    settings = two_references(
        sizing="fit inside output",
        half_size=True,
        cache=True,
        cache_threshold=0.37,
        cache_warmup_steps=3,
        cache_max_consecutive=2,
        cache_compute_last=True,
        mute_image2=True,
        hires_references=False,
        reference_refresh=2,
        cache_forecast=False,
    )
    first = made(forge, settings)
    # Forge's API stumbles over its own "styles" when it reads an infotext, unless the request names it.
    again = forge.txt2img(infotext=first.infotext, styles=[])
    assert again.status == 200, again.reply
    results = {"Kontext step time", "Kontext steps cached", "Kontext VRAM peak", "Kontext report", "Kontext image 1"}

    def settings_in(result: Result) -> dict[str, str]:
        parameters = result.info["extra_generation_params"].items()
        return {name: value for name, value in parameters if name.startswith("Kontext") and name not in results}

    assert len(settings_in(first)) > 10
    assert settings_in(again) == settings_in(first)
    images = {TITLE: {"args": [True, woman_base64(), cat_base64()]}}
    with_images = forge.txt2img(infotext=first.infotext, styles=[], alwayson_scripts=images)
    assert np.array_equal(pixels(with_images), pixels(first))


def test_infotext_names_each_reference_by_content_and_size(forge: ForgeServer) -> None:
    params = made(forge, two_references()).info["extra_generation_params"]
    as_data_uri = made(forge, two_references(image1="data:image/png;base64," + woman_base64()), width=192)
    assert params["Kontext image 1"] == as_data_uri.info["extra_generation_params"]["Kontext image 1"]
    assert params["Kontext image 1"].endswith(f" {woman().width}×{woman().height}")
    assert params["Kontext image 2"].endswith(f" {cat().width}×{cat().height}")
    assert params["Kontext image 1"] != params["Kontext image 2"]


def test_a_muted_reference_is_as_if_it_were_not_there(forge: ForgeServer) -> None:
    muted = pixels(made(forge, two_references(mute_image1=True)))
    assert np.array_equal(muted, pixels(made(forge, two_references(image1=None))))


def test_the_script_is_listed_with_its_arguments(forge: ForgeServer) -> None:
    _, scripts = forge.get("/sdapi/v1/script-info")
    ours = [script for script in scripts if script["name"] == TITLE.lower()]
    assert len(ours) == 2  # txt2img's and img2img's
    for script in ours:
        assert json.dumps(script["args"][3]["choices"]) == json.dumps(
            ["to BFL recommended", "to output", "no change", "fit inside output"]
        )
        assert [argument["value"] for argument in script["args"][:10]] == [
            False, None, None, "to BFL recommended", False, True, 0.14, 1, 0, False,
        ]  # fmt: skip
