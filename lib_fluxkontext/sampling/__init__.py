"""One sampling: ``session`` owns its references, caches, hooks and recorder; ``factory`` makes the caches that the
settings ask for; ``vram`` estimates the memory it will need.
"""
