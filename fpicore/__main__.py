"""The command ``fpicore``."""

import argparse
import sys
from collections.abc import Sequence

from . import __version__
from ._errors import InputError
from .commands import solve, verify


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    try:
        options = _parser().parse_args(argv)
    except SystemExit as stop:  # argparse has printed what is wrong, or the help
        return int(stop.code or 0)
    try:
        return options.run(options)
    except InputError as error:
        print(f"fpicore {options.command}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fpicore", description="Differentiable fixed points.")
    parser.add_argument("--version", action="version", version=f"fpicore {__version__}")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True
    )
    solve.add_to(commands)
    verify.add_to(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
