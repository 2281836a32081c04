"""``python -m epsot``: a demonstration, kernels compiled ahead, and what a bug report needs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import epsot
from epsot import ahead, demo, info


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; the exit status: 0, or 1 with one line on stderr. argparse leaves with 2 for bad arguments."""
    parser = argparse.ArgumentParser(prog="python -m epsot", description=epsot.__doc__)
    parser.add_argument("--version", action="version", version=f"epsot {epsot.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    about = "solve and draw the sweep of blurs between two shapes"
    demo.add_arguments(commands.add_parser("demo", help=about, description=f"{about}; figures and a table as CSV"))
    about = "compile the usual kernels ahead, once per machine"
    ahead.add_arguments(commands.add_parser("compile", help=about, description=about))
    about = "print versions, processor, GPU and backends"
    commands.add_parser("info", help=about, description=about)
    arguments = parser.parse_args(argv)
    if arguments.command == "info":
        print(info.report(info.info()))
        return 0
    return ahead.command(arguments) if arguments.command == "compile" else demo.command(arguments)


if __name__ == "__main__":
    sys.exit(main())
