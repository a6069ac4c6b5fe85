"""The names of the small checkpoints; they are built once, by Forge's own Python.

This module can be imported without PyTorch; the weights are made by
:mod:`tests.support.checkpoints`, which runs as a subprocess.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from filelock import FileLock

from tests.support.forge_install import REPO_ROOT

VERSION = 1
"""Part of the cache folder's name: raise it whenever :mod:`tests.support.checkpoints` writes different files."""

FLUX = "small-flux.safetensors"
FLUX_BF16 = "small-flux-bf16.safetensors"
FLUX_FP8 = "small-flux-fp8.safetensors"
FLUX_NF4 = "small-flux-nf4.safetensors"
FLUX_GGUF = "small-flux-q8.gguf"
FLUX_Q6_K = "small-flux-q6-k.gguf"
FLUX_Q5_K = "small-flux-q5-k.gguf"
FLUX_Q4_K = "small-flux-q4-k.gguf"
FLUX_Q4_0 = "small-flux-q4-0.gguf"
FLUX_FP16 = "small-flux-fp16.safetensors"
FLUX_E5M2 = "small-flux-fp8-e5m2.safetensors"
FLUX_FP4 = "small-flux-fp4.safetensors"
FLUX_ALONE = "small-flux-transformer.safetensors"
FLUX_GGUF_F16 = "small-flux-gguf-f16.gguf"
FLUX_GGUF_BF16 = "small-flux-gguf-bf16.gguf"
FLUX_Q5_1 = "small-flux-q5-1.gguf"
FLUX_Q5_0 = "small-flux-q5-0.gguf"
FLUX_Q4_1 = "small-flux-q4-1.gguf"
FLUX_Q3_K = "small-flux-q3-k.gguf"
FLUX_Q2_K = "small-flux-q2-k.gguf"
FLUX_SCALED_FP8 = "small-flux-fp8-scaled.safetensors"
FLUX_SCHNELL = "small-flux-schnell.safetensors"
FLUX_SMOOTH = "small-flux-smooth.safetensors"
FLUX_140M = "flux-140m.safetensors"
FLUX_KONTEXT = "small-flux-kontext.safetensors"
FLUX_140M_KONTEXT = "flux-140m-kontext.safetensors"
SD15 = "small-sd15.safetensors"
MODULE_VAE = "small-vae.safetensors"
MODULE_CLIP = "small-clip-l.safetensors"
MODULE_T5 = "small-t5.safetensors"
MODULE_T5_FP16 = "small-t5-fp16.safetensors"
MODULE_T5_FP8 = "small-t5-fp8.safetensors"
MODULE_T5_GGUF = "small-t5-q8.gguf"
LORA = "small-lora.safetensors"

GGUF_MODULES = [MODULE_VAE, MODULE_CLIP, MODULE_T5]
"""The modules that a transformer-only checkpoint needs in Forge's "VAE / Text Encoder" list."""

FOLDERS = {
    FLUX: "Stable-diffusion",
    FLUX_BF16: "Stable-diffusion",
    FLUX_FP8: "Stable-diffusion",
    FLUX_NF4: "Stable-diffusion",
    FLUX_GGUF: "Stable-diffusion",
    FLUX_Q6_K: "Stable-diffusion",
    FLUX_Q5_K: "Stable-diffusion",
    FLUX_Q4_K: "Stable-diffusion",
    FLUX_Q4_0: "Stable-diffusion",
    FLUX_FP16: "Stable-diffusion",
    FLUX_E5M2: "Stable-diffusion",
    FLUX_FP4: "Stable-diffusion",
    FLUX_ALONE: "Stable-diffusion",
    FLUX_GGUF_F16: "Stable-diffusion",
    FLUX_GGUF_BF16: "Stable-diffusion",
    FLUX_Q5_1: "Stable-diffusion",
    FLUX_Q5_0: "Stable-diffusion",
    FLUX_Q4_1: "Stable-diffusion",
    FLUX_Q3_K: "Stable-diffusion",
    FLUX_Q2_K: "Stable-diffusion",
    FLUX_SCALED_FP8: "Stable-diffusion",
    FLUX_SCHNELL: "Stable-diffusion",
    FLUX_SMOOTH: "Stable-diffusion",
    SD15: "Stable-diffusion",
    FLUX_140M: "Stable-diffusion",
    MODULE_VAE: "VAE",
    MODULE_CLIP: "text_encoder",
    MODULE_T5: "text_encoder",
    MODULE_T5_FP16: "text_encoder",
    MODULE_T5_FP8: "text_encoder",
    MODULE_T5_GGUF: "text_encoder",
    LORA: "Lora",
}
"""The folder of Forge's ``models`` each file belongs to."""

ALIASES = {FLUX_KONTEXT: FLUX, FLUX_140M_KONTEXT: FLUX_140M}
"""Checkpoints under a second name: Neo takes a file for Kontext by its name, and appends references of its own."""

ON_REQUEST = {FLUX_140M}
"""Files that are built only when they are asked for by name."""


def cache_folder() -> Path:
    """Return the folder that keeps built checkpoints between test runs."""
    base = os.environ.get("FLUX_KONTEXT_TEST_CACHE")
    folder = Path(base) if base else Path(tempfile.gettempdir()) / "flux-kontext-test-models"
    return folder / f"v{VERSION}"


def checkpoint_path(name: str) -> Path:
    """Return where the file with this name is kept."""
    return cache_folder() / FOLDERS[name] / name


def ensure_checkpoints(python: Path, names: list[str] | None = None) -> Path:
    """Build the named files (by default all but the large one) that are missing.

    ``python`` is an interpreter that has torch and safetensors, which Forge's own has. Returns the
    folder, laid out like Forge's ``models``.
    """
    wanted = [name for name in FOLDERS if name not in ON_REQUEST] if names is None else names
    cache_folder().mkdir(parents=True, exist_ok=True)
    with FileLock(cache_folder() / "building.lock"):  # two test processes may ask at once
        missing = [name for name in wanted if not checkpoint_path(name).exists()]
        if missing:
            command = [str(python), "-m", "tests.support.checkpoints", str(cache_folder()), *missing]
            environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
            done = subprocess.run(command, cwd=REPO_ROOT, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"building the test checkpoints failed:\n{done.stderr[-3000:]}")
    return cache_folder()
