"""Images: decode to 8-bit RGB (``decode``), plan and apply sizes (``sizing``)."""
