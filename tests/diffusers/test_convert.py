"""Converted files of the small model make the pictures of the reference quantisation; LoRAs of all trainers merge."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers
from safetensors.torch import load_file, save_file
from torch import Tensor

from lib_fluxkontext.convert.keys import to_bfl, to_diffusers
from lib_fluxkontext.convert.lora import LoraFile
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.hosts.diffusers.loader import SMALL_MODEL, load_pipeline
from lib_fluxkontext.hosts.diffusers.lora_file import read_lora
from lib_fluxkontext.hosts.diffusers.pipeline import generate
from lib_fluxkontext.images.decode import Reference
from lib_fluxkontext.job import Job
from lib_fluxkontext.settings import KontextSettings
from tests.support.convert_files import Weights, base_folder, convert, save_shards, small_weights
from tests.support.quantised import to_scaled_fp8
from tests.support.random_models import flux_transformer
from tests.support.reference_quantisation import REFERENCES, quantised

SIDE = 64


def picture(pipeline: Any, references: list[Reference]) -> np.ndarray:
    """Make a picture, (height, width, 3), 0 to 255."""
    pipeline.set_progress_bar_config(disable=True)
    job = Job("put the first picture on the left and the second on the right", SIDE, SIDE, steps=4, seed=5)
    made = generate(pipeline, job, references, KontextSettings(sizing="no change", cache=False)).image
    return np.asarray(made, np.float64)


def small_weights_in_bfl() -> Weights:
    """Return the small model's transformer in the original layout, in float32."""
    return {name: tensor.float().contiguous() for name, tensor in to_bfl(small_weights()).items()}


def own_pipeline(weights: Weights) -> Any:
    """Return a pipeline of the small model with other weights."""
    loaded = load_pipeline(device="cpu")
    loaded.transformer.load_state_dict(weights)
    return loaded


@pytest.fixture(scope="module")
def exact(pipeline: Any, woman: Reference, cat: Reference) -> np.ndarray:
    """The picture of the small model's own weights."""
    return picture(pipeline, [woman, cat])


@dataclass
class LargeModel:
    """A model of 140 million parameters: its weights and their file, the folder of its other parts, its picture."""

    weights: Weights
    file: Path
    base: Path
    picture: np.ndarray


