"""Files that ``convert`` makes load in a WebUI, and give the picture of another library's quantisation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_fluxkontext.convert.keys import to_bfl
from tests.support import checkpoint_files as files
from tests.support.convert_files import convert, small_weights
from tests.support.forge_server import ForgeServer
from tests.support.host_modules import require_bitsandbytes
from tests.support.payloads import difference, made, pixels, two_references
from tests.support.random_models import flux_transformer
from tests.support.reference_quantisation import REFERENCES, Weights, quantised

KINDS = ("Q8_0", "Q5_0", "Q4_0", "nf4", "fp8")
MODULES = [files.MODULE_VAE, files.MODULE_CLIP, files.MODULE_T5]
SMALL = {"steps": 4, "width": 128, "height": 128, "seed": 11, "prompt": "a house"}
CLIP_WIDTH = 768


def for_clip_l(weights: Weights) -> Weights:
    """Return weights in float32, of a transformer that takes CLIP's vector of 768: what it has no columns for is 0."""
    name = "vector_in.in_layer.weight"
    missing = CLIP_WIDTH - weights[name].shape[1]
    widened = torch.nn.functional.pad(weights[name], (0, missing))
    return {key: tensor.float().contiguous() for key, tensor in (weights | {name: widened}).items()}


@contextmanager
def checkpoints(forge: ForgeServer) -> Iterator[Path]:
    """Return the server's folder of checkpoints, and take away again what is put there."""
    folder = forge.data / "models" / "Stable-diffusion"
    before = set(folder.iterdir())
    try:
        yield folder
    finally:
        forge.select(files.FLUX)
        for path in set(folder.iterdir()) - before:
            path.unlink()
        forge.post("/sdapi/v1/refresh-checkpoints", {})


@dataclass
class Exact:
    """A model that is converted: its weights, their file, and its picture."""

    weights: Weights
    file: Path
    picture: np.ndarray


@contextmanager
def exact(forge: ForgeServer, name: str, weights: Weights) -> Iterator[Exact]:
    """Save a model, and make its picture."""
    with checkpoints(forge) as folder:
        file = folder / f"exact-{name}.safetensors"
        save_file(weights, file)
        yield Exact(weights, file, picture(forge, file))


@pytest.fixture(scope="module")
def small_trained_model(forge: ForgeServer) -> Iterator[Exact]:
    """The transformer of the small trained model, in the original layout."""
    with exact(forge, "small", for_clip_l(to_bfl(small_weights()))) as model:
        yield model


@pytest.fixture(scope="module")
def model_of_140_million(forge: ForgeServer) -> Iterator[Exact]:
    """A random one of 140 million parameters."""
    weights = for_clip_l(flux_transformer(hidden=512, depth=8, depth_single=16, head_dim=128))
    with exact(forge, "140m", weights) as model:
        yield model


def picture(forge: ForgeServer, path: Path) -> np.ndarray:
    """Make a picture with two references, by a transformer in a file of its own."""
    forge.post("/sdapi/v1/refresh-checkpoints", {})
    forge.select(path.name, MODULES)
    return pixels(made(forge, two_references(), **SMALL))


def compare(forge: ForgeServer, model: Exact, kind: str) -> None:
    """Compare a converted file's picture with that of the reference quantisation, and both with the exact one."""
    if kind == "nf4":
        require_bitsandbytes(forge.host)
    with checkpoints(forge) as folder:
        wanted = folder / f"wanted-{kind}.safetensors"
        # Both hosts store every weight of a checkpoint that is FP8 for the most part in FP8.
        save_file(quantised(model.weights, kind, everything=True), wanted)
        file = convert(model.file, folder / f"converted-{kind}.{REFERENCES[kind][0]}", kind)
        assert all(torch.isfinite(tensor).all() for tensor in load_file(wanted).values())
        converted, reference = picture(forge, file), picture(forge, wanted)
    assert difference(converted, reference) <= 1
    assert difference(converted, reference) < difference(reference, model.picture) / 2


@pytest.mark.both_hosts
@pytest.mark.parametrize("kind", KINDS)
def test_a_converted_file_of_the_small_model_gives_the_picture_of_the_reference_quantisation(
    forge: ForgeServer, small_trained_model: Exact, kind: str
) -> None:
    compare(forge, small_trained_model, kind)


@pytest.mark.forge_only
@pytest.mark.parametrize("kind", ["Q4_0", "nf4"])  # the others differ in size alone from the small model's
def test_a_converted_file_of_140_million_parameters_gives_the_picture_of_the_reference_quantisation(
    forge: ForgeServer, model_of_140_million: Exact, kind: str
) -> None:
    compare(forge, model_of_140_million, kind)
