"""Tests of the diffusers host, with the small trained model."""
