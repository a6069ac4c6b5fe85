"""The small trained model, loaded once, and photographs it never saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from skimage import data

from lib_fluxkontext.hosts.diffusers.loader import load_pipeline
from lib_fluxkontext.images.decode import Reference, decode_reference

FOLDER = Path(__file__).parent
SIDE = 96


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here loads a model and samples with it."""
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def pipeline() -> Any:
    """diffusers' own ``FluxKontextPipeline`` on the CPU."""
    loaded = load_pipeline(device="cpu")
    loaded.set_progress_bar_config(disable=True)
    return loaded


def square(picture: Any, side: int = SIDE) -> Image.Image:
    """The middle of a photograph."""
    image = Image.fromarray(picture)
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    return image.crop((left, top, left + edge, top + edge)).resize((side, side), Image.Resampling.LANCZOS)


@pytest.fixture(scope="session")
def woman() -> Reference:
    """``data.astronaut()``, held out in training."""
    return decode_reference(square(data.astronaut()), "image1")


@pytest.fixture(scope="session")
def cat() -> Reference:
    """``data.chelsea()``, held out in training."""
    return decode_reference(square(data.chelsea()), "image2")
