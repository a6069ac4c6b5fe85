"""Training of the small model's autoencoder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from diffusers import AutoencoderKL

from tools.small_kontext.data import to_array
from tools.small_kontext.optim import Muon
from tools.small_kontext.pictures import PictureSource
from tools.small_kontext.schedule import Average, progress, rate_at
from tools.small_kontext.speed import fast_autocast
from tools.small_kontext.vae import LEVELS, PATCH, build_vae, latents_of, principal_features, set_features


class EncoderAndDecoder(torch.nn.Module):
    """What is trained: the encoder behind its features, and the decoder."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.features = torch.nn.Conv2d(3 * PATCH**2, LEVELS[3], 1)
        self.encoder = torch.nn.ModuleList([vae.encoder.down_blocks[3], vae.encoder.mid_block])
        self.encoder.extend([vae.encoder.conv_norm_out, vae.encoder.conv_out])
        self.decoder = vae.decoder


def train_vae(
    source: PictureSource,
    steps: int,
    minutes: float | None,
    device: str,
    log: Callable[[str], None],
    checkpoint: Callable[[dict], None],
    start: AutoencoderKL | None = None,
    resume: dict | None = None,
    peak: float = 0.02,
) -> AutoencoderKL:
    """Train the autoencoder: L1 and squared error, latents with a little noise, and a small penalty on their size.

    With ``start`` only that autoencoder's decoder is trained further, on its encoder's latents with a little
    noise (a tenth of their spread at most) such as the transformer leaves in them.

    Crops are 64x64, 12 a step, or 128x128, 3 a step; from 80 % on 128x128 or 256x256, one a step; eight times as many
    on CUDA. Of half of the larger ones only a part is decoded, so that latents must not depend on what lies far away.
    Until 60 % of the training the decoder's two full-resolution blocks are left out: they begin as the identity and
    cost half of the time. Attention is not trained. ``resume`` is what ``checkpoint`` was given before an interruption;
    the optimiser starts anew.
    """
    vae = (start or build_vae(source)).to(device, memory_format=torch.channels_last)
    part: torch.nn.Module = vae.decoder
    features = None
    if start is None:
        both = EncoderAndDecoder(vae).to(device, memory_format=torch.channels_last)
        features, part = both.features, both
        with torch.no_grad():
            matrix, bias = principal_features(source)
            features.weight.copy_(matrix[:, :, None, None])
            features.bias.copy_(bias)
            for resnet in vae.decoder.up_blocks[3].resnets:
                resnet.conv2.weight.zero_()
    rng = np.random.default_rng(0)
    strength = 0.02 if start is None else 0.05
    named = list(part.named_parameters())
    parameters = [parameter for _, parameter in named]
    optimiser = Muon(part, "conv_in|conv_out|features", peak, 0.1 * peak)
    average = Average(part, 0.998)
    many = 8 if device == "cuda" else 1
    finest, no_blocks = vae.decoder.up_blocks[3].resnets, torch.nn.ModuleList()
    started, step, last, recent = time.time(), 0, time.time(), 0.0
    if resume is not None:
        step = resume["step"]
        part.load_state_dict(resume["weights"])
        average = Average(part, 0.998)
    while (done := progress(step, steps, started, minutes)) < 1:
        large = rng.random() < (0.5 if start is None and done < 0.8 else 0.3)
        side = 128 * (1 + large) if start is not None or done >= 0.8 else 64 * (1 + large)
        count = {64: 12, 128: 3, 256: 1}[side] * many
        vae.decoder.up_blocks[3].resnets = no_blocks if start is None and done < 0.6 else finest
        batch = np.stack([to_array(source.picture((side, side))) for _ in range(count)])
        pixels = torch.from_numpy(batch).to(device, memory_format=torch.channels_last)
        with fast_autocast(device):
            if features is None:
                with torch.no_grad():
                    mean = vae.encode(pixels).latent_dist.mean
            else:
                mean = latents_of(vae, features, pixels)
            if large and rng.random() < 0.5:
                part_side = int(rng.integers(4, side // PATCH))
                row, column = (int(rng.integers(0, side // PATCH - part_side + 1)) for _ in range(2))
                mean = mean[:, :, row : row + part_side, column : column + part_side]
                rows = slice(PATCH * row, PATCH * (row + part_side))
                pixels = pixels[:, :, rows, PATCH * column : PATCH * (column + part_side)]
            noise = torch.randn_like(mean) * strength * torch.rand(count, 1, 1, 1, device=device)
            decoded = vae.decode(mean + noise).sample
        error = decoded.float() - pixels
        loss = 0.3 * error.abs().mean() + 2 * error.square().mean()
        if features is not None:
            loss = loss + 1e-5 * mean.float().square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for name, parameter in named:  # of blocks left out, and attention's
            if parameter.grad is None or "attention" in name:
                parameter.grad = torch.zeros_like(parameter)
        optimiser.step(rate_at(done, 1.0))
        average.update()
        step += 1
        recent += (error.square().mean().item() - recent) / (min(step, 50) if recent else 1)
        if step % 100 == 0:
            rate = (time.time() - last) / 100
            last = time.time()
            found = 10 * math.log10(4 / recent)
            log(f"vae {step}/{steps} {done:.0%} psnr {found:.2f} dB, {rate:.3f} s/step")
        if step % 500 == 0:
            vae.decoder.up_blocks[3].resnets = finest
            checkpoint({"step": step, "weights": part.state_dict()})
    vae.decoder.up_blocks[3].resnets = finest
    average.copy_back()
    if features is not None:
        set_features(vae, features.weight[:, :, 0, 0], features.bias)
    log(f"vae done after {step} steps, {(time.time() - started) / 60:.1f} min")
    return vae
