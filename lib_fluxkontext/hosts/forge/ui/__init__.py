"""The page: the panel, its events, and what its lines say."""
