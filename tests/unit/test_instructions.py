"""Every instruction of the small model is understood, and its exact answer changes its region and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tools.small_kontext.instructions import EDITS, KINDS, PHRASINGS, all_phrasings, of_kind, parse
from tools.small_kontext.targets import edited_region, example, fit, target

SIZE = (96, 64)


def picture(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """A picture of which no two parts are alike."""
    return Image.fromarray(np.random.default_rng(seed).integers(20, 200, (size[1], size[0], 3), np.uint8))


@pytest.mark.parametrize("kind", PHRASINGS)
def test_every_phrasing_is_read_as_its_instruction(kind: str) -> None:
    assert parse(kind) == of_kind(kind)[0]
    for instruction in of_kind(kind):
        for phrasing in instruction.phrasings():
            unsaid = replace(instruction, place="") if kind in ("remove", "repaint") else instruction
            read = parse(f" {phrasing.capitalize()}. ")
            assert (replace(read, place="") if kind in ("remove", "repaint") else read) == unsaid


def test_nothing_else_is_an_instruction() -> None:
    with pytest.raises(ValueError, match="not an instruction"):
        parse("make it nice")
    assert len(all_phrasings()) == len(set(all_phrasings()))


@pytest.mark.parametrize("kind", EDITS)
def test_an_edit_changes_its_region_alone(kind: str) -> None:
    first, second = picture(1), picture(2)
    for instruction in of_kind(kind):
        shown = example(instruction, first, second, SIZE)
        given, answer = np.asarray(shown.references[0]), np.asarray(shown.target)
        changed = (given != answer).any(-1)
        assert not changed[~shown.region].any()
        assert changed[shown.region].mean() > 0.5, instruction
        assert np.array_equal(shown.region, edited_region(instruction, SIZE))


@pytest.mark.parametrize("kind", ["remove", "repaint"])
def test_an_object_is_drawn_into_the_reference_at_its_own_size(kind: str) -> None:
    first = picture(1, (192, 128))
    shown = example(of_kind(kind)[0], first, None, SIZE)
    reference = shown.references[0]
    assert reference is not None
    assert reference.size == first.size
    assert (np.asarray(reference) != np.asarray(first)).any()
    assert shown.references[1] is None
    if kind == "remove":
        assert np.array_equal(np.asarray(shown.target), np.asarray(fit(first, SIZE)))


@pytest.mark.parametrize("kind", KINDS)
def test_copying_has_no_edited_region(kind: str) -> None:
    first, second = picture(1), picture(2)
    shown = example(of_kind(kind)[0], first, second, SIZE)
    assert not shown.region.any()
    assert np.array_equal(np.asarray(shown.target), np.asarray(target(kind, first, second, SIZE)))
    halves = np.asarray(shown.target)[:, :48], np.asarray(shown.target)[:, 48:]
    whole = {"first": first, "second": second}.get(kind)
    if whole is not None:
        assert np.array_equal(np.asarray(shown.target), np.asarray(whole))
    else:
        left, right = (first, second) if kind == "left_right" else (second, first)
        assert np.array_equal(halves[0], np.asarray(fit(left, (48, 64))))
        assert np.array_equal(halves[1], np.asarray(fit(right, (48, 64))))


@pytest.mark.slow
def test_the_encoders_first_levels_are_one_matrix_and_its_latents_are_local() -> None:
    import torch

    from tools.small_kontext.data import to_array
    from tools.small_kontext.pictures import PictureSource
    from tools.small_kontext.vae import build_vae, features_of, latents_of

    torch.manual_seed(0)
    source = PictureSource(0, drawn=5)
    vae = build_vae(source).eval()
    pixels = torch.from_numpy(np.stack([to_array(source.picture((128, 128))) for _ in range(4)]))
    with torch.inference_mode():
        features = features_of(vae)
        whole = latents_of(vae, features, pixels)
        assert torch.allclose(whole, vae.encode(pixels).latent_dist.mean, atol=1e-4)
        quarter = latents_of(vae, features, pixels[:, :, :64, :64])
    inner = slice(0, 6)  # what lies within two convolutions of the cut differs
    difference = (whole[:, :, inner, inner] - quarter[:, :, inner, inner]).std() / quarter.std()
    assert difference < 0.1
