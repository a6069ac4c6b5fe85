"""Examples that run anywhere: ``python dev.py demo``."""
