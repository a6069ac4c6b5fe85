"""What every number format of the weights costs, and which host loads it: ``python -m benchmarks.formats``."""
