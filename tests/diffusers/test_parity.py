"""Both hosts give the same picture, and diffusers' own pipeline gives it too, from the same small weights."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lib_fluxkontext.hosts.diffusers.loader import SMALL_MODEL
from lib_fluxkontext.hosts.diffusers.pipeline import Job, generate
from lib_fluxkontext.images.decode import Reference
from lib_fluxkontext.settings import KontextSettings
from tests.diffusers.conftest import SIDE
from tests.support.forge_install import HOSTS, REPO_ROOT, Host
from tools.small_kontext.export_bfl import export

pytestmark = pytest.mark.slow

AS_IT_IS = {"sizing": "no change", "cache": False}
STEPS = 8


def job(prompt: str, steps: int = STEPS) -> Job:
    """Return a job for a picture of ``SIDE``."""
    return Job(prompt, SIDE, SIDE, steps=steps, seed=3)


def test_with_one_reference_the_result_is_diffusers_own(pipeline: Any, woman: Reference) -> None:
    mine = generate(pipeline, job("the first picture"), [woman], KontextSettings(**AS_IT_IS))
    theirs = pipeline(
        image=woman.image,
        prompt="the first picture",
        width=SIDE,
        height=SIDE,
        max_area=SIDE * SIDE,
        _auto_resize=False,
        num_inference_steps=STEPS,
        guidance_scale=3.5,
        generator=torch.Generator("cpu").manual_seed(3),
        output_type="latent",
        max_sequence_length=min(512, pipeline.tokenizer_2.model_max_length),
    ).images
    assert torch.allclose(mine.latents, theirs, atol=1e-4)
    without = generate(pipeline, job("the first picture"), [], KontextSettings(**AS_IT_IS))
    assert (mine.latents - without.latents).abs().mean() > 0.05


def test_without_references_measuring_changes_nothing(pipeline: Any) -> None:
    mine = generate(pipeline, job("the first picture"), [], KontextSettings(cache=False))
    measured = generate(pipeline, job("the first picture"), [], KontextSettings(cache_threshold=1e-9))
    assert torch.equal(mine.latents, measured.latents)


CACHES = {
    "no cache": {"cache": False},
    "cache": {"cache_threshold": 0.3, "cache_forecast": False},
    "cache with forecast": {"cache_threshold": 0.3},
    "reference reuse": {"cache": False, "reference_refresh": 4},
    "both": {"cache_threshold": 0.3, "reference_refresh": 3},
    "both with correction": {"cache_threshold": 0.3, "reference_refresh": 3, "cache_correct": True},
}


COUNTS = (0, 1, 2)
PROMPT = "the first picture on the left, the second on the right"


def noise() -> torch.Tensor:
    """The same start noise in every host, packed."""
    return torch.randn(1, SIDE * SIDE // 256, 64, generator=torch.Generator().manual_seed(5))


def settings_of(caches: str) -> dict[str, Any]:
    return {"sizing": "no change", **CACHES[caches]}


@pytest.fixture(scope="module", params=HOSTS, ids=lambda host: host.name)
def hosts_results(
    request: pytest.FixtureRequest,
    pipeline: Any,
    woman: Reference,
    cat: Reference,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[tuple[int, str], dict[str, Any]]:
    """What a host's classes make of every case, by count of references and caches; in one run of its Python."""
    host: Host = request.param
    reason = host.unavailable()
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp(host.name)
    generate(pipeline, job(PROMPT, 12), latents=noise())  # sets the schedule that the cases take
    names = [(count, caches) for count in COUNTS for caches in CACHES]
    cases = [case_of(pipeline, [woman, cat][:count], settings_of(caches)) for count, caches in names]
    export(SMALL_MODEL, folder / "small.safetensors")
    torch.save(cases, folder / "cases.pt")
    script = Path(__file__).resolve().parents[1] / "support" / "forge_sampling.py"
    command = [host.python, script, REPO_ROOT, *(folder / name for name in ("small.safetensors", "cases.pt", "out.pt"))]
    command += host.cpu_flags
    done = subprocess.run([*map(str, command)], cwd=host.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(names, torch.load(folder / "out.pt", weights_only=False), strict=True))


@pytest.mark.forge
@pytest.mark.parametrize("caches", CACHES)
@pytest.mark.parametrize("count", COUNTS)
def test_a_hosts_model_classes_give_the_same_picture(
    pipeline: Any, woman: Reference, cat: Reference, count: int, caches: str, hosts_results: dict
) -> None:
    theirs, settings = hosts_results[count, caches], settings_of(caches)
    mine = generate(pipeline, job(PROMPT, 12), [woman, cat][:count], KontextSettings(**settings), latents=noise())
    kinds = [step.kind for step in mine.report.steps]
    assert kinds == theirs["kinds"]
    expected = {"computed"} | ({"reused"} if "cache_threshold" in settings else set())
    assert set(kinds) - {"kept"} == expected
    if caches != "both":  # there First Block Cache decides whether a step between refreshes is computed
        assert ("kept" in kinds) == (caches == "reference reuse" and count > 0)
    picture = ((theirs["picture"][0].permute(1, 2, 0) / 2 + 0.5).clamp(0, 1) * 255).numpy()
    assert np.abs(picture - np.asarray(mine.image, dtype=np.float32)).mean() < 1.0


def case_of(pipeline: Any, references: list[Reference], settings: dict[str, Any]) -> dict[str, Any]:
    """The same job, as ``forge_sampling.py`` takes it."""
    embeds, pooled, _ = pipeline.encode_prompt(
        prompt=PROMPT, prompt_2=None, max_sequence_length=min(512, pipeline.tokenizer_2.model_max_length)
    )
    config, vae = pipeline.transformer.config, pipeline.vae.config
    return {
        "transformer_config": {
            "in_channels": config.in_channels // 4,
            "vec_in_dim": config.pooled_projection_dim,
            "context_in_dim": config.joint_attention_dim,
            "hidden_size": config.attention_head_dim * config.num_attention_heads,
            "mlp_ratio": 4.0,
            "num_heads": config.num_attention_heads,
            "depth": config.num_layers,
            "depth_single_blocks": config.num_single_layers,
            "axes_dim": list(config.axes_dims_rope),
            "theta": 10000,
            "qkv_bias": True,
            "guidance_embed": config.guidance_embeds,
        },
        "vae_config": {
            name: getattr(vae, name)
            for name in ("in_channels", "out_channels", "down_block_types", "up_block_types", "block_out_channels",
                         "layers_per_block", "latent_channels", "norm_num_groups", "scaling_factor", "shift_factor",
                         "use_quant_conv", "use_post_quant_conv")
        },
        "prompt_embeds": embeds.detach(),
        "pooled": pooled.detach(),
        "guidance": torch.tensor([3.5]),
        "noise": pipeline._unpack_latents(noise(), SIDE, SIDE, pipeline.vae_scale_factor),
        "sigmas": pipeline.scheduler.sigmas.clone(),
        "references": [np.asarray(reference.image) for reference in references],
        "settings": settings,
    }  # fmt: skip
