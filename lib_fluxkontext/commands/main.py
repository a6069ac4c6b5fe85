"""The command line: ``python -m lib_fluxkontext`` with ``generate``, ``batch``, ``compare`` or ``convert``.

Exit codes: 0 done, 1 it broke or some rows failed, 2 the request is wrong, 130 interrupted.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

from lib_fluxkontext.command_line import INTERRUPTED, Parser, Run, print_error
from lib_fluxkontext.commands import batch, compare, convert, generate


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console in cp1251 or cp866 has no × and no –
            stream.reconfigure(errors="replace")
    parser = Parser(prog="python -m lib_fluxkontext", description="FLUX.1 Kontext without Forge's pages.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    for command in (generate, batch, compare, convert):
        command.add_command(commands)
    options = parser.parse_args(arguments)
    run: Run = options.run
    try:
        return run(options)
    except KeyboardInterrupt:  # where the subcommand was not ready for it yet
        print_error("interrupted")
        return INTERRUPTED
