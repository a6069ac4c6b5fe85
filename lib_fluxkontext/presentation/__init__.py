"""The numbers of a generation: added up (``generation``), as infotext (``text``), as HTML (``html``)."""
