"""Whatever the source's container and layout, the output is the same; and what cannot be read leaves no file."""

from __future__ import annotations

import json
from pathlib import Path

import gguf.quants
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lib_fluxkontext.convert.keys import to_bfl
from lib_fluxkontext.convert.source import open_source
from lib_fluxkontext.errors import KontextError
from tests.support.convert_files import (
    LINEAR1,
    PREFIX,
    QKV,
    SMALL_MODEL,
    WEIGHTS_FILE,
    convert,
    read_back,
    save_shards,
    small_weights,
    whole_checkpoint,
)
from tests.support.quantised import to_scaled_fp8


@pytest.fixture(scope="module")
def q8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model in Q8_0."""
    return convert(SMALL_MODEL, tmp_path_factory.mktemp("q8") / "q8.gguf", "Q8_0")


def test_a_file_is_its_reference_quantisation(q8: Path) -> None:
    made, weights = GGUFReader(q8), to_bfl(small_weights())
    assert {tensor.name for tensor in made.tensors} == weights.keys()
    for tensor in made.tensors:
        values = weights[tensor.name].float().numpy()
        if tensor.tensor_type == GGMLQuantizationType.Q8_0:
            values = gguf.quants.quantize(values, tensor.tensor_type)
        assert np.array_equal(tensor.data, values), tensor.name
        assert tensor.data_offset % 32 == 0
    kinds = {tensor.name: tensor.tensor_type.name for tensor in made.tensors}
    assert kinds[QKV] == kinds[LINEAR1] == "Q8_0"
    assert kinds["img_in.weight"] == "F16"
    assert kinds["img_in.bias"] == kinds["double_blocks.0.img_attn.norm.key_norm.scale"] == "F32"
    assert sum(kind == "Q8_0" for kind in kinds.values()) == 4 * 10 + 8 * 3  # all matrices of the blocks


def test_a_gguf_file_says_what_it_is(q8: Path) -> None:
    fields = GGUFReader(q8).fields
    assert fields["general.architecture"].contents() == "flux"
    assert fields["general.file_type"].contents() == 7  # llama.cpp's MOSTLY_Q8_0
    assert fields["general.quantization_version"].contents() == 2


@pytest.mark.parametrize("make", ["file", "transformer", "shards", "index", "original", "gguf", "variants"])
def test_the_container_makes_no_difference(make: str, q8: Path, tmp_path: Path) -> None:
    match make:
        case "file":
            source = WEIGHTS_FILE
        case "transformer":
            source = SMALL_MODEL / "transformer"
        case "shards" | "index":
            index = save_shards(tmp_path, small_weights(), 3)
            source = tmp_path if make == "shards" else index
        case "original":
            source = tmp_path / "original.safetensors"
            save_file({name: tensor.contiguous() for name, tensor in to_bfl(small_weights()).items()}, source)
        case "gguf":
            source = convert(SMALL_MODEL, tmp_path / "f16.gguf", "fp16")
        case _:
            source = tmp_path
            save_file(small_weights(), source / "diffusion_pytorch_model.safetensors")
            save_file({"other": torch.zeros(1)}, source / "diffusion_pytorch_model.fp16.safetensors")
    made, wanted = read_back(convert(source, tmp_path / "out.gguf", "Q8_0")), read_back(q8)
    assert made.keys() == wanted.keys()
    assert all(torch.equal(made[name], wanted[name]) for name in wanted)


def test_sharded_gives_the_bytes_of_unsharded(q8: Path, tmp_path: Path) -> None:
    save_shards(tmp_path, small_weights(), 3)
    assert convert(tmp_path, tmp_path / "out.gguf", "Q8_0").read_bytes() == q8.read_bytes()


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_1"])
def test_gguf_is_read_as_its_library_reads_it(kind: str, tmp_path: Path) -> None:
    source = convert(SMALL_MODEL, tmp_path / "source.gguf", kind)
    made = load_file(convert(source, tmp_path / "out.safetensors", "fp32"))
    for name, values in read_back(source).items():
        assert torch.equal(made[name], values), name


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_four_bits_are_read_as_their_library_reads_them(kind: str, tmp_path: Path) -> None:
    import bitsandbytes.functional as functional

    source = convert(SMALL_MODEL, tmp_path / "source.safetensors", kind)
    made, stored = load_file(convert(source, tmp_path / "out.safetensors", "fp32")), load_file(source)
    assert not any(".absmax" in name for name in made)
    for name in (QKV, LINEAR1):
        parts = {key.removeprefix(f"{name}."): value for key, value in stored.items() if key.startswith(f"{name}.")}
        state = functional.QuantState.from_dict(parts, torch.device("cpu"))
        state.dtype = torch.float32
        assert torch.equal(made[name], functional.dequantize_4bit(stored[name], state).float())


def test_four_bits_with_quantised_scales_are_read(tmp_path: Path) -> None:
    import bitsandbytes.functional as functional

    weights = {name: tensor.contiguous() for name, tensor in to_bfl(small_weights()).items()}
    packed, state = functional.quantize_4bit(weights[LINEAR1], quant_type="nf4", compress_statistics=True)
    parts = {f"{LINEAR1}.{key}": value for key, value in state.as_dict(packed=True).items()}
    assert f"{LINEAR1}.nested_absmax" in parts
    save_file(weights | {LINEAR1: packed} | parts, tmp_path / "nested.safetensors")
    made = load_file(convert(tmp_path / "nested.safetensors", tmp_path / "out.safetensors", "fp32"))
    state.dtype = torch.float32
    assert torch.equal(made[LINEAR1], functional.dequantize_4bit(packed, state))
    assert made.keys() == weights.keys()


def test_scaled_fp8_is_read_with_its_scale(tmp_path: Path) -> None:
    weights = {name: tensor.float() for name, tensor in to_bfl(small_weights()).items()}
    scaled = to_scaled_fp8(weights)
    whole_checkpoint(tmp_path / "scaled.safetensors", scaled)
    made = load_file(convert(tmp_path / "scaled.safetensors", tmp_path / "out.safetensors", "fp32"))
    assert PREFIX + "scaled_fp8" not in made
    assert not any("scale_weight" in name for name in made)
    for name in weights:
        scale = scaled.get(name.removesuffix(".weight") + ".scale_weight", torch.tensor(1.0))
        assert torch.equal(made[PREFIX + name], scaled[name].float() * scale), name


@pytest.mark.parametrize("kind", ["fp8", "nf4"])
def test_a_whole_checkpoint_keeps_the_rest_to_the_byte(kind: str, tmp_path: Path) -> None:
    weights = whole_checkpoint(tmp_path / "whole.safetensors")
    made = load_file(convert(tmp_path / "whole.safetensors", tmp_path / "out.safetensors", kind))
    for name, tensor in weights.items():
        if not name.startswith(PREFIX):
            assert made[name].dtype == tensor.dtype
            assert torch.equal(made[name].view(torch.uint8), tensor.view(torch.uint8)), name
        else:
            assert name in made
    stored = made[PREFIX + QKV].dtype
    assert stored == (torch.float8_e4m3fn if kind == "fp8" else torch.uint8)


def test_metadata_is_kept_and_what_is_no_longer_true_is_not(tmp_path: Path) -> None:
    whole_checkpoint(tmp_path / "whole.safetensors")
    first = convert(tmp_path / "whole.safetensors", tmp_path / "a.safetensors", "bf16")
    with safe_open(first, framework="pt") as file:
        assert file.metadata() == {"modelspec.title": "Ein Bär", "format": "pt"}
    second = convert(first, tmp_path / "b.gguf", "Q8_0")
    assert GGUFReader(second).fields["modelspec.title"].contents() == "Ein Bär"
    third = convert(second, tmp_path / "c.gguf", "Q4_0")
    fields = GGUFReader(third).fields
    assert fields["modelspec.title"].contents() == "Ein Bär"
    assert fields["general.file_type"].contents() == 2  # MOSTLY_Q4_0, and not Q8_0
    with safe_open(convert(third, tmp_path / "d.safetensors", "fp16"), framework="pt") as file:
        assert file.metadata() == {"modelspec.title": "Ein Bär", "format": "pt"}


def damaged(tmp_path: Path, what: str) -> Path:
    """Return a source that cannot be converted."""
    path = tmp_path / "source.safetensors"
    weights = to_bfl(small_weights())
    match what:
        case "truncated":
            path.write_bytes(WEIGHTS_FILE.read_bytes()[:-100])
        case "no header":
            path.write_bytes(b"\xff" * 200)
        case "another model":
            save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4)}, path)
        case "chroma":
            save_file({name: tensor for name, tensor in weights.items() if "_mod." not in name}, path)
        case "integers":
            save_file(weights | {QKV: torch.zeros(384, 128, dtype=torch.int32)}, path)
        case "short rows":
            save_file(weights | {QKV: torch.zeros(100, 128)}, path)
        case "empty":
            save_file(weights | {QKV: torch.zeros(384, 0)}, path)
        case "not a number":
            save_file(weights | {QKV: torch.full((384, 128), float("nan"))}, path)
        case "absmax too short":
            made = load_file(convert(SMALL_MODEL, tmp_path / "nf4.safetensors", "nf4"))
            (tmp_path / "nf4.safetensors").unlink()
            save_file(made | {f"{QKV}.absmax": torch.zeros(3)}, path)
        case "index outside":
            path = tmp_path / "a.safetensors.index.json"
            path.write_text(json.dumps({"weight_map": {"double_blocks.0.img_attn.qkv.weight": "../b.safetensors"}}))
        case "index without the tensor":
            path = save_shards(tmp_path, small_weights(), 2)
            index = json.loads(path.read_text())
            index["weight_map"]["more"] = next(iter(index["weight_map"].values()))
            path.write_text(json.dumps(index))
        case "no folder":
            path = tmp_path / "nothing"
    return path


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("truncated", "cut off: 100 bytes"),
        ("no header", "neither safetensors nor GGUF"),
        ("another model", "none of FLUX.1's tensors"),
        ("chroma", "a relative of it"),
        ("integers", "stored as I32"),
        ("short rows", "has 100 rows"),
        ("empty", "has no elements"),
        ("not a number", "infinite or not a number"),
        ("absmax too short", "no NF4 weight"),
        ("index outside", "outside its folder"),
        ("index without the tensor", "where it is not"),
        ("no folder", "no such file"),
    ],
)
def test_what_cannot_be_converted_is_an_error_and_leaves_no_file(tmp_path: Path, what: str, message: str) -> None:
    source = damaged(tmp_path, what)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(KontextError, match=message) as caught:
        convert(source, tmp_path / "out.gguf", "Q8_0")
    assert caught.value.field == "in"
    assert sorted(tmp_path.iterdir()) == before


def test_a_source_that_shrinks_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "source.safetensors"
    save_file(small_weights(), path)
    stored = open_source(path).tensors["x_embedder.weight"]
    path.write_bytes(path.read_bytes()[: stored.offset + 10])
    with pytest.raises(KontextError, match="has become shorter"):
        stored.read()
