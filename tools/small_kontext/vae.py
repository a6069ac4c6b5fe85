"""The small model's autoencoder: Flux's kind (16 channels, 8x smaller), trained here from nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.upsampling import Upsample2D
from torch import Tensor

from tools.small_kontext.data import fit as fit_picture
from tools.small_kontext.data import photos, psnr, to_array
from tools.small_kontext.optim import Muon
from tools.small_kontext.pictures import PictureSource

LEVELS = (64, 64, 64, 64)
"""Channels of the four levels. 64 and not 32: the group norms have 32 groups, as Flux's have."""


def build_vae() -> AutoencoderKL:
    """Return an untrained autoencoder of Flux's layout: no quant convolutions, scaling to be measured."""
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=LEVELS,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=32,
        sample_size=128,
        scaling_factor=1.0,
        shift_factor=0.0,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    with torch.no_grad():  # so that the picture, and not biases or noise, fills the latents from the start
        for name, module in vae.named_modules():
            if isinstance(module, torch.nn.Conv2d):
                module.bias.zero_()
                module.weight.mul_(0.1 if name.endswith("conv2") else 3**0.5)
            elif name.endswith("to_out.0"):
                module.weight.zero_()
        vae.encoder.conv_out.weight[:16] *= 2
        vae.encoder.conv_out.weight[16:] = 0
        vae.encoder.conv_out.bias[16:] = -5
    return vae


def progress(step: int, steps: int, started: float, minutes: float | None) -> float:
    """Return how much of the training is done, 0 to 1, by steps or by the clock, whichever is further."""
    done = step / max(1, steps)
    if minutes is not None:
        done = max(done, (time.time() - started) / (60 * minutes))
    return min(done, 1.0)


def rate_at(done: float, peak: float, warmup: float = 0.03) -> float:
    """Return the learning rate: a linear warm-up, then a cosine down to a hundredth of ``peak``."""
    if done < warmup:
        return peak * (done + 1e-3) / (warmup + 1e-3)
    fall = (done - warmup) / (1 - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fall)))


