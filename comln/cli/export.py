"""`comln export RUN --out FILE`: the weights of a run in one file, to hand on."""

__all__ = ["run"]

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from comln.checkpoint import CheckpointError
from comln.cli.options import fail, parse, quiet_jax
from comln.run import export_run, load_run


@dataclass(frozen=True)
class ExportOptions:
    """Write the weights of a run into one safetensors file, with its configuration."""

    run: Annotated[Path, tyro.conf.Positional]
    """folder that `comln train` wrote"""
    out: Path
    """the file; `comln evaluate` and `comln.load_run` read it"""
    json: bool = False
    """print JSON only"""


def run(arguments: list[str]) -> int:
    """Export and say what; return the exit code."""
    options = parse(ExportOptions, arguments, "export")
    quiet_jax()
    try:
        if options.out.is_dir():
            raise ValueError(f"{options.out} is a folder. Name a file with --out.")
        loaded = load_run(options.run)
        export_run(loaded, options.out)
    except (ValueError, CheckpointError) as error:
        return fail(error)
    except OSError as error:
        return fail(f"{options.out} cannot be written ({error.strerror or error}). Choose another file with --out.")
    if options.json:
        print(json.dumps({"file": str(options.out), "step": loaded.step, "bytes": options.out.stat().st_size}))
    else:
        print(f"wrote the weights of step {loaded.step} to {options.out}")
    return 0
