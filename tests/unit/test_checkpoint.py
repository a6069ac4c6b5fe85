"""Checkpoints are identified by their headers; broken and hostile files give one line."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from lib_fluxkontext.checkpoints.flux import checkpoint_facts
from lib_fluxkontext.checkpoints.gguf import TYPES
from lib_fluxkontext.checkpoints.header import MAX_HEADER, read_header
from lib_fluxkontext.errors import KontextError

FLUX_NAMES = {
    "img_in.weight": (128, 64),
    "guidance_in.in_layer.weight": (128, 256),
    "double_blocks.0.img_attn.qkv.weight": (384, 128),
    "double_blocks.0.img_attn.qkv.bias": (384,),
    "single_blocks.0.linear1.weight": (896, 128),
}
PARAMETERS = 128 * 64 + 128 * 256 + 384 * 128 + 384 + 896 * 128


def safetensors_file(
    path: Path, prefix: str = "", dtype: torch.dtype = torch.bfloat16, **changed: tuple[int, ...]
) -> Path:
    shapes = {**FLUX_NAMES, **changed}
    save_file({prefix + name: torch.zeros(shape, dtype=dtype) for name, shape in shapes.items() if shape}, path)
    return path


def gguf_string(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf_bytes(kinds: dict[str, int], pairs: bytes = b"", count: int = 0, version: int = 3, cut: int = 0) -> bytes:
    """Write a GGUF file whose tensors have these type numbers."""
    entries, offset = b"", 0
    for name, number in kinds.items():
        shape = FLUX_NAMES[name]
        _, block, size = TYPES[number]
        entries += gguf_string(name) + struct.pack("<I", len(shape))
        entries += b"".join(struct.pack("<Q", side) for side in reversed(shape)) + struct.pack("<IQ", number, offset)
        length = torch.Size(shape).numel() // block * size
        offset += -(-length // 32) * 32
    header = b"GGUF" + struct.pack("<IQQ", version, len(kinds), count) + pairs + entries
    header += b"\0" * (-len(header) % 32)
    data = header + b"\0" * offset
    return data[: len(data) - cut]


Q8 = {name: 8 if name.endswith("1.weight") or "qkv.weight" in name else 0 for name in FLUX_NAMES}


def test_a_safetensors_transformer_alone(tmp_path: Path) -> None:
    facts = checkpoint_facts(safetensors_file(tmp_path / "flux1-kontext-dev.safetensors"))
    assert facts.family == "FLUX.1 Kontext"
    assert facts.takes_references
    assert (facts.format, facts.quantisation) == ("safetensors", "BF16")
    assert facts.parameters == PARAMETERS
    assert facts.transformer_bytes == 2 * PARAMETERS


def test_a_whole_checkpoint_counts_the_transformer_apart(tmp_path: Path) -> None:
    path = tmp_path / "all-in-one.safetensors"
    tensors = {f"model.diffusion_model.{name}": torch.zeros(shape) for name, shape in FLUX_NAMES.items()}
    save_file(tensors | {"vae.decoder.weight": torch.zeros(1000)}, path)
    facts = checkpoint_facts(path)
    assert facts.family == "FLUX.1 dev or Kontext"
    assert facts.transformer_bytes == 4 * PARAMETERS
    assert facts.file_bytes > facts.transformer_bytes + 4000


def test_a_gguf_with_its_mix(tmp_path: Path) -> None:
    path = tmp_path / "flux1-kontext-dev-Q8_0.gguf"
    pairs = gguf_string("general.architecture") + struct.pack("<I", 8) + gguf_string("flux")
    pairs += gguf_string("some.list") + struct.pack("<IIQ", 9, 8, 2) + gguf_string("a") + gguf_string("b")
    path.write_bytes(gguf_bytes(Q8, pairs, 2))
    facts = checkpoint_facts(path)
    assert facts.family == "FLUX.1 Kontext"
    assert (facts.format, facts.quantisation) == ("GGUF", "Q8_0")
    assert facts.parameters == PARAMETERS
    assert {part.kind: part.tensors for part in facts.mix} == {"Q8_0": 2, "F32": 3}


def test_schnell_fill_and_others_are_told_apart(tmp_path: Path) -> None:
    schnell = safetensors_file(tmp_path / "a.safetensors", **{"guidance_in.in_layer.weight": ()})
    assert checkpoint_facts(schnell).family == "FLUX.1 schnell"
    fill = checkpoint_facts(safetensors_file(tmp_path / "b.safetensors", **{"img_in.weight": (128, 384)}))
    assert "Fill" in str(fill.family)
    assert not fill.takes_references
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4)}, tmp_path / "sd15.safetensors")
    assert checkpoint_facts(tmp_path / "sd15.safetensors").family is None
    chroma = safetensors_file(tmp_path / "c.safetensors", **{"distilled_guidance_layer.in_proj.weight": (128, 64)})
    assert checkpoint_facts(chroma).family is None  # blocks like FLUX.1's, but another model
    assert not checkpoint_facts(chroma).takes_references


def test_four_bit_weights_count_what_they_stand_for(tmp_path: Path) -> None:
    tensors = {"img_in.weight": torch.zeros(128, 64), "guidance_in.in_layer.weight": torch.zeros(128, 256)}
    name = "double_blocks.0.img_attn.qkv.weight"
    tensors[name] = torch.zeros(384 * 128 // 2, 1, dtype=torch.uint8)
    tensors[f"{name}.absmax"] = torch.zeros(768)
    tensors[f"{name}.quant_map"] = torch.zeros(16)
    tensors[f"{name}.quant_state.bitsandbytes__nf4"] = torch.zeros(80, dtype=torch.uint8)
    save_file(tensors, tmp_path / "flux1-kontext-nf4.safetensors")
    facts = checkpoint_facts(tmp_path / "flux1-kontext-nf4.safetensors")
    assert facts.parameters == 128 * 64 + 128 * 256 + 384 * 128
    assert "NF4" in {part.kind for part in facts.mix}


def safetensors_bytes(table: object, data: int = 0) -> bytes:
    header = json.dumps(table).encode()
    return struct.pack("<Q", len(header)) + header + b"\0" * data


BROKEN = {
    "empty": (b"", "empty"),
    "a text": (b"this is not a checkpoint at all, it is a sentence", "neither"),
    "a header of exabytes": (struct.pack("<Q", 2**62) + b"{}", "neither"),
    "no JSON": (struct.pack("<Q", 4) + b"nope", "no JSON"),
    "a list": (safetensors_bytes([1, 2]), "no table"),
    "nothing in it": (safetensors_bytes({}), "no tensor"),
    "cut off": (safetensors_bytes({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, 8), "8 bytes"),
    "overlapping": (
        safetensors_bytes(
            {
                "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
                "b": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
            },
            24,
        ),
        "same place",
    ),
    "a lying size": (safetensors_bytes({"a": {"dtype": "F32", "shape": [5], "data_offsets": [0, 16]}}, 16), "16 bytes"),
    "a negative side": (safetensors_bytes({"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}), "broken"),
    "a deep one": (struct.pack("<Q", 200_000) + b"[" * 200_000, "neither"),
    "GGUF, cut off": (gguf_bytes(Q8, cut=100), "missing"),
    "GGUF, cut off early": (gguf_bytes(Q8)[:40], "header"),
    "GGUF of the future": (gguf_bytes(Q8, version=9), "version 9"),
    "GGUF with endless entries": (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "entries"),
    "GGUF with an endless text": (b"GGUF" + struct.pack("<IQQQ", 3, 1, 0, 2**60), "larger"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_or_hostile_file_gives_one_line_at_once(tmp_path: Path, name: str) -> None:
    data, reason = BROKEN[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    start = time.perf_counter()
    with pytest.raises(KontextError) as caught:
        read_header(path)
    assert time.perf_counter() - start < 5
    assert reason in str(caught.value) or name == "a deep one"
    assert "\n" not in str(caught.value)
    assert "model.safetensors" in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.gguf", tmp_path):
        with pytest.raises(KontextError):
            read_header(path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_change_of_bytes_escapes_as_another_error(tmp_path: Path, data: st.DataObject) -> None:
    honest = data.draw(st.sampled_from([gguf_bytes(Q8)[:1500], safetensors_bytes({"a": {"dtype": "F32"}}, 40)]))
    changed = bytearray(honest)
    for _ in range(data.draw(st.integers(1, 6))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "changed.gguf"
    path.write_bytes(bytes(changed))
    try:
        checkpoint_facts(path)
    except KontextError as error:
        assert "\n" not in str(error)


def test_a_header_larger_than_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", MAX_HEADER + 1))
        file.truncate(MAX_HEADER + 100)  # sparse
    with pytest.raises(KontextError):
        read_header(path)
