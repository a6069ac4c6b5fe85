"""The small trained model, loaded once, and two photographs that it was not trained on."""

from __future__ import annotations

from typing import Any

import pytest

from lib_fluxkontext.hosts.diffusers.loader import load_pipeline
from lib_fluxkontext.images.decode import Reference, decode_reference
from tests.support import photos

SIDE = 128


@pytest.fixture(scope="session")
def pipeline() -> Any:
    """diffusers' ``FluxKontextPipeline`` of the small model on the CPU."""
    loaded = load_pipeline(device="cpu")
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="session")
def woman() -> Reference:
    """The woman's centre square."""
    return decode_reference(photos.square(photos.woman(), SIDE), "image1")


@pytest.fixture(scope="session")
def cat() -> Reference:
    """The cat's centre square."""
    return decode_reference(photos.square(photos.cat(), SIDE), "image2")
