"""The two key layouts."""

from __future__ import annotations

import pytest
import torch

from lib_fluxkontext.convert.keys import bfl_names, diffusers_names, segments, to_bfl, to_diffusers
from lib_fluxkontext.errors import KontextError
from tests.support.convert_files import BLOCK_PARTS, QKV, small_weights


def test_there_and_back_is_the_same() -> None:
    weights = small_weights()
    back = to_diffusers(to_bfl(weights))
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)


def test_fused_weights_are_their_parts() -> None:
    weights = small_weights()
    original = to_bfl(weights)
    for name, parts in BLOCK_PARTS.items():
        assert torch.equal(original[name], torch.cat([weights[part] for part in parts])), name


def test_the_last_modulations_halves_change_places() -> None:
    weights = small_weights()
    scale, shift = weights["norm_out.linear.weight"].chunk(2)
    assert torch.equal(to_bfl(weights)["final_layer.adaLN_modulation.1.weight"], torch.cat([shift, scale]))


def test_names_without_a_counterpart_are_known_as_such() -> None:
    assert diffusers_names("double_blocks.0.img_attn.lora.weight") == ()
    assert diffusers_names("img_in.scale") == ("x_embedder.scale",)  # which no checkpoint has
    assert segments("distilled_guidance_layer.in_proj.weight", 10, 5) == ()


def test_a_missing_part_is_named() -> None:
    names = set(small_weights()) - {"transformer_blocks.0.attn.to_k.weight"}
    with pytest.raises(KontextError, match=rf"transformer_blocks\.0\.attn\.to_k\.weight is missing, a part of {QKV}"):
        bfl_names(names)


def test_tensors_of_another_model_are_named() -> None:
    with pytest.raises(KontextError, match="does not have: controlnet_x_embedder.weight"):
        bfl_names({*small_weights(), "controlnet_x_embedder.weight"})
