"""The photographs that the small FLUX Kontext model is trained and judged on.

Training draws crops of photographs that scikit-image and scikit-learn ship, and drawn pictures (``pictures.py``). The
photographs in ``HELD_OUT`` are never trained on.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

from tools.small_kontext.targets import fit

PACKAGE_PHOTOS: dict[str, tuple[str, ...]] = {
    "coffee": ("skimage", "data/coffee.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "motorcycle_left": ("skimage", "data/motorcycle_left.png"),
    "motorcycle_right": ("skimage", "data/motorcycle_right.png"),
    "retina": ("skimage", "data/retina.jpg"),
    "hubble": ("skimage", "data/hubble_deep_field.jpg"),
    "ihc": ("skimage", "data/ihc.png"),
    "moon": ("skimage", "data/moon.png"),
    "brick": ("skimage", "data/brick.png"),
    "grass": ("skimage", "data/grass.png"),
    "gravel": ("skimage", "data/gravel.png"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "astronaut": ("skimage", "data/astronaut.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "camera": ("skimage", "data/camera.png"),
    "coins": ("skimage", "data/coins.png"),
    "grace_hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    "cheetah1": ("gradio", "test_data/cheetah1.jpg", "media_assets/images/cheetah1.jpg"),
    "cheetah2": ("gradio", "test_data/cheetah2.jpg"),
    "lion": ("gradio", "test_data/lion.jpg", "media_assets/images/lion.jpg"),
}
"""Photographs by name: the Python package that ships it and where inside that package (first found)."""

HELD_OUT = ("astronaut", "chelsea", "camera", "coins", "grace_hopper", "cheetah1", "cheetah2", "lion")
"""Photographs that no training step saw."""


def load_photo(name: str) -> Image.Image | None:
    """Load a photograph of ``PACKAGE_PHOTOS`` as RGB, or None where its package is not installed."""
    package, *places = PACKAGE_PHOTOS[name]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)))
    found = next((folder / place for place in places if (folder / place).is_file()), None)
    return Image.open(found).convert("RGB") if found else None


def photos(held_out: bool) -> dict[str, Image.Image]:
    """Load the held-out photographs, or the ones for training, as far as their packages are installed."""
    names = [name for name in PACKAGE_PHOTOS if (name in HELD_OUT) == held_out]
    loaded = {name: load_photo(name) for name in names}
    return {name: photo for name, photo in loaded.items() if photo is not None}


def held_out_pairs(size: tuple[int, int] = (128, 128)) -> list[tuple[str, Image.Image, Image.Image]]:
    """Return named pairs of held-out photographs, each fitted to ``size``: two pairs for each photograph."""
    loaded = photos(held_out=True)
    names = list(loaded)
    fitted = {name: fit(photo, size) for name, photo in loaded.items()}
    pairs = []
    for step in (1, 3):
        for i, name in enumerate(names):
            other = names[(i + step) % len(names)]
            pairs.append((f"{name}+{other}", fitted[name], fitted[other]))
    return pairs


def to_array(picture: Image.Image) -> np.ndarray:
    """Return an RGB picture as float32 in [-1, 1], channels first."""
    return np.asarray(picture.convert("RGB"), np.float32).transpose(2, 0, 1) / 127.5 - 1


def psnr(first: np.ndarray, second: np.ndarray, peak: float = 2.0) -> float:
    """Return the peak signal-to-noise ratio of two arrays in decibels; ``peak`` is their range."""
    error = float(np.mean((np.asarray(first, np.float64) - np.asarray(second, np.float64)) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(peak**2 / error))
