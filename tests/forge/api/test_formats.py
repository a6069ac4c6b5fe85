"""Every format of the transformer that a WebUI loads, with two references, every cache and a LoRA; what its *Diffusion
in Low Bits* makes of one; and text encoders and VAE in files of their own.

Each case says by ``record_property`` what the matrix in ``docs/formats.md`` has of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lib_fluxkontext.settings import PRESETS
from tests.support import checkpoint_files as files
from tests.support.forge_server import ForgeServer
from tests.support.host_modules import require_bitsandbytes
from tests.support.payloads import difference, made, pixels, report, step_kinds, two_references
from tests.support.selection import ONLINE, selected

pytestmark = pytest.mark.both_hosts

SMALL: dict[str, Any] = {"steps": 4, "width": 128, "height": 128, "seed": 11, "prompt": "a house"}
WITH_LORA = {"prompt": f"a house <lora:{files.LORA.removesuffix('.safetensors')}:1>"}
FAST = {**PRESETS["Fast"], "cache": True, "cache_threshold": 1.0, "cache_compute_last": False}
"""*Fast*, at a threshold that random weights reach."""

ONLINE_FP8 = "float8-e4m3fn (fp16 LoRA)"
"""For scaled FP8: Forge stores it in 16 bits otherwise, and then merges a LoRA whatever was chosen."""

NO_LORA_ON_CPU = {files.FLUX_NF4, files.FLUX_FP4}
"""Forge dequantises bitsandbytes' weights for a LoRA on CUDA alone."""

FORMATS = {
    "FP32": files.FLUX,
    "FP16": files.FLUX_FP16,
    "BF16": files.FLUX_BF16,
    "FP8 e4m3fn": files.FLUX_FP8,
    "FP8 e5m2": files.FLUX_E5M2,
    "scaled FP8": files.FLUX_SCALED_FP8,
    "GGUF F16": files.FLUX_GGUF_F16,
    "GGUF BF16": files.FLUX_GGUF_BF16,
    "GGUF Q8_0": files.FLUX_GGUF,
    "GGUF Q6_K": files.FLUX_Q6_K,
    "GGUF Q5_K": files.FLUX_Q5_K,
    "GGUF Q5_1": files.FLUX_Q5_1,
    "GGUF Q5_0": files.FLUX_Q5_0,
    "GGUF Q4_K": files.FLUX_Q4_K,
    "GGUF Q4_1": files.FLUX_Q4_1,
    "GGUF Q4_0": files.FLUX_Q4_0,
    "GGUF Q3_K": files.FLUX_Q3_K,
    "GGUF Q2_K": files.FLUX_Q2_K,
    "NF4": files.FLUX_NF4,
    "FP4": files.FLUX_FP4,
}
"""As the checkpoint line calls them → file."""

NEEDS_BITSANDBYTES = {files.FLUX_NF4, files.FLUX_FP4}

Recorder = Callable[[str, object], None]


def say(record_property: Recorder, forge: ForgeServer, **properties: object) -> None:
    """Record what a case is about, before it can fail."""
    for name, value in {"host": forge.host.title, **properties}.items():
        record_property(name, value)


def prove(forge: ForgeServer, lora: bool) -> None:
    """Generate with the selected checkpoint in every way that the matrix names."""
    plain = pixels(made(forge, **SMALL))
    every = pixels(made(forge, two_references(), **SMALL))
    assert plain.std() > 5  # a picture, not a grey square
    assert difference(every, plain) > 0.2
    deciding = two_references(cache=True, cache_threshold=1e-9, reference_refresh=1)
    assert np.array_equal(pixels(made(forge, deciding, **SMALL)), every)
    kept = made(forge, two_references(reference_refresh=3), **SMALL)
    assert step_kinds(kept) == ["computed", "kept", "kept", "computed"]
    assert 0 < difference(pixels(kept), every) < difference(plain, every)
    assert report(made(forge, two_references(**FAST), **SMALL))["reused_steps"] > 0
    if lora:
        adapted = made(forge, two_references(reference_refresh=3), **SMALL | WITH_LORA)
        assert step_kinds(adapted) == step_kinds(kept)
        assert difference(pixels(adapted), pixels(kept)) > 0.1
    assert np.array_equal(pixels(made(forge, **SMALL)), plain)


@pytest.mark.parametrize(
    "name",
    # Neo takes FP4 for an unpacked checkpoint; the panel says so from the header.
    [pytest.param(name, marks=[pytest.mark.forge_only] if name == "FP4" else []) for name in FORMATS],
)
def test_a_format_takes_references_caches_and_a_lora(forge: ForgeServer, name: str, record_property: Recorder) -> None:
    checkpoint = FORMATS[name]
    lora = checkpoint not in NO_LORA_ON_CPU
    say(record_property, forge, format=name, lora=lora)
    if checkpoint in NEEDS_BITSANDBYTES:
        require_bitsandbytes(forge.host)
    log = len(forge.log_text())
    # Forge cannot merge a LoRA into K-quants, Q4_1, Q5_1 and BF16 of GGUF, and loses one merged into scaled FP8.
    with selected(forge, checkpoint, ONLINE_FP8 if checkpoint == files.FLUX_SCALED_FP8 else ONLINE):
        prove(forge, lora)
    if checkpoint == files.FLUX_SCALED_FP8 and forge.host.name == "neo":
        assert "computation: Mixed" in forge.log_text()[log:]


LOW_BITS = ["float8-e4m3fn", "float8-e5m2"]
"""bnb-nf4 and bnb-fp4 pack weights as they move to a card; on the CPU the first step fails for want of their state."""


@pytest.mark.parametrize("online", [False, True], ids=["merged LoRA", "fp16 LoRA"])
@pytest.mark.parametrize("kind", LOW_BITS)
def test_diffusion_in_low_bits_takes_references_caches_and_a_lora(
    forge: ForgeServer, kind: str, online: bool, record_property: Recorder
) -> None:
    choice = f"{kind} (fp16 LoRA)" if online else kind
    say(record_property, forge, low_bits=choice, lora=True)
    with selected(forge, files.FLUX_BF16, choice):
        prove(forge, lora=True)


@pytest.mark.parametrize("t5", [files.MODULE_T5, files.MODULE_T5_FP16, files.MODULE_T5_FP8, files.MODULE_T5_GGUF])
def test_a_transformer_alone_takes_its_other_parts_from_their_files(
    forge: ForgeServer, t5: str, record_property: Recorder
) -> None:
    say(record_property, forge, text_encoder=t5)
    with selected(forge, files.FLUX_ALONE, modules=[files.MODULE_VAE, files.MODULE_CLIP, t5]):
        plain = pixels(made(forge, **SMALL))
        referenced = pixels(made(forge, two_references(), **SMALL))
    assert plain.std() > 5
    assert difference(referenced, plain) > 0.5
