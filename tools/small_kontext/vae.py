"""The small model's autoencoder: Flux's kind (16 channels, 8x smaller), trained here from nothing."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from tools.small_kontext.data import photos, psnr, to_array
from tools.small_kontext.pictures import PictureSource
from tools.small_kontext.targets import fit

LEVELS = (64, 64, 128, 128)
"""Channels of the four levels. 64 at least: the group norms have 32 groups, as Flux's have, and a group of one
channel would forget the picture's brightness."""

PATCH = 8
"""Pixels of a latent's side."""

CONSTANT = 8.0
"""What half of the deepest channels hold at first, in units of the others' spread: see ``principal_features``."""

BRIGHTNESS = 3
"""The first so many principal components are brightness and colour, whose mean differs from picture to picture."""


def build_vae(source: PictureSource) -> AutoencoderKL:
    """Return an untrained autoencoder of Flux's layout: no quant convolutions, scaling to be measured.

    The encoder's first three levels only move pixels into channels and compress them by their principal
    components, as ``set_features`` writes them: what costs most at full resolution needs no training. Its latents are
    made to depend on what lies near them alone, so that a part of a picture has the same latents wherever it stands:
    constants keep the group norms from adapting to the picture, and the attention adds nothing.
    """
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
            elif ".attentions." in name and isinstance(module, torch.nn.Linear):
                module.weight.zero_()
        matrix, bias = principal_features(source)
        set_features(vae, matrix, bias)
        encoder = vae.encoder
        for resnet in (*encoder.down_blocks[3].resnets, *encoder.mid_block.resnets):
            resnet.conv1.weight.view(32, 4, -1)[:, 2:] = 0
            resnet.conv1.bias.view(32, 4)[:] = torch.tensor([0.0, 0.0, CONSTANT, -CONSTANT])
        encoder.conv_out.weight.zero_()
        for channel in range(16):
            encoder.conv_out.weight[channel, 4 * channel, 1, 1] = CONSTANT
            if channel < BRIGHTNESS:
                encoder.conv_out.weight[channel, 4 * channel + 1, 1, 1] = -CONSTANT
        encoder.conv_out.bias[16:] = -5
    return vae


def principal_features(source: PictureSource, count: int = 1500) -> tuple[Tensor, Tensor]:
    """Return a matrix (128, 192) and bias (128) that make the deepest level's input of a patch's pixels.

    Every group of four channels has two principal components of ``PATCH`` x ``PATCH`` pixels, each of unit
    spread, and plus and minus ``CONSTANT``, so that the group norm divides by about the same in every picture. The
    components of ``BRIGHTNESS`` stand with their negative instead, so that it subtracts nothing either.
    """
    pixels = torch.from_numpy(np.stack([to_array(source.picture((64, 64))) for _ in range(count)]))
    patches = torch.nn.functional.pixel_unshuffle(pixels, PATCH).movedim(1, -1).reshape(-1, 3 * PATCH**2)
    values, vectors = torch.linalg.eigh(torch.cov(patches.T))
    spread, components = values.flip(0).sqrt(), vectors.flip(1).T
    matrix, bias = torch.zeros(LEVELS[3], 3 * PATCH**2), torch.zeros(LEVELS[3])
    for group in range(32):
        pair = ((group, 1), (group, -1)) if group < BRIGHTNESS else ((group, 1), (group + 32 - BRIGHTNESS, 1))
        for place, (component, sign) in enumerate(pair):
            matrix[4 * group + place] = sign * components[component] / spread[component]
            bias[4 * group + place] = -(patches.mean(0) @ matrix[4 * group + place])
        bias[4 * group + 2], bias[4 * group + 3] = CONSTANT, -CONSTANT
    return matrix, bias


@torch.no_grad()
def set_features(vae: AutoencoderKL, matrix: Tensor, bias: Tensor) -> None:
    """Let the encoder's first three levels compute ``matrix`` @ patch + ``bias``, exactly.

    The patch is ordered as ``pixel_unshuffle`` orders it: channel, row, column.
    """
    encoder = vae.encoder
    encoder.conv_in.weight.zero_()
    for colour in range(3):
        encoder.conv_in.weight[colour, colour, 1, 1] = 1
    for level in range(3):
        for resnet in encoder.down_blocks[level].resnets:
            resnet.conv2.weight.zero_()
            if resnet.conv_shortcut is not None:
                resnet.conv_shortcut.weight.zero_()
                for channel in range(resnet.in_channels):
                    resnet.conv_shortcut.weight[channel, channel] = 1
    # A downsampling convolution of stride 2 sees rows and columns 0 and 1 of its cell (and 2, left at zero).
    for level, channels in ((0, 3), (1, 12)):
        weight = encoder.down_blocks[level].downsamplers[0].conv.weight.zero_()
        for channel in range(channels):
            for row in (0, 1):
                for column in (0, 1):
                    weight[4 * channel + 2 * row + column, channel, row, column] = 1
    last = encoder.down_blocks[2].downsamplers[0].conv
    last.weight.zero_()
    for channel in range(3 * PATCH**2):
        inner, row, column = _cell(channel)
        last.weight[:, inner, row, column] = matrix[:, channel]
    last.bias.copy_(bias)


