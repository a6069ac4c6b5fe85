"""Hooks on a transformer for the length of one model call: references go in, the caches decide what runs.

``model_call`` says what a call brings, ``adapter`` what a transformer calls things. ``runner`` decides which rows of
the batch run how, ``forward`` runs the transformer's own forward on some rows, ``block_run`` hooks its blocks for First
Block Cache, ``attention`` hooks its attention for the reference K/V cache. ``patch`` overrides attributes temporarily.
"""
