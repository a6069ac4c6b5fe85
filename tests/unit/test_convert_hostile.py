"""What a source may have that is not as expected: parts that are missing or strange, and what is rare but right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader, GGUFWriter
from safetensors.torch import load_file, save_file

from lib_fluxkontext.convert.formats import choose
from lib_fluxkontext.convert.keys import first_missing, to_bfl
from lib_fluxkontext.convert.plan import make_plan
from lib_fluxkontext.convert.source import open_source
from lib_fluxkontext.errors import KontextError
from tests.support.convert_files import QKV, SMALL_MODEL, Weights, convert, read_back, small_weights, whole_checkpoint

STATE = f"{QKV}.quant_state.bitsandbytes__nf4"


@pytest.fixture(scope="module")
def nf4(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """The small model in NF4."""
    return load_file(convert(SMALL_MODEL, tmp_path_factory.mktemp("nf4") / "nf4.safetensors", "nf4"))


def text(value: str) -> torch.Tensor:
    """Return a text as bytes."""
    return torch.tensor(list(value.encode()), dtype=torch.uint8)


def described(nf4: Weights, **changes: Any) -> Weights:
    """Return a file with another description of one weight."""
    state = json.loads(bytes(nf4[STATE].tolist()))
    return nf4 | {STATE: text(json.dumps(state | changes))}


@pytest.mark.parametrize(
    "changes",
    [
        {"blocksize": float("inf")},
        {"shape": [float("inf"), 1]},
        {"shape": [float("nan"), 1]},
        {"nested_blocksize": 256},
        {"quant_type": "fp4"},
    ],
    ids=str,
)
def test_a_description_of_4_bits_that_is_wrong_is_an_error(
    nf4: Weights, changes: dict[str, Any], tmp_path: Path
) -> None:
    save_file(described(nf4, **changes), tmp_path / "source.safetensors")
    with pytest.raises(KontextError, match=rf"{QKV} is no NF4 weight") as caught:
        convert(tmp_path / "source.safetensors", tmp_path / "out.gguf", "Q8_0")
    assert caught.value.field == "in"


@pytest.mark.parametrize("what", ["type", "more", "part"])
def test_what_4_bits_do_not_need_does_not_matter(nf4: Weights, what: str, tmp_path: Path) -> None:
    save_file(nf4, tmp_path / "plain.safetensors")
    match what:
        case "type":
            weights = described(nf4, dtype="no_such_type")
        case "more":
            weights = described(nf4, comment="mine")
        case _:
            weights = nf4 | {f"{QKV}.note": torch.zeros(3, dtype=torch.int32)}
    save_file(weights, tmp_path / "source.safetensors")
    made = convert(tmp_path / "source.safetensors", tmp_path / "out.gguf", "Q8_0").read_bytes()
    assert made == convert(tmp_path / "plain.safetensors", tmp_path / "wanted.gguf", "Q8_0").read_bytes()


def test_one_shard_of_several_does_not_pass_for_a_checkpoint(tmp_path: Path) -> None:
    weights = small_weights()
    whole = {name for name in weights if not name.startswith(("norm_out.", "proj_out."))}
    save_file({name: weights[name] for name in whole}, tmp_path / "a-00001-of-00002.safetensors")
    with pytest.raises(KontextError, match=r"norm_out\.linear\.weight is missing; .* index or folder") as caught:
        convert(tmp_path / "a-00001-of-00002.safetensors", tmp_path / "out.gguf", "Q8_0")
    assert caught.value.field == "in"


@pytest.mark.parametrize(
    "name", ["txt_in.weight", "double_blocks.1.txt_mlp.2.weight", "single_blocks.0.linear2.weight"]
)
def test_a_matrix_that_every_flux_has_is_missed(name: str, tmp_path: Path) -> None:
    weights = to_bfl(small_weights())
    assert first_missing(weights) is None
    save_file({key: weights[key].contiguous() for key in weights if key != name}, tmp_path / "source.safetensors")
    with pytest.raises(KontextError, match=f"{name} is missing"):
        convert(tmp_path / "source.safetensors", tmp_path / "out.gguf", "Q8_0")


def test_what_some_flux_models_do_without_is_not_missed(tmp_path: Path) -> None:
    weights = {name: tensor.contiguous() for name, tensor in to_bfl(small_weights()).items()}
    schnell = {name: weights[name] for name in weights if not name.startswith("guidance_in.") and name != "img_in.bias"}
    save_file(schnell, tmp_path / "schnell.safetensors")
    assert (
        load_file(convert(tmp_path / "schnell.safetensors", tmp_path / "o.safetensors", "fp16")).keys()
        == schnell.keys()
    )


def test_what_lies_beside_diffusers_names_is_counted(tmp_path: Path) -> None:
    weights = {f"transformer.{name}": tensor for name, tensor in small_weights().items()}
    save_file(weights | {"vae.a": torch.zeros(1), "vae.b": torch.zeros(1)}, tmp_path / "source.safetensors")
    plan = make_plan(open_source(tmp_path / "source.safetensors"), choose("fp16", Path("a.safetensors")))
    assert plan.left_out == 2
    names = [entry.name for item in plan.items for entry in item.entries]
    assert "img_in.weight" in names
    assert not any(name.startswith("vae.") for name in names)


def test_a_type_that_is_only_copied_need_not_be_known(tmp_path: Path) -> None:
    whole_checkpoint(tmp_path / "whole.safetensors")
    weights = load_file(tmp_path / "whole.safetensors")
    weights["vae.scale"] = torch.arange(5).to(torch.uint32)
    save_file(weights, tmp_path / "source.safetensors")
    made = load_file(convert(tmp_path / "source.safetensors", tmp_path / "out.safetensors", "fp8"))
    assert made["vae.scale"].dtype == torch.uint32
    assert made["vae.scale"].tolist() == [0, 1, 2, 3, 4]


def test_metadata_that_gguf_does_not_write_is_no_error(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "source.gguf", "flux")
    writer.add_array("general.tags", ["a", "b"])
    only = "of 24 bytes, and 8 of len"
    writer.add_array("general.languages", [only[:24]])
    for name, tensor in to_bfl(small_weights()).items():
        writer.add_tensor(name, tensor.float().numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    data = (tmp_path / "source.gguf").read_bytes()
    one = (1).to_bytes(8, "little") + (24).to_bytes(8, "little") + only[:24].encode()
    assert data.count(one) == 1
    # 32 bytes less, which is what the data's start is a multiple of
    (tmp_path / "source.gguf").write_bytes(data.replace(one, bytes(8)))
    made = convert(tmp_path / "source.gguf", tmp_path / "out.gguf", "Q8_0")
    fields = GGUFReader(made).fields
    assert fields["general.tags"].contents() == ["a", "b"]
    assert "general.languages" not in fields
    wanted = read_back(convert(SMALL_MODEL, tmp_path / "wanted.gguf", "Q8_0"))
    assert all(torch.equal(values, wanted[name]) for name, values in read_back(made).items())


def test_a_name_without_end_is_an_error(tmp_path: Path) -> None:
    save_file(to_bfl(small_weights()) | {"." * 5000: torch.zeros(1)}, tmp_path / "source.safetensors")
    with pytest.raises(KontextError, match="longer than any honest one") as caught:
        open_source(tmp_path / "source.safetensors")
    assert len(caught.value.reason) < 200