@torch.no_grad()
def features_of(vae: AutoencoderKL) -> torch.nn.Conv2d:
    """Return what ``set_features`` wrote, as a convolution of ``pixel_unshuffle``d pixels."""
    last = vae.encoder.down_blocks[2].downsamplers[0].conv
    features = torch.nn.Conv2d(3 * PATCH**2, LEVELS[3], 1)
    for channel in range(3 * PATCH**2):
        inner, row, column = _cell(channel)
        features.weight[:, channel, 0, 0] = last.weight[:, inner, row, column]
    features.bias.copy_(last.bias)
    return features


def _cell(channel: int) -> tuple[int, int, int]:
    """Return where a channel of a ``pixel_unshuffle``d patch stands before the last downsampling: channel, row, column.

    Each downsampling has moved the lowest bit of row and column into the channel.
    """
    colour, row, column = channel // PATCH**2, channel // PATCH % PATCH, channel % PATCH
    first, second = 2 * (row & 1) + (column & 1), 2 * (row >> 1 & 1) + (column >> 1 & 1)
    return 16 * colour + 4 * first + second, row >> 2, column >> 2


def latents_of(vae: AutoencoderKL, features: torch.nn.Conv2d, pixels: Tensor) -> Tensor:
    """Return the posterior means (N, 16, h/8, w/8) of pixels, with ``features`` in place of the first three levels."""
    encoder = vae.encoder
    hidden = features(torch.nn.functional.pixel_unshuffle(pixels, PATCH))
    hidden = encoder.mid_block(encoder.down_blocks[3](hidden))
    return encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(hidden)))[:, :16]


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderKL, side: int, device: str = "cpu") -> dict[str, float]:
    """Return the reconstruction's PSNR in dB for each held-out photograph, fitted to a square of ``side``."""
    result = {}
    for name, photo in photos(held_out=True).items():
        pixels = torch.from_numpy(to_array(fit(photo, (side, side))))[None].to(device)
        decoded = vae.decode(vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
        result[name] = psnr(decoded.float().cpu().numpy(), pixels.cpu().numpy())
    return result


@torch.no_grad()
def normalise(vae: AutoencoderKL, source: PictureSource, device: str, count: int = 256) -> None:
    """Give the latent channels their spreads, and set scaling_factor and shift_factor.

    A channel's spread is the square root of what it moves in the picture: between equal spreads, with which the
    transformer's loss would weigh fine texture like brightness, and spreads as in the picture, with which texture would
    drown in the noise at once. It is moved from the encoder's last convolution into the decoder's first, which changes
    no reconstruction.
    """
    latents = _latents(vae, source, device, count)
    spread = latents.std((0, 2, 3))
    factor = effects(vae, latents[:32], spread).sqrt() / spread
    out, into = vae.encoder.conv_out, vae.decoder.conv_in
    out.weight[:16] *= factor[:, None, None, None]
    out.bias[:16] *= factor
    out.bias[16:] += 2 * factor.log()
    into.weight /= factor[None, :, None, None]
    latents = _latents(vae, source, device, count)
    vae.register_to_config(
        scaling_factor=round(1 / float(latents.std()), 4),
        shift_factor=round(float(latents.mean()), 4),
    )


def _latents(vae: AutoencoderKL, source: PictureSource, device: str, count: int) -> Tensor:
    means = []
    for _ in range(count // 16):
        batch = np.stack([to_array(source.picture((128, 128))) for _ in range(16)])
        means.append(vae.encode(torch.from_numpy(batch).to(device)).latent_dist.mean)
    return torch.cat(means)


def effects(vae: AutoencoderKL, latents: Tensor, spread: Tensor, share: float = 0.25) -> Tensor:
    """Return how far a channel's ``spread`` moves the picture, (16,), root mean square, measured with a ``share``."""
    exact = vae.decode(latents).sample
    moved = []
    for channel in range(len(spread)):
        changed = latents.clone()
        changed[:, channel] += share * spread[channel]
        moved.append((vae.decode(changed).sample - exact).square().mean().sqrt() / share)
    return torch.stack(moved)
