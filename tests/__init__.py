"""Tests of the extension."""
