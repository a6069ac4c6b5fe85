"""Pictures, instructions and exact targets for the small FLUX Kontext model.

The task: a canvas is filled from one or two reference pictures, and the instruction decides how.
``target`` is the exact answer; training, the evaluation and the tests all use it.

Pictures for training (``pictures``) are crops of photographs that scikit-image and scikit-learn ship, and drawn ones
(dead leaves, polygons, gradients, noise, stripes). The photographs in ``HELD_OUT`` are never trained on.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

KINDS = ("left_right", "swap", "first", "second")
"""What an instruction can ask for, in the order used everywhere."""

PHRASINGS: dict[str, tuple[str, ...]] = {
    "left_right": (
        "put the first picture on the left and the second on the right",
        "place the first image on the left and the second image on the right",
        "first picture on the left, second picture on the right",
        "the first on the left, the second on the right",
        "put both pictures side by side",
        "side by side",
        "combine the two images side by side in order",
        "left: first picture. right: second picture.",
    ),
    "swap": (
        "put the second picture on the left and the first on the right",
        "place the second image on the left and the first image on the right",
        "second picture on the left, first picture on the right",
        "the second on the left, the first on the right",
        "put both pictures side by side and swap them",
        "side by side, swapped",
        "combine the two images side by side in reverse order",
        "left: second picture. right: first picture.",
    ),
    "first": (
        "show only the first picture",
        "show the first picture alone",
        "only the first image",
        "keep the first image and drop the second",
        "the first picture alone",
        "the first alone",
        "just the first picture",
        "fill the canvas with the first picture",
    ),
    "second": (
        "show only the second picture",
        "show the second picture alone",
        "only the second image",
        "keep the second image and drop the first",
        "the second picture alone",
        "the second alone",
        "just the second picture",
        "fill the canvas with the second picture",
    ),
}
"""Every phrasing that the model was trained on, by kind; the first of each is used in the evaluation."""

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

GREY = (128, 128, 128)
"""What stands where a picture is missing."""


def kind_of(instruction: str) -> str:
    """Return the kind of an instruction, given as a kind's name or as one of its phrasings.

    Raises:
        ValueError: when it is neither.
    """
    wanted = instruction.strip().lower().rstrip(".")
    if wanted in KINDS:
        return wanted
    for kind, phrasings in PHRASINGS.items():
        if wanted in (phrase.rstrip(".") for phrase in phrasings):
            return kind
    raise ValueError(f"not an instruction of this model: {instruction!r}")


def fit(picture: Image.Image | None, size: tuple[int, int]) -> Image.Image:
    """Crop the centre of ``picture`` to the aspect of ``size`` (width, height) and resize it there.

    The crop is the largest centred box of that aspect, with real-valued edges; the resize is Pillow's
    bicubic with that box, so a picture that already has the wanted scale is only cut. A missing picture
    gives mid-grey.
    """
    if picture is None:
        return Image.new("RGB", size, GREY)
    picture = picture.convert("RGB")
    width, height = picture.size
    scale = min(width / size[0], height / size[1])
    half_w, half_h = size[0] * scale / 2, size[1] * scale / 2
    box = (width / 2 - half_w, height / 2 - half_h, width / 2 + half_w, height / 2 + half_h)
    box = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height)))
    return picture.resize(size, Image.Resampling.BICUBIC, box=box)


def target(
    instruction: str, image1: Image.Image | None, image2: Image.Image | None, size: tuple[int, int]
) -> Image.Image:
    """Return the exact answer to ``instruction`` on a canvas of ``size`` (width, height).

    ``left_right``: the left half is ``fit(image1)``, the right half ``fit(image2)``.
    ``swap``: the other way round. ``first`` / ``second``: the whole canvas is ``fit`` of that
    picture. Halves are ``width // 2`` wide.
    """
    kind = kind_of(instruction)
    if kind == "first":
        return fit(image1, size)
    if kind == "second":
        return fit(image2, size)
    left, right = (image1, image2) if kind == "left_right" else (image2, image1)
    width, height = size
    canvas = Image.new("RGB", size, GREY)
    canvas.paste(fit(left, (width // 2, height)), (0, 0))
    canvas.paste(fit(right, (width - width // 2, height)), (width // 2, 0))
    return canvas


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


def held_out_pairs(size: tuple[int, int] = (96, 96)) -> list[tuple[str, Image.Image, Image.Image]]:
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
