"""What only a CUDA device can show: the CUDA paths held to the CPU's results, and FLUX.1's real size.

    python dev.py gpu [--only checks|full-size|budgets]

It needs no download: all weights are random.
"""
