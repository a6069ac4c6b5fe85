"""Sized references → latents (``encode``, held in ``latent_cache``) → tokens and position ids (``tokens``)."""
