"""The hooks: references and cache hang on a transformer for one model call (``attach``), by a layout (``layout``)."""
