"""What a cell of an X/Y/Z plot refuses is seen: from the first by the whole request, from a later one in the grid."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.forge.api.test_xyz import cells, plot
from tests.support import checkpoint_files as files
from tests.support.forge_server import ForgeServer
from tests.support.images import encode_image
from tests.support.payloads import made, pixels, two_references

pytestmark = pytest.mark.both_hosts

THRESHOLDS = ("[Kontext] threshold", "0, 0.65", [])
SIZINGS = ("[Kontext] sizing", "", ["to output", "no change", "fit inside output"])
LARGE = encode_image(Image.new("RGB", (3300, 2500), "grey"))
"""Small enough to be decoded, too large to be used as it is."""


def is_reason(cell: np.ndarray) -> bool:
    """Whether a cell is red writing on white."""
    red, green, blue = (cell[..., channel] for channel in range(3))
    written = (red > green + 60) & (red > blue + 60)
    return bool((cell == 255).all(axis=-1).mean() > 0.5 and written.mean() > 0.01)


def test_what_is_wrong_in_every_cell_refuses_the_request(forge: ForgeServer) -> None:
    before = pixels(made(forge))
    refused = plot(forge, THRESHOLDS, steps=1, image2="a cat on a mat")
    assert refused.status == 422
    assert refused.reply["detail"].startswith("image2: not an image that Pillow can open")
    assert np.array_equal(before, pixels(made(forge)))


def test_a_checkpoint_that_takes_no_references_refuses_the_request(forge: ForgeServer) -> None:
    forge.select(files.SD15)
    try:
        refused = plot(forge, THRESHOLDS, steps=1)
        assert refused.status == 422
        assert "is not FLUX" in refused.reply["detail"]
    finally:
        forge.select(files.FLUX)


def test_a_later_cell_shows_its_reason_and_the_others_are_made(forge: ForgeServer) -> None:
    before = pixels(made(forge))
    first, refused, last = cells(plot(forge, SIZINGS, steps=1, image1=LARGE))
    assert is_reason(refused)
    for sizing, cell in (("to output", first), ("fit inside output", last)):
        alone = made(forge, two_references(image1=LARGE, sizing=sizing), steps=1)
        assert np.array_equal(pixels(alone), cell)
    assert np.array_equal(before, pixels(made(forge)))


def test_a_checkpoint_of_one_cell_shows_its_reason(forge: ForgeServer) -> None:
    try:
        first, refused = cells(plot(forge, ("Checkpoint name", "", [files.FLUX, files.SD15]), steps=1))
    finally:
        forge.select(files.FLUX)
    assert is_reason(refused)
    assert np.array_equal(first, pixels(made(forge, two_references(), steps=1)))
