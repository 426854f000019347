"""What the commands share in reading their options and reporting a user's mistakes."""

__all__ = ["fail", "parse", "quiet_jax"]

import logging
import sys
from collections.abc import Sequence
from typing import TypeVar, cast

import tyro

Options = TypeVar("Options")


def parse(options: type[Options], arguments: Sequence[str], command: str, default: Options | None = None) -> Options:
    """Return the options of a command; a wrong one is explained and ends the process with code 2."""
    parsed = tyro.cli(
        options,
        args=list(arguments),
        prog=f"comln {command}",
        default=default,
        config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff, tyro.conf.EnumChoicesFromValues),
    )
    return cast(Options, parsed)


def fail(error: object, code: int = 2) -> int:
    """Say what went wrong, in one line on standard error, and return the exit code."""
    print(f"comln: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def quiet_jax() -> None:
    """Keep remarks of libraries off the terminal; warnings of this package are shown in one line each."""
    logging.getLogger("jax").setLevel(logging.ERROR)
    # What goes wrong in writing a checkpoint is raised, and told in one line; here the same would come with its traces.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    logging.basicConfig(format="comln: %(message)s", level=logging.WARNING)
