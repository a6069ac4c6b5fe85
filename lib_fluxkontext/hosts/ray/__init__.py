"""A batch on a Ray cluster: Ray Data hands rows to a pool of actors, starts and restarts them, and moves their rows.

Needs Ray (``pip install -e ".[ray]"``) on every node. This package imports it only where a batch runs on it.
"""

import os

# Ray reads these when it is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would send statistics, and nobody was asked
# Threads that wait for results of a cluster that was just left would start another one.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
