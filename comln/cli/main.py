"""The command `comln`: takes the first word to its file, and a user's mistake to one clear line."""

__all__ = ["main"]

import importlib
import io
import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "train": "meta-train a learner and evaluate it on unseen classes",
    "evaluate": "evaluate a trained run on fixed tasks",
    "predict": "classify your own pictures by a few labelled ones",
    "embed": "write the embeddings of a folder of pictures",
    "export": "write the weights of a run into one file",
    "demo": "serve a page to try a run on pictures of your own",
    "recipes": "list what can be trained",
    "reproduce": "compute a result of the paper again",
    "data": "verify a data set on your disk, and convert it for training",
    "completion": "print a script by which your shell completes commands and options",
}

USAGE = """usage: comln COMMAND [OPTIONS]

Few-shot learning by adapting a classifier along a gradient flow.

commands:
{commands}

`comln COMMAND --help` explains a command. `comln --version` tells the version.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command in `arguments` (default: those of the process) and exit: 0 success, 1 failure, 2 wrong usage."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # A name of a file may have bytes that are no text; to show it with escapes is better than to fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except OSError as error:
        if error.filename is None:
            # Whoever read the output is gone, or the disk is full. At the end Python would try again, with a trace.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print(f"comln: {error.filename or 'the output'}: {error.strerror or error}.", file=sys.stderr)
        code = 1
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE.format(commands="\n".join(f"  {name:<10} {text}" for name, text in COMMANDS.items())), end="")
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"comln {version('comln')}")
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(command, COMMANDS, n=1, cutoff=0.0)[0]
        print(f"comln: unknown command {command!r}. Did you mean {near!r}? See `comln --help`.", file=sys.stderr)
        return 2
    try:
        return importlib.import_module(f"comln.cli.{command}").run(rest)
    except KeyboardInterrupt:
        print("\ncomln: interrupted.", file=sys.stderr)
        return 130
