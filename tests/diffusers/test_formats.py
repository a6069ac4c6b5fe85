"""Every format of the transformer that the diffusers host loads, with two references, every cache and a LoRA.

A random transformer 256 wide, because K-quants have blocks of 256 weights; text encoders and VAE are the small model's.
Each case says by ``record_property`` what the matrix in ``docs/formats.md`` has of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lib_fluxkontext.hosts.diffusers.loader import load_pipeline
from lib_fluxkontext.hosts.diffusers.pipeline import Generated, generate
from lib_fluxkontext.images.decode import Reference
from lib_fluxkontext.job import Job
from lib_fluxkontext.settings import PRESETS, KontextSettings
from tests.support.convert_files import base_folder
from tests.support.payloads import difference
from tests.support.quantised import to_four_bit, to_scaled_fp8, write_gguf
from tests.support.random_models import Weights, flux_transformer

pytestmark = pytest.mark.slow

SIDE, STEPS = 64, 4
CONFIG = {"num_attention_heads": 4, "attention_head_dim": 64, "axes_dims_rope": [16, 24, 24]}
FAST = {**PRESETS["Fast"], "cache_threshold": 1.0}
"""*Fast*, at a threshold that random weights reach."""


def cast_to(dtype: torch.dtype) -> Callable[[Path], None]:
    """Return what writes the weights in another number format."""
    return lambda path: save_file({name: weight.to(dtype) for name, weight in flux_transformer().items()}, path)


def made_by(change: Callable[[Weights], Weights]) -> Callable[[Path], None]:
    """Return what writes quantised weights."""
    return lambda path: save_file(change(flux_transformer()), path)


def as_gguf(kind: str) -> Callable[[Path], None]:
    """Return what writes a GGUF file."""
    return lambda path: write_gguf(path, flux_transformer(), kind)


GGUF = ("F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "Q3_K", "Q2_K")
FORMATS: dict[str, Callable[[Path], None]] = {
    "FP32": cast_to(torch.float32),
    "FP16": cast_to(torch.float16),
    "BF16": cast_to(torch.bfloat16),
    "FP8 e4m3fn": cast_to(torch.float8_e4m3fn),
    "FP8 e5m2": cast_to(torch.float8_e5m2),
    "scaled FP8": made_by(to_scaled_fp8),
    **{f"GGUF {kind}": as_gguf(kind) for kind in GGUF},
    "NF4": made_by(partial(to_four_bit, kind="nf4")),
    "FP4": made_by(partial(to_four_bit, kind="fp4")),
}
"""As the checkpoint line calls them → what writes one."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model's folder, with a transformer that is 256 wide."""
    layers = {"num_layers": 2, "num_single_layers": 4}
    return base_folder(tmp_path_factory.mktemp("base") / "model", {**CONFIG, **layers})


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA for two layers, under diffusers' names."""
    draw, path = torch.Generator().manual_seed(0), tmp_path_factory.mktemp("lora") / "lora.safetensors"
    weights = {}
    for layer in ("transformer_blocks.0.attn.to_q", "single_transformer_blocks.3.attn.to_v"):
        weights[f"transformer.{layer}.lora_A.weight"] = torch.randn(4, 256, generator=draw) / 16
        weights[f"transformer.{layer}.lora_B.weight"] = torch.randn(256, 4, generator=draw) / 2
    save_file(weights, path)
    return path


def made(pipeline: Any, references: list[Reference], **settings: Any) -> Generated:
    job = Job("a house", SIDE, SIDE, steps=STEPS, seed=11)
    chosen = {"cache": False, "sizing": "to output", **settings}
    return generate(pipeline, job, references, KontextSettings.from_mapping(chosen))


def pixels(generated: Generated) -> np.ndarray:
    return np.asarray(generated.image).astype(int)


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_takes_references_caches_and_a_lora(
    woman: Reference,
    cat: Reference,
    base: Path,
    lora: Path,
    name: str,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    for key, value in {"host": "diffusers host", "format": name, "lora": True}.items():
        record_property(key, value)
    file = tmp_path / f"flux.{'gguf' if name.startswith('GGUF') else 'safetensors'}"
    FORMATS[name](file)
    pipeline, both = load_pipeline(file, base, device="cpu"), [woman, cat]
    pipeline.set_progress_bar_config(disable=True)

    plain, every = pixels(made(pipeline, [])), pixels(made(pipeline, both))
    assert difference(every, plain) > 0.2
    assert np.array_equal(pixels(made(pipeline, both, cache=True, cache_threshold=1e-9, reference_refresh=1)), every)
    kept = made(pipeline, both, reference_refresh=3)
    assert [step.kind for step in kept.report.passes[0].steps] == ["computed", "kept", "kept", "computed"]
    assert 0 < difference(pixels(kept), every) < difference(plain, every)
    assert made(pipeline, both, **FAST).report.reused_steps > 0

    pipeline.load_lora_weights(str(lora))
    assert difference(pixels(made(pipeline, both)), every) > 0.1
    pipeline.unload_lora_weights()
    assert np.array_equal(pixels(made(pipeline, [])), plain)
