"""Trains, evaluates and exports the small FLUX Kontext model that ships in ``lib_fluxkontext/small_kontext``."""
