"""Sized references → latents (``encode``, held in ``latent_cache``) → tokens (``tokens``), placed by ``placement``."""
