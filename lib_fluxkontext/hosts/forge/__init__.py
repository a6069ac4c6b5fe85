"""Inside Stable Diffusion WebUI Forge.

``callbacks`` is what Forge calls. ``lifecycle/`` follows one generation, ``runtime/`` adapts Forge's engine, ``ui/`` is
the panel, ``integration/`` plugs into Forge's settings, localization and X/Y/Z plot.
"""
