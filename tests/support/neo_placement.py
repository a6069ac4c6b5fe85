"""Run by Forge Neo's Python: the position ids that Neo's own transformer gives its references, by each placement.

cd NEO_ROOT && python neo_placement.py CASES.json OUT.json --cpu

A case is {"placement", "canvas", "references"}, sides in latent pixels; its result the ids of the references' tokens.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

cases_path, out_path = map(Path, sys.argv[1:3])
sys.argv[1:3] = []
sys.path[:0] = [".", "modules_forge/packages"]

import torch  # noqa: E402
from backend.args import dynamic_args  # noqa: E402
from backend.nn.flux import IntegratedFluxTransformer2DModel  # noqa: E402

NARROW: dict[str, Any] = {
    "in_channels": 16, "out_channels": 16, "vec_in_dim": 8, "context_in_dim": 8, "hidden_size": 32, "mlp_ratio": 1.0,
    "num_heads": 1, "depth": 1, "depth_single_blocks": 1, "axes_dim": [8, 12, 12], "theta": 10000, "patch_size": 2,
    "qkv_bias": True, "guidance_embed": False,
}  # fmt: skip
"""FLUX.1's shape, but narrow."""


def reference_ids(transformer: torch.nn.Module, case: dict[str, Any]) -> list[list[float]]:
    """Return the ids behind the picture's own."""
    seen: list[torch.Tensor] = []

    def forward_orig(img: torch.Tensor, img_ids: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append(img_ids[0])
        return torch.zeros(1, img.shape[1], 64)

    transformer.forward_orig = forward_orig
    canvas = torch.zeros(1, 16, *case["canvas"])
    dynamic_args.ref_latents = [torch.zeros(1, 16, *sides) for sides in case["references"]]
    transformer(canvas, torch.ones(1), torch.zeros(1, 3, 8), torch.zeros(1, 8), ref_latents_method=case["placement"])
    own = -(-canvas.shape[2] // 2) * -(-canvas.shape[3] // 2)
    return seen[0][own:].tolist()


with torch.inference_mode():
    model = IntegratedFluxTransformer2DModel(**NARROW).eval()
    results = [reference_ids(model, case) for case in json.loads(cases_path.read_text(encoding="utf-8"))]
out_path.write_text(json.dumps(results), encoding="utf-8")
