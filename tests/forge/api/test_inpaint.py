"""*Keep outside the mask exactly*: the original's pixels bit for bit, and the reference cropped as the canvas is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support import checkpoint_files as files
from tests.support.forge_server import ForgeServer, Result
from tests.support.images import encode_image
from tests.support.payloads import TITLE, difference, first_pass, kontext, made, pixels, report
from tests.support.photos import cat, woman, woman_base64

BOX = (96, 128, 400, 432)
"""Of the mask in the photograph of 512×512: a square, so that "only masked" samples this and no more."""

KEEP: dict[str, Any] = {"enabled": True, "cache": False, "keep_outside_mask": True}
WHOLE: dict[str, Any] = {"inpaint_full_res": False}
ONLY_MASKED: dict[str, Any] = {"inpaint_full_res": True, "inpaint_full_res_padding": 0}

SETTLED = ONLY_MASKED | {"mask_blur": 0, "inpainting_fill": 3}
"""The whole canvas is masked and begins with nothing: no trace of the init latent, which Forge samples anew in each
generation, so that pictures can be compared bit for bit."""


@pytest.fixture
def choose(forge: ForgeServer) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Set Forge's options for one test; Neo does not restore what a request overrides if it was never set before."""
    _, before = forge.get("/sdapi/v1/options")
    chosen: set[str] = set()

    def choose(options: dict[str, Any]) -> None:
        chosen.update(options)
        assert forge.post("/sdapi/v1/options", options)[0] == 200

    yield choose
    forge.post("/sdapi/v1/options", {name: before[name] for name in chosen})


@pytest.fixture
def neo_kontext(forge: ForgeServer) -> Iterator[ForgeServer]:
    """Neo with a checkpoint that it takes for Kontext, by its name."""
    forge.select(files.FLUX_KONTEXT)
    yield forge
    forge.select(files.FLUX)


def mask(size: tuple[int, int] = (512, 512), box: tuple[int, int, int, int] = BOX) -> Image.Image:
    drawn = Image.new("L", size, 0)
    drawn.paste(255, box)
    return drawn


def inpainted(
    forge: ForgeServer, settings: dict[str, Any] | None, image: Image.Image | None = None, **payload: Any
) -> Result:
    """Inpaint the box, which must succeed."""
    payload = {"mask": encode_image(mask()), "inpainting_fill": 1, "denoising_strength": 0.9, **payload}
    if settings is not None:
        payload["alwayson_scripts"] = {**payload.get("alwayson_scripts", {}), TITLE: {"args": [settings]}}
    result = forge.img2img(image or woman(), **payload)
    assert result.status == 200, result.reply
    return result


def original(size: tuple[int, int], image: Image.Image | None = None) -> np.ndarray:
    """Return the photograph at the size of a result."""
    image = image or woman()
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS)).astype(int)


