"""Tests that run a real Forge on the CPU with very small checkpoints."""
