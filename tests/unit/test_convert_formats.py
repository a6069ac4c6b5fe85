"""Which format a file gets, and which tensors stay in 16 or 32 bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib_fluxkontext.convert.formats import FORMATS, choose
from lib_fluxkontext.convert.keys import DOUBLE_BLOCK, SINGLE_BLOCK, TOP
from lib_fluxkontext.errors import KontextError

SQUARE = (3072, 3072)


@pytest.mark.parametrize(
    ("name", "shape", "source", "expected"),
    [
        ("double_blocks.0.img_attn.qkv.weight", (9216, 3072), "BF16", "Q8_0"),
        ("double_blocks.0.img_mod.lin.weight", (18432, 3072), "BF16", "Q8_0"),
        ("single_blocks.7.linear2.weight", (3072, 15360), "F32", "Q8_0"),
        ("single_blocks.7.linear2.bias", (3072,), "BF16", "F32"),
        ("double_blocks.0.img_attn.norm.key_norm.scale", (128,), "BF16", "F32"),
        ("img_in.weight", (3072, 64), "BF16", "BF16"),
        ("txt_in.weight", (3072, 4096), "F16", "F16"),
        ("time_in.in_layer.weight", (3072, 256), "F32", "F16"),
        ("vector_in.out_layer.weight", SQUARE, "BF16", "BF16"),
        ("guidance_in.out_layer.weight", SQUARE, "BF16", "BF16"),
        ("final_layer.adaLN_modulation.1.weight", (6144, 3072), "BF16", "BF16"),
        ("final_layer.linear.weight", (64, 3072), "Q4_K", "F16"),
        ("final_layer.linear.bias", (64,), "BF16", "F32"),
        ("double_blocks.0.tiny.weight", (32, 32), "BF16", "F32"),
        ("double_blocks.0.odd.weight", (3072, 100), "BF16", "BF16"),  # no whole blocks
    ],
)
def test_a_gguf_file_keeps_what_city96s_files_keep(
    name: str, shape: tuple[int, ...], source: str, expected: str
) -> None:
    assert choose("Q8_0", Path("a.gguf")).encoding(name, shape, source).kind == expected


def kinds(kind: str) -> dict[str, str]:
    """Return what a .safetensors file has of a block and of the rest, from a source in bfloat16."""
    chosen = choose(kind, Path("a.safetensors"))
    shapes: dict[str, tuple[int, ...]] = {
        "single_blocks.0.linear1.weight": (21504, 3072),
        "single_blocks.0.linear1.bias": (21504,),
        "single_blocks.0.norm.key_norm.scale": (128,),
        "img_in.weight": (3072, 64),
        "img_in.bias": (3072,),
        "final_layer.linear.weight": (64, 3072),
    }
    return {name: chosen.encoding(name, shape, "BF16").kind for name, shape in shapes.items()}


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_four_bits_are_all_matrices_as_in_forges_own_files(kind: str) -> None:
    assert list(kinds(kind).values()) == [kind.upper(), "BF16", "BF16", kind.upper(), "BF16", kind.upper()]


@pytest.mark.parametrize(("kind", "expected"), [("fp8", "F8_E4M3"), ("fp8_e5m2", "F8_E5M2")])
def test_fp8_keeps_what_is_outside_the_blocks(kind: str, expected: str) -> None:
    assert list(kinds(kind).values()) == [expected, expected, "BF16", "BF16", "BF16", "BF16"]


@pytest.mark.parametrize(("double", "single"), [(19, 38), (2, 4)])
def test_most_tensors_of_an_fp8_file_are_fp8(double: int, single: int) -> None:
    """Forge counts tensors, not bytes, and would else load the file in 16 bits."""
    modules = [f"double_blocks.{index}.{name}" for index in range(double) for name in DOUBLE_BLOCK]
    modules += [f"single_blocks.{index}.{name}" for index in range(single) for name in SINGLE_BLOCK]
    chosen, found = choose("fp8", Path("a.safetensors")), []
    for module in [*TOP, *modules]:
        if module.endswith("_norm"):
            found.append(chosen.encoding(f"{module}.scale", (128,), "BF16").kind)
        else:
            found.append(chosen.encoding(f"{module}.weight", SQUARE, "BF16").kind)
            found.append(chosen.encoding(f"{module}.bias", (3072,), "BF16").kind)
    assert found.count("F8_E4M3") > found.count("BF16")


def test_a_number_format_has_one_type_but_for_vectors_in_gguf() -> None:
    names = ("img_in.weight", "double_blocks.0.img_mlp.0.weight", "img_in.bias")
    found = {
        out: [
            choose("bf16", Path(out)).encoding(name, (3072,) * (1 + name.endswith("t")), "F32").kind for name in names
        ]
        for out in ("a.safetensors", "a.gguf")
    }
    assert found == {"a.safetensors": ["BF16", "BF16", "BF16"], "a.gguf": ["BF16", "BF16", "F32"]}


@pytest.mark.parametrize("name", ["Q6_K", "Q5_K_S", "q4_k_m", "Q3_K", "Q2_K", "IQ4_XS", "Q6"])
def test_k_quants_are_refused_with_a_hint(name: str) -> None:
    with pytest.raises(KontextError, match=r"llama-quantize .* there are here: Q8_0, Q5_1, Q5_0, Q4_1, Q4_0") as caught:
        choose(name, Path("a.gguf"))
    assert caught.value.field == "format"


def test_an_unknown_format_is_refused_with_all_that_are_known() -> None:
    with pytest.raises(KontextError, match="nf3") as caught:
        choose("nf3", Path("a.gguf"))
    assert all(name in str(caught.value) for name in FORMATS)


@pytest.mark.parametrize(
    ("name", "out"), [("Q8_0", "a.safetensors"), ("nf4", "a.gguf"), ("fp8", "a.gguf"), ("bf16", "a.pt"), ("fp16", "a")]
)
def test_an_ending_that_does_not_have_the_format_is_refused(name: str, out: str) -> None:
    with pytest.raises(KontextError, match="does not end in") as caught:
        choose(name, Path(out))
    assert caught.value.field == "out"


def test_names_are_taken_in_any_case() -> None:
    assert choose("q8_0", Path("A.GGUF")).name == "Q8_0"
    assert choose("NF4", Path("a.safetensors")).name == "nf4"
    assert choose("F16", Path("a.gguf")).name == "fp16"
    assert choose("fp8_e4m3fn", Path("a.safetensors")).name == "fp8"
