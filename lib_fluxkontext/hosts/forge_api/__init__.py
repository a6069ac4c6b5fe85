"""Running Forge and Forge Neo servers, driven through their own API: one worker of a batch for each.

Needs requests and tenacity (``pip install -e ".[batch]"``), and nothing of Forge.
"""
