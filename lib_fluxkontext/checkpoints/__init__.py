"""Checkpoint files: read the tensor table of a header (``header``, ``gguf``), identify FLUX.1 by it (``flux``,
``storage``), and say which hosts load it (``support``) and what its format costs (``fidelity``)."""
