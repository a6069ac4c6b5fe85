"""What the subcommands have in common: exit codes, and errors of one line."""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from typing import NoReturn, TypeAlias

from lib_fluxkontext.errors import KontextError, first_line

DONE, FAILED, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130

Run: TypeAlias = Callable[[argparse.Namespace], int]
"""What runs a subcommand and returns the exit code; its parser has it as the default of ``run``."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print one line, where argparse would print the whole usage before it."""
        print_error(f"{message}; see --help")
        raise SystemExit(WRONG_REQUEST)


def guarded(work: Callable[[], int], wrong: Callable[[KontextError], str], interrupted: str, install: str) -> int:
    """Run a subcommand and return its exit code; print what it raises.

    Args:
        work: runs it.
        wrong: says what is wrong with the request, in the words of its options.
        interrupted: what a Ctrl-C has left.
        install: what to install, and how, where a package is missing.
    """
    try:
        return work()
    except KontextError as error:
        print_error(wrong(error))
        return WRONG_REQUEST
    except KeyboardInterrupt:
        print_error(interrupted)
        return INTERRUPTED
    except ImportError as error:
        print_error(f"{error}; install {install}")
        return FAILED
    except sqlite3.Error as error:  # of its temporary files
        print_error(f"{first_line(error)}: make room in {tempfile.gettempdir()}, or set TMPDIR to another folder")
        return FAILED
    except (RuntimeError, OSError, ValueError) as error:
        print_error(f"{type(error).__name__}: {first_line(error)}")
        return FAILED


def print_error(message: str) -> None:
    """Print an error as one line."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
