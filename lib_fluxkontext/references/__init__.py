"""Anything Pillow opens → RGB image (``decode``) → sized (``sizing``) → tokens and ids (``tokens``)."""