def inside(size: tuple[int, int], invert: bool = False) -> np.ndarray:
    """Return where the mask is in a result."""
    marked = np.asarray(mask(size, tuple(side * size[0] // 512 for side in BOX))) > 0
    return ~marked if invert else marked


def notes(result: Result) -> str:
    return " ".join(report(result)["notes"])


@pytest.mark.both_hosts
@pytest.mark.parametrize("blur", [0, 4])
@pytest.mark.parametrize("invert", [False, True], ids=["masked", "not masked"])
@pytest.mark.parametrize("area", [WHOLE, ONLY_MASKED], ids=["whole picture", "only masked"])
def test_every_pixel_outside_the_mask_is_the_originals(
    forge: ForgeServer, area: dict[str, Any], invert: bool, blur: int
) -> None:
    payload = area | {"mask_blur": blur, "inpainting_mask_invert": int(invert)}
    result = inpainted(forge, KEEP, **payload)
    size = (512, 512) if area is ONLY_MASKED else (256, 256)
    assert result.images[0].size == size
    made_anew = inside(size, invert)
    assert np.array_equal(pixels(result)[~made_anew], original(size)[~made_anew])
    changed = np.abs(pixels(result) - original(size)).mean(-1)
    assert changed[made_anew].mean() > 5
    if blur == 0:
        assert (changed[made_anew] > 0).mean() > 0.9  # up to the edge
    if blur and not invert:
        today = pixels(inpainted(forge, KEEP | {"keep_outside_mask": False}, **payload))
        assert not np.array_equal(today[~made_anew], original(size)[~made_anew])
        middle, edge = np.s_[size[1] // 2, size[0] // 2 - 8 : size[0] // 2 + 8], np.s_[size[1] // 2, :]
        first_column = int(np.flatnonzero(made_anew[edge])[0])
        assert changed[middle].mean() > 2 * changed[size[1] // 2 - 20 : size[1] // 2 + 20, first_column].mean()
    assert "Keep outside" not in notes(result)


@pytest.mark.both_hosts
def test_every_picture_of_several_batches_is_kept_and_saved(
    forge: ForgeServer, choose: Callable[[dict[str, Any]], None]
) -> None:
    choose({"samples_save": True, "return_grid": False})
    saved_before = set(forge.data.rglob("*.png"))
    payload = ONLY_MASKED | {"batch_size": 2, "n_iter": 2, "save_images": True, "seed": 30}
    result = inpainted(forge, KEEP, **payload)
    saved = sorted(set(forge.data.rglob("*.png")) - saved_before)
    for shown in (result.images, [Image.open(path) for path in saved]):
        # Forge may hide infotext in an alpha channel of what it has saved.
        pictures = [np.asarray(image.convert("RGB")) for image in shown]
        assert len({picture.tobytes() for picture in pictures}) == 4
        outside = ~inside((512, 512))
        for picture in pictures:
            assert np.array_equal(picture[outside], original((512, 512))[outside])


@pytest.mark.both_hosts
def test_the_original_is_cropped_as_forge_crops_it(forge: ForgeServer) -> None:
    """*Crop and resize*: 451×300 becomes 384×256, of which the middle is used."""
    payload = {"resize_mode": 1, "mask": encode_image(mask(cat().size, (150, 100, 300, 200)))}
    result = inpainted(forge, KEEP, cat(), **WHOLE, mask_blur=4, **payload)
    middle = np.asarray(cat().resize((384, 256), Image.Resampling.LANCZOS)).astype(int)[:, 64:320]
    differs = np.argwhere(np.abs(pixels(result) - middle).max(-1) > 0)
    edges = np.array([(100, 150), (200, 300)]) * 256 / 300 - [0, 64]  # rows and columns of the mask
    assert (differs.min(0) >= edges[0] - 1).all()
    assert (differs.max(0) <= edges[1]).all()
    assert len(differs) > 0.8 * np.prod(edges[1] - edges[0])


@pytest.mark.both_hosts
def test_each_init_image_of_a_batch_keeps_its_own(forge: ForgeServer) -> None:
    other = cat().resize((512, 512))
    both = [encode_image(woman()), encode_image(other)]
    result = inpainted(forge, KEEP, **WHOLE, init_images=both, batch_size=2, mask_blur=4)
    outside = ~inside((256, 256))
    for index, image in enumerate((woman(), other)):
        assert np.array_equal(pixels(result, index)[outside], original((256, 256), image)[outside])


@pytest.mark.both_hosts
def test_off_is_as_without_and_inside_a_hard_mask_nothing_differs(forge: ForgeServer) -> None:
    without = pixels(inpainted(forge, None, **SETTLED))
    off = pixels(inpainted(forge, KEEP | {"keep_outside_mask": False}, **SETTLED))
    assert np.array_equal(off, without)
    assert np.array_equal(pixels(inpainted(forge, KEEP, **SETTLED)), without)
    blurred = SETTLED | {"mask_blur": 4, "inpaint_full_res_padding": 16}
    off_blurred = inpainted(forge, KEEP | {"keep_outside_mask": False}, **blurred)
    assert difference(pixels(off_blurred), pixels(inpainted(forge, KEEP, **blurred))) > 0


@pytest.mark.both_hosts
def test_the_reference_is_cropped_to_the_region_that_is_sampled(forge: ForgeServer) -> None:
    """The same picture, bit for bit, as with the cropped picture given by hand."""
    sized = KEEP | {"sizing": "to output"}
    by_hand = woman().crop(BOX).resize((256, 256), Image.Resampling.LANCZOS)
    expected = pixels(inpainted(forge, sized | {"image1": encode_image(by_hand)}, **SETTLED))
    as_init = inpainted(forge, sized | {"init_image_as_reference": True}, **SETTLED)
    assert np.array_equal(pixels(as_init), expected)
    same_picture = inpainted(forge, sized | {"image2": woman_base64()}, **SETTLED)
    assert np.array_equal(pixels(same_picture), expected)
    for result in (as_init, same_picture):
        assert "cropped to the same region" in notes(result)
        assert "Kontext image crop: 304×304 at 96 128" in result.infotext
    whole = inpainted(forge, sized | {"keep_outside_mask": False, "init_image_as_reference": True}, **SETTLED)
    assert difference(pixels(whole)[inside((512, 512))], expected[inside((512, 512))]) > 0.5
    assert "cropped" not in notes(whole) + whole.infotext


@pytest.mark.both_hosts
def test_another_picture_and_the_whole_picture_mode_crop_nothing(forge: ForgeServer) -> None:
    settings = {"image1": encode_image(cat()), "sizing": "to output"}
    kept = inpainted(forge, KEEP | settings, **SETTLED)
    today = inpainted(forge, KEEP | settings | {"keep_outside_mask": False}, **SETTLED)
    assert np.array_equal(pixels(kept), pixels(today))
    whole = inpainted(forge, KEEP | {"init_image_as_reference": True, "sizing": "no change"}, **WHOLE)
    assert first_pass(whole)["reference_tokens"] == [32 * 32]
    for result in (kept, whole):
        assert "cropped" not in notes(result) + result.infotext


def test_a_large_init_image_is_no_obstacle_where_only_a_region_is_the_reference(forge: ForgeServer) -> None:
    large = Image.new("RGB", (3200, 2600), (90, 120, 60))
    settings = KEEP | {"init_image_as_reference": True, "sizing": "no change"}
    payload = {"mask": encode_image(mask(large.size, (1000, 1000, 1300, 1300))), "steps": 2}
    result = inpainted(forge, settings, large, **ONLY_MASKED, **payload)
    assert first_pass(result)["reference_tokens"] == [256]
    refused = forge.img2img(large, **kontext(settings), **WHOLE, **payload)
    assert refused.status == 422


@pytest.mark.both_hosts
@pytest.mark.parametrize(
    "options",
    [
        {"overlay_inpaint": False},
        {"img2img_color_correction": True},
        pytest.param({"img2img_inpaint_precise_mask": True}, marks=pytest.mark.neo_only),
    ],
    ids=lambda options: next(iter(options)),
)
@pytest.mark.parametrize("area", [WHOLE, ONLY_MASKED], ids=["whole picture", "only masked"])
def test_forges_own_options_of_inpainting_do_not_undo_it(
    forge: ForgeServer, choose: Callable[[dict[str, Any]], None], area: dict[str, Any], options: dict[str, Any]
) -> None:
    choose(options)
    result = inpainted(forge, KEEP, **area, mask_blur=4)
    size = (512, 512) if area is ONLY_MASKED else (256, 256)
    made_anew = inside(size)
    assert np.array_equal(pixels(result)[~made_anew], original(size)[~made_anew])
    assert difference(pixels(result)[made_anew], original(size)[made_anew]) > 5
    assert report(result)["notes"] == []


@pytest.mark.both_hosts
def test_soft_inpainting_keeps_outside_too_and_the_report_says_what_was_lost(forge: ForgeServer) -> None:
    soft = {"Soft Inpainting": {"args": [True, 1, 0.5, 4, 0, 0.5, 2]}}
    alone = inpainted(forge, None, **WHOLE, alwayson_scripts=soft)
    result = inpainted(forge, KEEP, **WHOLE, alwayson_scripts=soft)
    made_anew = inside((256, 256))
    assert np.array_equal(pixels(result)[~made_anew], original((256, 256))[~made_anew])
    assert difference(pixels(result)[made_anew], original((256, 256))[made_anew]) > 5
    assert difference(pixels(result)[made_anew], pixels(alone)[made_anew]) > 1
    assert "Soft inpainting" in notes(result)


@pytest.mark.both_hosts
@pytest.mark.parametrize("area", [WHOLE, ONLY_MASKED], ids=["whole picture", "only masked"])
def test_what_an_overlay_after_ours_has_changed_is_put_back(forge: ForgeServer, area: dict[str, Any]) -> None:
    without_overlay = {"prompt": "a lighthouse without overlay", "mask_blur": 4}
    size = (512, 512) if area is ONLY_MASKED else (256, 256)
    made_anew = inside(size)
    changed = pixels(inpainted(forge, None, **area, **without_overlay))
    assert not np.array_equal(changed[~made_anew], original(size)[~made_anew])
    result = inpainted(forge, KEEP, **area, **without_overlay)
    assert np.array_equal(pixels(result)[~made_anew], original(size)[~made_anew])
    assert "the original was put back" in notes(result)


@pytest.mark.both_hosts
def test_without_a_mask_it_does_nothing_and_says_so(forge: ForgeServer) -> None:
    plain = pixels(made(forge))
    result = made(forge, KEEP)
    assert np.array_equal(pixels(result), plain)
    assert "there is no mask" in notes(result)
    no_mask = forge.img2img(woman(), **kontext(KEEP))
    assert no_mask.status == 200
    assert "there is no mask" in notes(no_mask)
    blank = encode_image(Image.new("L", (512, 512), 0))
    assert "there is no mask" in notes(inpainted(forge, KEEP, **ONLY_MASKED, mask=blank))
    again = made(forge)  # nothing is left of it
    assert np.array_equal(pixels(again), plain)
    assert "Kontext" not in again.infotext


@pytest.mark.neo_only
def test_the_init_image_that_neo_gives_itself_is_there_once_and_cropped(neo_kontext: ForgeServer) -> None:
    settings = KEEP | {"init_image_as_reference": True}
    result = inpainted(neo_kontext, settings, **ONLY_MASKED, denoising_strength=1.0)
    sampling = first_pass(result)
    assert sampling["host_references"] == len(sampling["reference_tokens"]) >= 1
    assert sampling["reference_tokens"][0] == sampling["image_tokens"]
    assert "not there twice" in notes(result)
    outside = ~inside((512, 512))
    assert np.array_equal(pixels(result)[outside], original((512, 512))[outside])
