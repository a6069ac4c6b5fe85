"""Inside Stable Diffusion WebUI Forge.

``scripts/flux_kontext.py`` calls ``generation`` at Forge's callbacks; ``generation`` opens a ``sampling_pass`` for
every sampling; ``references`` encodes with Forge's VAE, ``memory`` tells Forge what to reserve, ``refusal`` ends a
generation that must not go on. ``panel`` and its neighbours are the page, ``options`` the section in
Forge's settings.
"""
