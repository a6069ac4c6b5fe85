"""Run by Forge Neo's Python: FLUX.2 [klein]'s shape of transformer, small and random, with references of Neo's own.

cd NEO_ROOT && python neo_klein.py PROJECT_ROOT OUT.json --cpu
"""

from __future__ import annotations

import json
import sys
from typing import Any

project, out_path = sys.argv[1:3]
sys.argv[1:3] = []
sys.path[:0] = [".", "modules_forge/packages", project]

import torch  # noqa: E402
from backend.args import dynamic_args  # noqa: E402
from backend.nn.flux import IntegratedFluxTransformer2DModel  # noqa: E402

from lib_fluxkontext.caching.sample_key import Step  # noqa: E402
from lib_fluxkontext.hosts.forge.runtime.adapter import flux_adapter, why_no_references  # noqa: E402
from lib_fluxkontext.sampling.factory import build_caches  # noqa: E402
from lib_fluxkontext.sampling.session import SamplingSession  # noqa: E402
from lib_fluxkontext.settings import KontextSettings  # noqa: E402
from lib_fluxkontext.telemetry.memory import MemoryMeter  # noqa: E402

KLEIN: dict[str, Any] = {
    "in_channels": 16, "out_channels": 16, "vec_in_dim": None, "context_in_dim": 24, "hidden_size": 64,
    "mlp_ratio": 3.0, "num_heads": 2, "depth": 2, "depth_single_blocks": 3, "axes_dim": [8, 8, 8, 8], "theta": 2000,
    "patch_size": 1, "qkv_bias": False, "guidance_embed": False, "txt_ids_dims": [3], "global_modulation": True,
    "mlp_silu_act": True, "ops_bias": False, "default_ref_method": "index", "ref_index_scale": 10.0,
}  # fmt: skip
"""As Neo's loader configures FLUX.2, but narrow: four axes of ids, shared modulation, no patches, "index" placement."""

STEPS = 6
REFERENCES = ((4, 6), (8, 2))


def sampled(transformer: torch.nn.Module, settings: KontextSettings | None) -> dict[str, Any]:
    """Sample with Euler; with None the extension is not there."""
    generator = torch.Generator().manual_seed(1)
    x, context = torch.randn(1, 16, 8, 8, generator=generator), torch.randn(1, 5, 24, generator=generator)
    adapter = flux_adapter(transformer)
    assert adapter is not None
    session = None
    if settings is not None:
        tokens = tuple(rows * columns for rows, columns in adapter.host_reference_grids(transformer))
        session = SamplingSession(
            transformer,
            adapter,
            adapter.image_tokens(transformer, 8, 8),
            MemoryMeter(torch.device("cpu"), reset_peaks=False),
            build_caches(settings, has_references=True),
            host_reference_tokens=tokens,
        )
    for index in range(STEPS):
        sigma = torch.tensor([1.0 - index / STEPS])
        if session is None:
            flow = transformer(x, sigma, context)
        else:
            with session.call([0], Step(index, index == STEPS - 1), sigma):
                flow = transformer(x, sigma, context)
        x = x - flow / STEPS
    report = session.close() if session is not None else None
    return {"latent": x, "kinds": [step.kind for step in report.steps] if report else [], "report": report}


def main() -> None:
    """Compare."""
    torch.manual_seed(0)
    transformer = IntegratedFluxTransformer2DModel(**KLEIN).eval()
    dynamic_args.ref_latents = [torch.randn(1, 16, *side) for side in REFERENCES]
    with torch.inference_mode():
        plain = sampled(transformer, None)
        measured = sampled(transformer, KontextSettings(cache_threshold=1e-9, reference_refresh=1))
        kept = sampled(transformer, KontextSettings(cache=False, reference_refresh=3))
        reused = sampled(transformer, KontextSettings(cache_threshold=1.0))
        dynamic_args.ref_latents = []
        without = sampled(transformer, None)
    result = {
        "why_no_references": why_no_references(transformer),
        "measured_is_plain": bool(torch.equal(measured["latent"], plain["latent"])),
        "reference_tokens": measured["report"].reference_tokens,
        "kept_kinds": kept["kinds"],
        "reused_kinds": reused["kinds"],
        "kept_off": float((kept["latent"] - plain["latent"]).abs().mean()),
        "without_off": float((without["latent"] - plain["latent"]).abs().mean()),
    }
    with open(out_path, "w", encoding="utf-8") as file:
        json.dump(result, file)


main()
