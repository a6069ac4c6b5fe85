"""What each host loads, told from headers alone."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import save_file

from lib_fluxkontext.checkpoints.flux import CheckpointFacts, checkpoint_facts, identify
from lib_fluxkontext.checkpoints.header import Header, TensorEntry
from lib_fluxkontext.checkpoints.support import GGUF_TYPES, Host, scaled_format, why_not_loaded
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.hosts.diffusers.loader import check_checkpoint
from lib_fluxkontext.hosts.forge.ui.checkpoint_line import describe_checkpoint
from lib_fluxkontext.hosts.forge.ui.markup import warnings_in
from lib_fluxkontext.sampling.vram import GIB, SamplingLoad
from lib_fluxkontext.settings import KontextSettings

HOSTS: tuple[Host, ...] = get_args(Host)
ALL = frozenset(HOSTS)

QKV = "double_blocks.0.img_attn.qkv"
NORM = "double_blocks.0.img_attn.norm.key_norm.scale"
DIFFUSERS_QKV = "transformer_blocks.0.attn.to_q"
BASE = {"img_in.weight": "BF16", "guidance_in.in_layer.weight": "BF16", f"{QKV}.bias": "BF16", NORM: "BF16"}


def entry(name: str, kind: str) -> TensorEntry:
    shape = (384, 64) if name.endswith("img_in.weight") else (384, 128) if name.endswith(".weight") else (384,)
    return TensorEntry(name, kind, shape, 10_000 if len(shape) == 2 else 100)


def facts(
    kinds: dict[str, str], *, gguf: bool = False, metadata: frozenset[str] = frozenset(), prefix: str = "", **more: str
) -> CheckpointFacts:
    """Facts on a checkpoint of these tensors and types; ``more`` have no prefix."""
    prefixed = {prefix + name: kind for name, kind in kinds.items()}
    tensors = tuple(entry(name, kind) for name, kind in (prefixed | more).items())
    return identify("kontext", Header("GGUF" if gguf else "safetensors", tensors, 10**6, dict.fromkeys(metadata, "")))


def weights(kind: str, **scales: str) -> dict[str, str]:
    """Tensors with one matrix large enough to decide the type, and what stands beside it."""
    matrices = {f"double_blocks.{block}.img_attn.qkv.weight": kind for block in range(3)}
    return BASE | matrices | {f"{QKV}.{suffix}": scale for suffix, scale in scales.items()}


def gguf(kind: str, *, norm: str = "F32", bias: str = "F32") -> CheckpointFacts:
    kinds = {f"{QKV}.weight": kind, "img_in.weight": "F32", f"{QKV}.bias": bias, NORM: norm}
    return facts(kinds | {"guidance_in.in_layer.weight": "F32"}, gguf=True)


def diffusers_layout(kind: str, **more: str) -> dict[str, str]:
    return {
        "x_embedder.weight": kind,
        f"{DIFFUSERS_QKV}.weight": kind,
        "single_transformer_blocks.0.attn.to_q.weight": kind,
        "single_transformer_blocks.0.attn.norm_q.weight": "F32",
        **more,
    }


def four_bit(kind: str, packed_input: bool) -> CheckpointFacts:
    """A checkpoint that bitsandbytes quantised."""
    kinds = weights("U8") | {f"{QKV}.weight.absmax": "F32", f"{QKV}.weight.quant_state.bitsandbytes__{kind}": "U8"}
    return facts(kinds | {"img_in.weight": "U8" if packed_input else "BF16"})


COMFY = frozenset({"_quantization_metadata"})
NUNCHAKU = {
    "single_transformer_blocks.0.mlp_fc1.qweight": "I8",
    "single_transformer_blocks.0.mlp_fc1.wscales": "BF16",
    "transformer_blocks.0.qkv_proj.qweight": "I8",
}

LOADED_BY: dict[str, tuple[CheckpointFacts, frozenset[str]]] = {
    **{kind: (facts(weights(kind)), ALL) for kind in ("F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")},
    "prefix": (facts(weights("F8_E4M3"), prefix="model.diffusion_model."), ALL),
    "scale_weight": (facts(weights("F8_E4M3", scale_weight="F32")), ALL - {"Forge Neo"}),
    "scale_weight, marked": (facts(weights("F8_E4M3", scale_weight="F32") | {"scaled_fp8": "F8_E4M3"}), ALL),
    "marked before the prefix": (
        facts(weights("F8_E4M3", scale_weight="F32"), prefix="model.diffusion_model.", scaled_fp8="F8_E4M3"),
        ALL,
    ),
    "marked behind the prefix": (
        facts(weights("F8_E4M3", scale_weight="F32") | {"scaled_fp8": "F8_E4M3"}, prefix="model.diffusion_model."),
        ALL,
    ),
    "weight_scale": (facts(weights("F8_E4M3", weight_scale="F32")), frozenset({"diffusers"})),
    "weight_scale, by layer": (
        facts(weights("F8_E4M3", weight_scale="F32", comfy_quant="U8")),
        ALL - {"Forge"},
    ),
    "weight_scale, by metadata": (
        facts(weights("F8_E4M3", weight_scale="F32"), metadata=COMFY),
        ALL - {"Forge"},
    ),
    "INT8": (facts(weights("I8", weight_scale="F32", comfy_quant="U8")), frozenset({"Forge Neo"})),
    "INT8 without scales": (facts(weights("I8")), frozenset()),
    "NVFP4": (
        facts(weights("U8", weight_scale="F8_E4M3", weight_scale_2="F32", comfy_quant="U8")),
        frozenset({"Forge Neo"}),
    ),
    "MXFP8": (facts(weights("F8_E4M3", weight_scale="U8", comfy_quant="U8")), frozenset({"Forge Neo"})),
    "bytes of another library": (facts(weights("U8")), frozenset()),
    "NF4": (four_bit("nf4", packed_input=True), ALL),
    "FP4, all of it": (four_bit("fp4", packed_input=True), ALL - {"Forge Neo"}),
    "FP4, but for the embedder": (four_bit("fp4", packed_input=False), ALL),
    **{kind: (gguf(kind), ALL) for kind in ("F16", "BF16", "Q2_K", "Q3_K", "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1")},
    **{kind: (gguf(kind), ALL) for kind in ("Q5_K", "Q6_K", "Q8_0")},
    **{kind: (gguf(kind), frozenset({"diffusers"})) for kind in ("IQ4_NL", "IQ4_XS")},
    **{kind: (gguf(kind), frozenset()) for kind in ("IQ2_XXS", "IQ3_S", "IQ1_M", "Q8_K", "TQ1_0", "MXFP4")},
    "norms in F16": (gguf("Q8_0", norm="F16"), ALL),
    "norms in BF16": (gguf("Q8_0", norm="BF16"), frozenset({"Forge Neo"})),
    "biases in BF16": (gguf("Q8_0", bias="BF16"), ALL - {"diffusers"}),
    "Nunchaku": (facts(NUNCHAKU), frozenset({"Forge Neo"})),
    "diffusers' names": (facts(diffusers_layout("BF16")), ALL - {"Forge"}),
    "diffusers' names, GGUF": (facts(diffusers_layout("F32"), gguf=True), frozenset({"diffusers"})),
    "diffusers' names, scaled": (
        facts(diffusers_layout("F8_E4M3", **{f"{DIFFUSERS_QKV}.weight_scale": "F32"}), metadata=COMFY),
        frozenset({"diffusers"}),
    ),
}


@pytest.mark.parametrize("name", LOADED_BY)
def test_a_host_loads_it_or_it_is_said_what_to_take_instead(name: str) -> None:
    checkpoint, loaded_by = LOADED_BY[name]
    reasons = {host: why_not_loaded(checkpoint, host) for host in HOSTS}
    assert {host for host, reason in reasons.items() if reason is None} == loaded_by
    for host, reason in reasons.items():
        if reason is not None:
            assert reason.startswith(f"{host} ")
            assert re.search(r"\. Take .+\.$", reason)
            assert "{" not in reason


def test_the_reason_names_the_format() -> None:
    def reason(name: str) -> str:
        return why_not_loaded(LOADED_BY[name][0], "Forge") or ""

    assert "cannot dequantise IQ4_NL." in reason("IQ4_NL")
    assert "(scaled FP8), and the picture would be noise" in reason("weight_scale")
    assert "(INT8)" in reason("INT8")
    assert "diffusers does not load INT8." in (why_not_loaded(LOADED_BY["INT8"][0], "diffusers") or "")
    assert "does not load NVFP4." in reason("NVFP4")
    assert "does not load MXFP8." in reason("MXFP8")
    assert "does not load SVDQuant (Nunchaku)." in reason("Nunchaku")
    assert "norms, which are BF16" in reason("norms in BF16")


def test_the_scales_of_a_text_encoder_are_not_the_transformers() -> None:
    encoder = {"text_encoders.t5xxl.transformer.scaled_fp8": "F8_E4M3", "text_encoders.t5xxl.x.scale_weight": "F32"}
    transformer = {f"model.diffusion_model.{name}": kind for name, kind in weights("F8_E4M3").items()}
    checkpoint = facts(transformer | encoder)
    assert scaled_format(checkpoint) is None
    assert {why_not_loaded(checkpoint, host) for host in HOSTS} == {None}


def test_of_what_is_not_flux_nothing_is_said() -> None:
    other = facts({"input_blocks.0.0.weight": "I8"})
    assert other.family is None
    assert {why_not_loaded(other, host) for host in HOSTS} == {None}


def test_the_types_of_diffusers_are_those_that_it_names() -> None:
    utils = pytest.importorskip("diffusers.quantizers.gguf.utils")
    assert GGUF_TYPES["diffusers"] == {kind.name for kind in utils.SUPPORTED_GGUF_QUANT_TYPES} | {"F32", "F16"}


def panel(checkpoint: CheckpointFacts, host: Host) -> str:
    return describe_checkpoint(checkpoint, SamplingLoad(1, 1024, 0), KontextSettings(), 24 * GIB, host=host)


def test_the_panel_warns_and_leaves_the_memory_out() -> None:
    checkpoint = LOADED_BY["scale_weight, marked"][0]
    assert warnings_in(panel(checkpoint, "Forge Neo")) == ""
    assert "estimated" in panel(checkpoint, "Forge Neo")
    refused = panel(replace(checkpoint, storage=LOADED_BY["weight_scale"][0].storage), "Forge")
    assert "Forge ignores the scales" in warnings_in(refused)
    assert "estimated" not in refused


def test_nunchaku_takes_no_references_where_it_is_loaded() -> None:
    assert "It cannot take references" in warnings_in(panel(LOADED_BY["Nunchaku"][0], "Forge Neo"))


def write(path: Path, kind: torch.dtype, **more: torch.Tensor) -> Path:
    """Write a file with one of FLUX's names; the rest would be missed by what loads it, which is not reached."""
    save_file({f"{QKV}.weight": torch.zeros(12, 4, dtype=kind), **more}, path)
    return path


def test_the_diffusers_host_refuses_before_it_loads(tmp_path: Path) -> None:
    scale = {f"{QKV}.weight_scale": torch.ones(())}
    with pytest.raises(KontextError, match=r"^checkpoint: a\.safetensors: diffusers does not load INT8\. Take FP8"):
        check_checkpoint(write(tmp_path / "a.safetensors", torch.int8, **scale), device="cpu")
    scaled = write(tmp_path / "b.safetensors", torch.float8_e4m3fn, **scale)
    assert scaled_format(checkpoint_facts(scaled)) == "scaled FP8"
    with pytest.raises(KontextError, match=r"^base: needed beside a single file"):  # the format is no obstacle
        check_checkpoint(scaled, device="cpu")
    nunchaku = tmp_path / "svdq.safetensors"
    save_file({name: torch.zeros(4, 4, dtype=torch.int8) for name in NUNCHAKU}, nunchaku)
    with pytest.raises(KontextError, match="does not load SVDQuant"):
        check_checkpoint(nunchaku, device="cpu")
