"""Forge's engine as the core needs it: transformer (``adapter``), model calls (``model_wrapper``), VAE, VRAM, samplers.

``protocols`` says what of Forge's objects is used.
"""
