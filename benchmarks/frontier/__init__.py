"""The speed–quality frontier: this project's settings beside other caches, on the same weights and noise.

    python dev.py bench

``methods`` says what is compared, ``measure`` runs it interleaved, ``large`` does the same for the cost alone on models
without training, ``document`` writes ``docs/benchmarks.md`` and its plots.
"""
