"""Many generations from one manifest: manifest → rows → plan → workers → folder → index.

Neutral of any host, as the rest of the core: what makes the pictures is a ``worker.Worker`` of ``hosts/diffusers``,
``hosts/forge_api`` or ``hosts/ray``. The files in the output folder are the only truth about what is done.
"""
