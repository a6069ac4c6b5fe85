"""What drives the core: ``forge`` inside Stable Diffusion WebUI Forge, ``diffusers`` around its Kontext pipeline."""
