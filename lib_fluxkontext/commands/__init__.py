"""Subcommands of ``python -m lib_fluxkontext``, and what they need of the hosts."""
