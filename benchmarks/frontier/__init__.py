"""The speed–quality frontier: this project's settings beside other caches, on the same weights and noise.

    python dev.py bench

``methods`` says what is compared, ``measure`` runs it interleaved, ``steps`` the cost alone on a model
without training, ``document`` writes ``docs/benchmarks.md`` and its plots.
"""
