"""LoRAs are merged as W + weight · (alpha / rank) · B A, wherever W's rows lie in the original layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lib_fluxkontext.convert import plan
from lib_fluxkontext.convert.keys import to_bfl
from lib_fluxkontext.convert.lora import Lora
from lib_fluxkontext.errors import KontextError
from tests.support.convert_files import SMALL_MODEL, Weights, convert, small_weights

MODULES = (
    "transformer_blocks.1.attn.to_k",
    "transformer_blocks.0.attn.add_v_proj",
    "transformer_blocks.0.ff.net.0.proj",
    "single_transformer_blocks.2.attn.to_v",
    "single_transformer_blocks.2.proj_mlp",
    "single_transformer_blocks.3.proj_out",
    "norm_out.linear",
    "x_embedder",
)
RANK = 4


def matrices(seed: int = 0, modules: tuple[str, ...] = MODULES) -> Weights:
    """Return a LoRA's matrices for weights of all kinds: fused, swapped and alone."""
    weights, generator = small_weights(), torch.Generator().manual_seed(seed)
    tensors = {}
    for module in modules:
        rows, columns = weights[f"{module}.weight"].shape
        tensors[f"transformer.{module}.lora_A.weight"] = torch.randn(RANK, columns, generator=generator)
        tensors[f"transformer.{module}.lora_B.weight"] = torch.randn(rows, RANK, generator=generator) * 0.01
    return tensors


def delta(tensors: Weights, module: str) -> Tensor:
    """Return B A."""
    return tensors[f"transformer.{module}.lora_B.weight"] @ tensors[f"transformer.{module}.lora_A.weight"]


def close(made: Weights, wanted: Weights) -> bool:
    """Whether weights are equal but for float32's rounding."""
    return made.keys() == wanted.keys() and all(
        torch.allclose(made[name], wanted[name], rtol=1e-5, atol=1e-6) for name in wanted
    )


@pytest.fixture(params=["diffusers", "original"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The small model in both layouts."""
    if request.param == "diffusers":
        return SMALL_MODEL
    save_file(to_bfl(small_weights()), tmp_path / "original.safetensors")
    return tmp_path / "original.safetensors"


def test_two_loras_are_merged(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "PART_ELEMENTS", 64 * 128)  # weights in several parts
    first, second = matrices(), matrices(seed=1)
    alphas = {MODULES[0]: 2.0, MODULES[3]: 8.0}
    loras = Lora("a", 0.75, first, alphas), Lora("b", -0.5, second, {})
    made = load_file(convert(source, tmp_path / "out.safetensors", "fp32", *loras))
    weights = {name: tensor.float() for name, tensor in small_weights().items()}
    for module in MODULES:
        scale = 0.75 * alphas.get(module, RANK) / RANK
        weights[f"{module}.weight"] += scale * delta(first, module) - 0.5 * delta(second, module)
    wanted = to_bfl(weights)
    assert close(made, wanted)
    assert not close(made, to_bfl({name: tensor.float() for name, tensor in small_weights().items()}))


def test_weight_0_changes_nothing(tmp_path: Path) -> None:
    merged = convert(SMALL_MODEL, tmp_path / "a.gguf", "Q8_0", Lora("a", 0.0, matrices(), {}))
    assert merged.read_bytes() == convert(SMALL_MODEL, tmp_path / "b.gguf", "Q8_0").read_bytes()


def without(tensors: Weights, name: str) -> Weights:
    """Return all tensors but one."""
    return {key: tensor for key, tensor in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"transformer.transformer_blocks.7.attn.to_q": (128, 128)}, r"not there: transformer_blocks\.7\.attn\.to_q"),
        (
            {"transformer.x_embedder": (128, 65)},
            "another model: its x_embedder.weight is 128×65, the checkpoint's 128×64",
        ),
        ({"text_encoder.layers.0.q_proj": (8, 8)}, "nothing for a FLUX.1 transformer"),
    ],
)
def test_a_lora_for_something_else_is_refused(
    tmp_path: Path, tensors: dict[str, tuple[int, int]], message: str
) -> None:
    weights: Weights = {}
    for module, (rows, columns) in tensors.items():
        weights |= {f"{module}.lora_A.weight": torch.ones(2, columns), f"{module}.lora_B.weight": torch.ones(rows, 2)}
    with pytest.raises(KontextError, match=message) as caught:
        convert(SMALL_MODEL, tmp_path / "out.gguf", "Q8_0", Lora("a", 1.0, weights, {}))
    assert caught.value.field == "lora"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("half", ["lora_A", "lora_B"])
def test_half_a_pair_is_refused(half: str) -> None:
    name = f"transformer.x_embedder.{half}.weight"
    with pytest.raises(KontextError, match="the two matrices of"):
        Lora("a", 1.0, without(matrices(), name), {})


def test_what_is_no_pair_of_matrices_is_refused() -> None:
    with pytest.raises(KontextError, match=r"cannot merge transformer_blocks\.0\.attn\.norm_q\.weight|cannot merge"):
        Lora("a", 1.0, matrices() | {"transformer.x_embedder.lora_B.bias": torch.ones(128)}, {})


def test_what_is_for_text_encoders_is_counted() -> None:
    lora = Lora("a", 1.0, matrices() | {"text_encoder.q.lora_A.weight": torch.ones(2, 2)}, {})
    assert lora.elsewhere == 1