class Average:
    """Exponential moving average of a module's parameters."""

    def __init__(self, module: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = [p.detach().clone() for p in module.parameters()]
        self.count = 0

    @torch.no_grad()
    def update(self, module: torch.nn.Module) -> None:
        """Move the average towards the module's present parameters."""
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        torch._foreach_lerp_(self.values, [p.detach() for p in module.parameters()], 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: torch.nn.Module) -> None:
        """Put the averaged values into the module."""
        for parameter, value in zip(module.parameters(), self.values, strict=True):
            parameter.copy_(value)


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderKL, side: int, device: str = "cpu") -> dict[str, float]:
    """Return the reconstruction's PSNR in dB for each held-out photograph, fitted to a square of ``side``."""
    result = {}
    for name, photo in photos(held_out=True).items():
        pixels = torch.from_numpy(to_array(fit_picture(photo, (side, side))))[None].to(device)
        decoded = vae.decode(vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
        result[name] = psnr(decoded.float().cpu().numpy(), pixels.cpu().numpy())
    return result


@torch.no_grad()
def normalise(vae: AutoencoderKL, source: PictureSource, device: str, count: int = 256) -> None:
    """Give every latent channel the same spread, exactly, and set scaling_factor and shift_factor.

    The spread is moved from the encoder's last convolution into the decoder's first, which changes no
    reconstruction. The posterior's log-variance moves with it.
    """
    for folded in (False, True):
        means = []
        for _ in range(count // 16):
            batch = np.stack([to_array(source.picture((96, 96))) for _ in range(16)])
            means.append(vae.encode(torch.from_numpy(batch).to(device)).latent_dist.mean)
        latents = torch.cat(means)
        if not folded:
            spread = latents.std((0, 2, 3))
            out, into = vae.encoder.conv_out, vae.decoder.conv_in
            out.weight[:16] /= spread[:, None, None, None]
            out.bias[:16] /= spread
            out.bias[16:] -= 2 * spread.log()
            into.weight *= spread[None, :, None, None]
        else:
            vae.register_to_config(
                scaling_factor=round(1 / float(latents.std()), 4),
                shift_factor=round(float(latents.mean()), 4),
            )


def _double(self: Upsample2D, hidden: Tensor, *_: object) -> Tensor:
    """Do what Upsample2D.forward does, in a way that torch.compile differentiates.

    torch 2.13 on the CPU compiles the bfloat16 nearest-neighbour upsampling so that its gradient is zero.
    """
    batch, channels, height, width = hidden.shape
    spread = hidden[:, :, :, None, :, None].expand(batch, channels, height, 2, width, 2)
    return self.conv(spread.reshape(batch, channels, 2 * height, 2 * width))


def train_vae(
    source: PictureSource,
    steps: int,
    minutes: float | None,
    device: str,
    compiled: bool,
    log: Callable[[str], None],
    checkpoint: Callable[[dict], None],
    start: AutoencoderKL | None = None,
    resume: dict | None = None,
    peak: float = 0.02,
) -> AutoencoderKL:
    """Train the autoencoder: L1 and squared error, and a small KL term.

    With ``start`` only that autoencoder's decoder is trained further, on its encoder's latents with a little
    noise (a tenth of their spread at most) such as the transformer leaves in them.

    Crops are 64x64, 6 a step, and 96x96, 3 a step, for the decoder alone; eight times as many on CUDA.
    ``resume`` is what ``checkpoint`` was given before an interruption; the optimiser starts anew.
    """
    vae = (start or build_vae()).to(device, memory_format=torch.channels_last)
    part = vae.decoder if start else vae
    parameters = list(part.parameters())
    optimiser = Muon(part, "conv_in|conv_out", peak, 0.1 * peak)
    average = Average(part, 0.998)
    many = 8 if device == "cuda" else 1

    def forward(pixels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.set_grad_enabled(start is None):
            posterior = vae.encode(pixels).latent_dist
        mean, logvar = posterior.mean, posterior.logvar
        latents = mean + noise * (posterior.std if start is None else 1.0)
        return vae.decode(latents).sample, mean, logvar

    run = torch.compile(forward, dynamic=False) if compiled else forward
    for module in vae.modules() if compiled else ():
        if isinstance(module, Upsample2D):
            module.forward = _double.__get__(module)
    started, step, last, recent = time.time(), 0, time.time(), 0.0
    if resume is not None:
        step = resume["step"]
        part.load_state_dict(resume["weights"])
        average = Average(part, 0.998)
    while (done := progress(step, steps, started, minutes)) < 1:
        side, count = (64, 6 * many) if start is None else (96, 3 * many)
        batch = np.stack([to_array(source.picture((side, side))) for _ in range(count)])
        pixels = torch.from_numpy(batch).to(device, memory_format=torch.channels_last)
        noise = torch.randn(count, 16, side // 8, side // 8, device=device)
        if start is not None:
            noise *= 0.1 * torch.rand(count, 1, 1, 1, device=device)
        with torch.autocast(device, torch.bfloat16):
            decoded, mean, logvar = run(pixels, noise)
        error = decoded.float() - pixels
        mean, logvar = mean.float(), logvar.float()
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        # No KL at first: while the decoder ignores the latents, Adam makes any small weight a full-size step.
        weight = 2e-5 * min(1.0, max(0.0, 5 * done - 2))
        loss = error.abs().mean() + 2 * error.square().mean()
        if start is None:
            loss = loss + weight * divergence
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step(rate_at(done, 1.0))
        average.update(part)
        step += 1
        recent += (error.square().mean().item() - recent) / (min(step, 50) if recent else 1)
        if step % 100 == 0:
            rate = (time.time() - last) / 100
            last = time.time()
            found = 10 * math.log10(4 / recent)
            log(f"vae {step}/{steps} psnr {found:.2f} dB, kl {divergence.item():.2f}, {rate:.3f} s/step")
        if step % 500 == 0:
            checkpoint({"step": step, "weights": part.state_dict()})
    average.copy_to(part)
    for module in vae.modules():
        if isinstance(module, Upsample2D):
            vars(module).pop("forward", None)
    log(f"vae done after {step} steps, {(time.time() - started) / 60:.1f} min")
    return vae
