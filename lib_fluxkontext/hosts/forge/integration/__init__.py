"""Forge's own features: settings, localization, X/Y/Z plot, data folder."""
