"""The page: the panel (``panel``), what its events do (``events``), and the facts that it shows."""
