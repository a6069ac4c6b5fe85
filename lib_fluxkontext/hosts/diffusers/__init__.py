"""Around diffusers' ``FluxKontextPipeline``: the command line, and the main job on a machine without Forge.

Never imported inside Forge, which pins an older diffusers.
"""
