"""Forge's own features that the extension plugs into: settings, localization, X/Y/Z plot; and the run log in its data."""
