"""The speed–quality frontier: this project's settings beside other caches, on the same weights and noise.

    python dev.py bench

``conditions`` says under what, ``methods`` and ``rival_methods`` what is compared, ``tuning`` which settings of it;
``measure`` runs them interleaved. ``steps`` measures the cost alone on a model without training. ``document`` writes
``docs/benchmarks.md`` and ``plots`` its plots.
"""
