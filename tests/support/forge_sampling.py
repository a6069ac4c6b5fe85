"""Sample with a host's transformer and VAE classes what a test has prepared. Run by the Python of Forge or Forge Neo:

    cd FORGE_ROOT && python forge_sampling.py PROJECT_ROOT WEIGHTS.safetensors CASES.pt OUT.pt --always-cpu …

A case holds prompt embeddings, noise, sigmas and sized references, so the comparison leaves out text encoders, noise
and schedule, which Forge makes in its own way.
"""

from __future__ import annotations

import sys

project, weights_path, cases_path, out_path = sys.argv[1:5]
sys.argv[1:5] = []
sys.path[:0] = [".", "packages_3rdparty", "repositories/huggingface_guess", "modules_forge/packages", project]

import inspect  # noqa: E402
from types import SimpleNamespace  # noqa: E402

import torch  # noqa: E402
from backend.nn.flux import IntegratedFluxTransformer2DModel  # noqa: E402
from backend.nn.vae import IntegratedAutoencoderKL  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from lib_fluxkontext.caching.sample_key import Step  # noqa: E402
from lib_fluxkontext.hosts.forge.runtime.adapter import flux_adapter  # noqa: E402
from lib_fluxkontext.hosts.forge.runtime.vae import encode_pixels, posterior_mean  # noqa: E402
from lib_fluxkontext.references.encode import EncodedReferences  # noqa: E402
from lib_fluxkontext.references.tokens import reference_tokens  # noqa: E402
from lib_fluxkontext.sampling.factory import build_caches  # noqa: E402
from lib_fluxkontext.sampling.session import SamplingSession  # noqa: E402
from lib_fluxkontext.settings import KontextSettings  # noqa: E402
from lib_fluxkontext.telemetry.memory import MemoryMeter  # noqa: E402


def main() -> None:
    """Load; sample all cases with Euler, decode, save."""
    cases = torch.load(cases_path, weights_only=False)
    models = _models(load_file(weights_path), cases[0])
    with torch.inference_mode():
        torch.save([_result(*models, case) for case in cases], out_path)


def _models(weights: dict[str, torch.Tensor], case: dict) -> tuple[torch.nn.Module, torch.nn.Module]:
    patch = (
        {"patch_size": 2, "out_channels": 16} if "patch_size" in parameters(IntegratedFluxTransformer2DModel) else {}
    )
    transformer = IntegratedFluxTransformer2DModel(**case["transformer_config"], **patch)
    own = set(transformer.state_dict())
    state = _part(weights, "model.diffusion_model.")
    # Neo's loader renames the norms' scales, too.
    transformer.load_state_dict({n if n in own else n.replace(".scale", ".weight"): w for n, w in state.items()})
    vae = IntegratedAutoencoderKL(**case["vae_config"])
    vae.load_state_dict(_part(weights, "vae."))
    if getattr(vae, "latent_format", vae) is None:  # Neo's loader sets it
        scale, shift = case["vae_config"]["scaling_factor"], case["vae_config"]["shift_factor"]
        vae.latent_format = SimpleNamespace(
            process_in=lambda latent: (latent - shift) * scale, process_out=lambda latent: latent / scale + shift
        )
    return transformer, vae


def _result(transformer: torch.nn.Module, vae: torch.nn.Module, case: dict) -> dict:
    references = None
    if case["references"]:
        latents = [vae.process_in(_mean(vae, Image.fromarray(pixels))) for pixels in case["references"]]
        references = EncodedReferences(reference_tokens(latents), 0.0, encoded=len(latents), cached=0)
    latent, kinds = _sample(transformer, case, references)
    return {"latent": latent, "picture": vae.decode(vae.process_out(latent)), "kinds": kinds}


def _sample(
    transformer: torch.nn.Module, case: dict, references: EncodedReferences | None
) -> tuple[torch.Tensor, list[str]]:
    x = case["noise"]
    session = SamplingSession(
        transformer,
        flux_adapter(transformer),
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


def parameters(factory: type) -> set[str]:
    """Names of what a class is made with."""
    return set(inspect.signature(factory).parameters)


def _mean(vae: torch.nn.Module, image: Image.Image) -> torch.Tensor:
    return posterior_mean(vae)(encode_pixels(image).movedim(-1, 1) * 2 - 1)


def _part(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


main()
