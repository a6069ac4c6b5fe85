"""Sample with Forge's transformer and VAE classes what a test has prepared. Run by Forge's Python:

    cd FORGE_ROOT && python forge_sampling.py PROJECT_ROOT WEIGHTS.safetensors CASE.pt OUT.pt --always-cpu …

The case holds prompt embeddings, noise, sigmas and sized references, so the comparison leaves out text encoders, noise
and schedule, which Forge makes in its own way.
"""

from __future__ import annotations

import sys

project, weights_path, case_path, out_path = sys.argv[1:5]
sys.argv[1:5] = []
sys.path[:0] = [".", "packages_3rdparty", "repositories/huggingface_guess", project]

import torch  # noqa: E402
from backend.nn.flux import IntegratedFluxTransformer2DModel  # noqa: E402
from backend.nn.vae import IntegratedAutoencoderKL  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from lib_fluxkontext.caching.sample_key import Step  # noqa: E402
from lib_fluxkontext.hosts.forge.runtime.adapter import ForgeFluxAdapter  # noqa: E402
from lib_fluxkontext.hosts.forge.runtime.vae import encode_pixels  # noqa: E402
from lib_fluxkontext.references.encode import EncodedReferences  # noqa: E402
from lib_fluxkontext.references.tokens import reference_tokens  # noqa: E402
from lib_fluxkontext.sampling.factory import build_caches  # noqa: E402
from lib_fluxkontext.sampling.session import SamplingSession  # noqa: E402
from lib_fluxkontext.settings import KontextSettings  # noqa: E402
from lib_fluxkontext.telemetry.memory import MemoryMeter  # noqa: E402


def main() -> None:
    """Load, sample with Euler, decode, save."""
    case = torch.load(case_path, weights_only=False)
    weights = load_file(weights_path)
    transformer = IntegratedFluxTransformer2DModel(**case["transformer_config"])
    transformer.load_state_dict(_part(weights, "model.diffusion_model."))
    vae = IntegratedAutoencoderKL(**case["vae_config"])
    vae.load_state_dict(_part(weights, "vae."))
    with torch.inference_mode():
        references = None
        if case["references"]:
            latents = [vae.process_in(_mean(vae, Image.fromarray(pixels))) for pixels in case["references"]]
            references = EncodedReferences(reference_tokens(latents), 0.0, encoded=len(latents), cached=0)
        latent, kinds = _sample(transformer, case, references)
        picture = vae.decode(vae.process_out(latent))
    torch.save({"latent": latent, "picture": picture, "kinds": kinds}, out_path)


def _sample(
    transformer: torch.nn.Module, case: dict, references: EncodedReferences | None
) -> tuple[torch.Tensor, list[str]]:
    x = case["noise"]
    session = SamplingSession(
        transformer,
        ForgeFluxAdapter(),
        x.shape[2] * x.shape[3] // 4,
        MemoryMeter(torch.device("cpu"), reset_peaks=False),
        build_caches(KontextSettings(**case["settings"]), references is not None),
        references,
    )
    steps = len(case["sigmas"]) - 1
    for index, (sigma, following) in enumerate(zip(case["sigmas"][:-1], case["sigmas"][1:], strict=True)):
        sigmas = sigma.reshape(1)
        with session.call([0], Step(index, index == steps - 1), sigmas):
            flow = transformer(x, sigmas, case["prompt_embeds"], case["pooled"], case["guidance"])
        x = x + (following - sigma) * flow
    return x, [step.kind for step in session.close().steps]


def _mean(vae: torch.nn.Module, image: Image.Image) -> torch.Tensor:
    return vae.encode(encode_pixels(image).movedim(-1, 1) * 2 - 1, lambda posterior: posterior.mean)


def _part(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


main()