@pytest.fixture(scope="module")
def large_model(woman: Reference, cat: Reference, tmp_path_factory: pytest.TempPathFactory) -> LargeModel:
    folder = tmp_path_factory.mktemp("large")
    weights = flux_transformer(hidden=512, depth=8, depth_single=16, head_dim=128)
    shape = {"num_layers": 8, "num_single_layers": 16, "num_attention_heads": 4, "attention_head_dim": 128}
    base = base_folder(folder / "base", {**shape, "axes_dims_rope": [16, 56, 56]})
    file = folder / "flux.safetensors"
    save_file(weights, file)
    return LargeModel(weights, file, base, picture(load_pipeline(file, base=base, device="cpu"), [woman, cat]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", REFERENCES)
def test_a_converted_file_makes_the_picture_of_the_reference_quantisation(
    kind: str, woman: Reference, cat: Reference, exact: np.ndarray, tmp_path: Path
) -> None:
    suffix = REFERENCES[kind][0]
    file = convert(SMALL_MODEL, tmp_path / f"kontext.{suffix}", kind)
    made = picture(load_pipeline(file, base=SMALL_MODEL, device="cpu"), [woman, cat])
    wanted = picture(own_pipeline(to_diffusers(quantised(small_weights_in_bfl(), kind))), [woman, cat])
    difference, quantisation = np.abs(made - wanted).mean(), np.abs(wanted - exact).mean()
    assert difference <= 1
    assert quantisation > 0, "this picture would not show a quantisation that is missing"
    assert difference < quantisation / 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Q8_0", "Q5_0", "Q4_0", "nf4", "fp8"])
def test_a_converted_file_of_140_million_parameters_makes_the_picture_of_the_reference_quantisation(
    kind: str, large_model: LargeModel, woman: Reference, cat: Reference, tmp_path: Path
) -> None:
    save_file(quantised(large_model.weights, kind), tmp_path / "wanted.safetensors")
    file = convert(large_model.file, tmp_path / f"flux-140m.{REFERENCES[kind][0]}", kind)
    made, wanted = (
        picture(load_pipeline(path, base=large_model.base, device="cpu"), [woman, cat])
        for path in (file, tmp_path / "wanted.safetensors")
    )
    assert np.abs(made - wanted).mean() <= 1
    assert np.abs(made - wanted).mean() < np.abs(wanted - large_model.picture).mean() / 2


def test_scaled_fp8_is_loaded_with_its_scale(tmp_path: Path) -> None:
    weights = {name: tensor.float() for name, tensor in to_bfl(small_weights()).items()}
    scaled = to_scaled_fp8(weights)
    save_file({name: tensor.contiguous() for name, tensor in scaled.items()}, tmp_path / "scaled.safetensors")
    loaded = load_pipeline(tmp_path / "scaled.safetensors", base=SMALL_MODEL, device="cpu").transformer.state_dict()
    name = "double_blocks.1.txt_mlp.0"
    wanted = scaled[f"{name}.weight"].float() * scaled[f"{name}.scale_weight"]
    assert torch.equal(loaded["transformer_blocks.1.ff_context.net.0.proj.weight"], wanted)


def test_four_bits_without_bitsandbytes_are_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    file = convert(SMALL_MODEL, tmp_path / "nf4.safetensors", "nf4")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(KontextError, match=r"nf4\.safetensors needs bitsandbytes"):
        load_pipeline(file, base=SMALL_MODEL, device="cpu")


def narrow_flux() -> Weights:
    """Return tensors with FLUX.1's names and numbers of rows, and one column, all different."""
    hidden, weights = 3072, {}
    rows = {"proj_out": 64, "norm_out.linear": 2 * hidden}
    for name, tensor in small_weights().items():
        module = name.rpartition(".")[0]
        height = rows.get(module, tensor.shape[0] * hidden // 128)
        height = 128 if ".norm_" in name else height
        weights[name] = torch.rand((height, 1) if tensor.ndim == 2 else (height,))
    return weights


def test_diffusers_reads_the_original_layout_as_what_it_was() -> None:
    weights = narrow_flux()
    back = convert_flux_transformer_checkpoint_to_diffusers(to_bfl(weights))
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)


def lora_file(path: Path, trainer: str) -> tuple[Path, dict[str, Tensor]]:
    """Write a LoRA as a trainer does; return it, and by diffusers' names what it adds at weight 1."""
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(4, 128, generator=generator), torch.randn(384, 4, generator=generator) * 0.01
    parts = [f"transformer_blocks.0.attn.to_{name}.weight" for name in "qkv"]
    match trainer:
        case "kohya":
            name = "lora_unet_double_blocks_0_img_attn_qkv"
            tensors = {
                f"{name}.lora_down.weight": down,
                f"{name}.lora_up.weight": up,
                f"{name}.alpha": torch.tensor(2.0),
            }
            save_file(tensors, path)
            return path, dict(zip(parts, (0.5 * up @ down).chunk(3), strict=True))
        case "peft":
            tensors = {}
            for part, rows in zip(parts, up.chunk(3), strict=True):
                module = f"transformer.{part.removesuffix('.weight')}"
                tensors |= {f"{module}.lora_A.weight": down.clone(), f"{module}.lora_B.weight": rows.clone()}
            tensors[f"transformer.{parts[0].removesuffix('.weight')}.alpha"] = torch.tensor(8.0)
            save_file(tensors, path)
            factors = (2.0, 1.0, 1.0)
            chunks = (up @ down).chunk(3)
            return path, {part: factor * rows for part, factor, rows in zip(parts, factors, chunks, strict=True)}
        case _:
            raise AssertionError(trainer)


@pytest.mark.parametrize("trainer", ["kohya", "peft"])
@pytest.mark.parametrize("sharded", [False, True])
def test_loras_of_several_trainers_are_merged(trainer: str, sharded: bool, tmp_path: Path) -> None:
    file, deltas = lora_file(tmp_path / "lora.safetensors", trainer)
    source = save_shards(tmp_path, small_weights(), 2) if sharded else SMALL_MODEL
    merged = convert(source, tmp_path / "out.safetensors", "fp32", read_lora(LoraFile(file, 0.5)))
    made = to_diffusers(load_file(merged))
    for name, tensor in small_weights().items():
        wanted = tensor.float() + 0.5 * deltas.get(name, torch.zeros(()))
        assert torch.allclose(made[name], wanted, rtol=1e-5, atol=1e-6), name
    assert len(deltas) == 3


def test_a_merged_lora_is_the_one_that_diffusers_loads(tmp_path: Path) -> None:
    file, _ = lora_file(tmp_path / "lora.safetensors", "kohya")
    merged = to_diffusers(
        load_file(convert(SMALL_MODEL, tmp_path / "out.safetensors", "fp32", read_lora(LoraFile(file, 0.5))))
    )
    loaded = load_pipeline(device="cpu")
    loaded.load_lora_weights(load_file(file), adapter_name="a")
    loaded.set_adapters(["a"], [0.5])
    loaded.fuse_lora()
    loaded.unload_lora_weights()
    state = loaded.transformer.state_dict()
    assert all(torch.allclose(merged[name], state[name], rtol=1e-4, atol=1e-5) for name in merged)


CONFIGS: list[dict[str, Any]] = [
    {"lora_alpha": 12},
    {"lora_alpha": 12, "use_rslora": True},
    {"lora_alpha": 12, "alpha_pattern": {"transformer_blocks.0.attn.to_k": 2, "to_v": 1}},
]
"""peft's, of a LoRA of rank 4."""


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_configuration_in_the_file_counts_as_diffusers_counts_it(config: dict[str, Any], tmp_path: Path) -> None:
    """Diffusers' training scripts save no alphas, but the configuration that has them."""
    lora_file(tmp_path / "peft.safetensors", "peft")
    tensors = {key: tensor for key, tensor in load_file(tmp_path / "peft.safetensors").items() if "alpha" not in key}
    full = {"r": 4, "target_modules": ["attn.to_q", "attn.to_k", "attn.to_v"], **config}
    metadata = {"lora_adapter_metadata": json.dumps({f"transformer.{key}": value for key, value in full.items()})}
    save_file(tensors, tmp_path / "lora.safetensors", metadata | {"format": "pt"})
    lora = read_lora(LoraFile(tmp_path / "lora.safetensors", 0.5))
    merged = to_diffusers(load_file(convert(SMALL_MODEL, tmp_path / "out.safetensors", "fp32", lora)))
    loaded = load_pipeline(device="cpu")
    loaded.load_lora_weights(str(tmp_path / "lora.safetensors"), adapter_name="a")
    loaded.set_adapters(["a"], [0.5])
    loaded.fuse_lora()
    loaded.unload_lora_weights()
    state = loaded.transformer.state_dict()
    assert all(torch.allclose(merged[name], state[name], rtol=1e-4, atol=1e-5) for name in merged)


@pytest.mark.parametrize("config", ["[]", "no JSON", '{"transformer.lora_alpha": "much"}'])
def test_a_configuration_that_is_none_is_refused(config: str, tmp_path: Path) -> None:
    lora_file(tmp_path / "peft.safetensors", "peft")
    tensors = {key: tensor for key, tensor in load_file(tmp_path / "peft.safetensors").items() if "alpha" not in key}
    save_file(tensors, tmp_path / "lora.safetensors", {"lora_adapter_metadata": config})
    with pytest.raises(KontextError, match="cannot read it as a LoRA") as caught:
        read_lora(LoraFile(tmp_path / "lora.safetensors", 1.0))
    assert caught.value.field == "lora"


@pytest.mark.parametrize("what", ["nothing", "no lora", "dora", "missing"])
def test_what_is_no_lora_is_refused(what: str, tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    match what:
        case "nothing":
            path.write_bytes(b"\xff" * 100)
        case "no lora":
            save_file({"transformer.x_embedder.weight": torch.zeros(2, 2)}, path)
        case "dora":
            save_file({"lora_unet_double_blocks_0_img_attn_qkv.dora_scale": torch.zeros(2)}, path)
    with pytest.raises(KontextError) as caught:
        read_lora(LoraFile(path, 1.0))
    assert caught.value.field == "lora"
