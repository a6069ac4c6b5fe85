"""FLUX.1's geometry: pixels → latent → tokens. The one place that knows the VAE's scale and the patch size.

The VAE makes one latent pixel of 8×8 pixels, the transformer one token of 2×2 latent pixels (Black Forest Labs, flux,
``src/flux/modules/autoencoder.py`` and ``src/flux/sampling.py``).
"""

from __future__ import annotations

VAE_SCALE = 8
"""Pixels on a latent pixel's side."""

PATCH = 2
"""Latent pixels on a token's side."""

TOKEN_SIDE = VAE_SCALE * PATCH
"""Pixels on a token's side."""

LATENT_CHANNELS = 16
"""Channels of the VAE's latent."""

TOKEN_CHANNELS = LATENT_CHANNELS * PATCH**2
"""Channels of an image token where references can be appended; Fill, Canny and Depth checkpoints have more."""


def latent_grid(height: int, width: int) -> tuple[int, int]:
    """Return rows and columns in tokens of a latent, sides in latent pixels; odd ones are padded to a whole patch."""
    return -(-height // PATCH), -(-width // PATCH)


def latent_tokens(height: int, width: int) -> int:
    """Count the tokens of a latent, sides in latent pixels; see ``latent_grid``."""
    rows, columns = latent_grid(height, width)
    return rows * columns


def pixel_tokens(width: int, height: int) -> int:
    """Count the tokens of an image, sides in pixels. The VAE drops what does not fill a whole latent pixel."""
    return latent_tokens(height // VAE_SCALE, width // VAE_SCALE)
