"""FLUX.1 Kontext with several references, a First Block Cache and meters; host-neutral core plus hosts.

The data's way through the package, each step in the folder of its name:

1. ``settings``      what the user asked for, validated (panel, API, command line)
2. ``references/``   anything Pillow opens → sized RGB image → tokens and position ids
3. ``transformer/``  the hooks that hang references and cache on one model call, and let go
4. ``cache/``        when a step may reuse what an earlier one computed
5. ``meters/``       seconds of every model call, memory of the process and the card
6. ``report/``       the numbers added up, as data, as text, as HTML
7. ``checkpoint/``   what the chosen file is, from its header alone, and whether it fits
8. ``runs/``         every finished generation in a log, to compare
9. ``infotext``      settings and results as a picture carries them, and back
10. ``words``        what the page says, in the page's language

``hosts/`` drive the core: ``hosts/forge`` inside Stable Diffusion WebUI Forge, ``hosts/diffusers`` around diffusers'
pipeline, with the command line. The core never imports a host.
"""

__version__ = "0.1.0"
