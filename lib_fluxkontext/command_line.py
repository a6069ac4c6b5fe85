"""What the subcommands have in common: exit codes, and errors of one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn, TypeAlias

DONE, FAILED, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130

Run: TypeAlias = Callable[[argparse.Namespace], int]
"""What runs a subcommand and returns the exit code; its parser has it as the default of ``run``."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print one line, where argparse would print the whole usage before it."""
        print_error(f"{message}; see --help")
        raise SystemExit(WRONG_REQUEST)


def print_error(message: str) -> None:
    """Print an error as one line."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
