"""A checkpoint of the hires pass that is not FLUX is refused before the first pass, unless no reference runs there."""

from __future__ import annotations

import pytest

from tests.support import checkpoint_files as files
from tests.support.forge_server import ForgeServer
from tests.support.payloads import kontext, made, report, two_references

pytestmark = pytest.mark.both_hosts

HIRES = {
    "enable_hr": True,
    "hr_scale": 1.5,
    "hr_upscaler": "None",
    "hr_second_pass_steps": 1,
    "denoising_strength": 0.5,
    "hr_additional_modules": ["Use same choices"],
    "hr_cfg": 1.0,
    "width": 128,
    "height": 128,
    "steps": 1,
}


def test_it_is_refused_by_name_before_anything_is_sampled(forge: ForgeServer) -> None:
    made(forge, steps=1)
    printed = len(forge.log_text())
    refused = forge.txt2img(**kontext(two_references()), **HIRES, hr_checkpoint_name=files.SD15)
    assert refused.status == 422
    assert refused.reply["detail"].startswith('hires_references: the hires checkpoint "small-sd15" is not FLUX')
    assert 'untick "References in the hires pass too"' in refused.reply["detail"]
    assert "it/s" not in forge.log_text()[printed:]


def test_one_that_is_flux_is_taken(forge: ForgeServer) -> None:
    result = made(forge, two_references(), **HIRES, hr_checkpoint_name=files.FLUX_SCHNELL)
    assert [len(sampling["reference_tokens"]) for sampling in report(result)["passes"]] == [2, 2]
