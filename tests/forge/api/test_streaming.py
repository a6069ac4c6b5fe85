"""References' keys and values kept on the device and streamed from host memory, with weights in every format.

On the CPU there is always room, so a test hook reports a card without any: the keys and values then take the way
through host memory, and the picture must be the same to the bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support import checkpoint_files as files
from tests.support.forge_install import NEO
from tests.support.forge_server import ForgeServer, Result
from tests.support.host_modules import require_bitsandbytes
from tests.support.payloads import (
    HOOKS,
    difference,
    first_pass,
    kontext,
    made,
    pixels,
    step_kinds,
    two_references,
)
from tests.support.selection import MERGED, ONLINE, selected

SIZE = {"width": 128, "height": 128}
SAMPLING: dict[str, Any] = {"steps": 6, **SIZE}
KEPT = {"reference_refresh": 4}
KINDS = ["computed", "kept", "kept", "kept", "computed", "kept"]
"""The second refresh overwrites what is in host memory, and the last step reads it."""

DETECTED = {files.FLUX_FP8: "torch.float8_e4m3fn", files.FLUX_NF4: "nf4", files.FLUX_GGUF: "gguf"}
"""What Forge prints of weights that it leaves quantised."""


def streamed(forge: ForgeServer, settings: dict[str, Any], **payload: Any) -> Result:
    """Generate as if the card had no room for the references' keys and values."""
    result = forge.txt2img(**kontext(settings, **{HOOKS: {"no_room_on_card": True}}), **payload)
    assert result.status == 200, result.reply
    return result


def assert_streaming_changes_nothing(forge: ForgeServer, settings: dict[str, Any], **payload: Any) -> Result:
    """Compare a picture on resident keys and values with one on streamed ones; return the resident one."""
    resident = made(forge, settings, **payload)
    from_host = streamed(forge, settings, **payload)
    usage, host_usage = first_pass(resident)["key_values"], first_pass(from_host)["key_values"]
    assert (usage["place"], host_usage["place"]) == ("device", "host")
    assert usage["refreshes"] > 0
    assert usage["peak_bytes"] > 0
    assert host_usage == usage | {"place": "host"}
    assert first_pass(from_host)["notes"] == first_pass(resident)["notes"] == []
    assert step_kinds(from_host) == step_kinds(resident)
    assert len(from_host.images) == len(resident.images)
    for index in range(len(resident.images)):
        assert np.array_equal(pixels(from_host, index), pixels(resident, index))
    return resident


@pytest.mark.parametrize("checkpoint", [files.FLUX_BF16, *DETECTED])
def test_streamed_and_resident_references_agree_in_every_format(forge: ForgeServer, checkpoint: str) -> None:
    if checkpoint == files.FLUX_NF4:
        require_bitsandbytes(forge.host)
    with selected(forge, checkpoint):
        plain = pixels(made(forge, **SAMPLING))
        every = pixels(made(forge, two_references(), **SAMPLING))
        if checkpoint in DETECTED:
            name = "Model Data" if forge.host is NEO else "UNet"
            assert f"Using Detected {name} Type: {DETECTED[checkpoint]}" in forge.log_text()
        kept = assert_streaming_changes_nothing(forge, two_references(**KEPT), **SAMPLING)
        assert step_kinds(kept) == KINDS
        assert 0 < difference(pixels(kept), every) < 0.75 * difference(plain, every)
        # First Block Cache decides in each step on the first block's cached references, and here always to compute.
        deciding = two_references(cache=True, cache_threshold=1e-9, reference_refresh=1)
        decided = made(forge, deciding, **SAMPLING)
        assert first_pass(decided)["key_values"]["refreshes"] > 0
        assert np.array_equal(pixels(decided), every)


# Not NF4, whose weights Forge dequantises for a LoRA on CUDA alone.
@pytest.mark.parametrize("checkpoint", [files.FLUX_FP8, files.FLUX_GGUF])
@pytest.mark.parametrize("low_bits", [MERGED, ONLINE])
def test_streamed_and_resident_references_agree_with_a_lora_on_quantised_weights(
    forge: ForgeServer, checkpoint: str, low_bits: str
) -> None:
    prompt = f"a red lighthouse <lora:{files.LORA.removesuffix('.safetensors')}:1>"
    with selected(forge, checkpoint, low_bits):
        before = pixels(made(forge, two_references(**KEPT), prompt="a red lighthouse", **SAMPLING))
        printed = len(forge.log_text())
        kept = assert_streaming_changes_nothing(forge, two_references(**KEPT), prompt=prompt, **SAMPLING)
        online = low_bits == ONLINE or (forge.host is NEO and checkpoint == files.FLUX_GGUF)  # Neo leaves no choice
        assert f"on_the_fly = {online}" in forge.log_text()[printed:]
        assert step_kinds(kept) == KINDS
        every = pixels(made(forge, two_references(), prompt=prompt, **SAMPLING))
        plain = pixels(made(forge, prompt=prompt, **SAMPLING))
        assert 0 < difference(pixels(kept), every) < 0.75 * difference(plain, every)
        assert difference(pixels(kept), before) > 0.5
        after = streamed(forge, two_references(**KEPT), prompt="a red lighthouse", **SAMPLING)
        assert np.array_equal(pixels(after), before)


@pytest.mark.both_hosts
def test_streamed_and_resident_references_agree_in_a_batch_with_the_cache_and_a_negative_prompt(
    forge: ForgeServer,
) -> None:
    """Rows hit and miss apart, so that keys and values of other rows are fetched together each time."""
    settings = two_references(cache=True, cache_threshold=0.65, **KEPT)
    payload: dict[str, Any] = {
        "batch_size": 2,
        "cfg_scale": 3.0,
        "negative_prompt": "fog and rain",
        "steps": 9,
        "seed": 3,
        **SIZE,
    }
    result = assert_streaming_changes_nothing(forge, settings, **payload)
    assert {"kept", "mixed", "reused"} <= set(step_kinds(result))
