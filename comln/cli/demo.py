"""`comln demo RUN`: a local page to make classes of pictures and move along the flow."""

__all__ = ["run"]

import contextlib
import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from comln.checkpoint import CheckpointError
from comln.cli.options import fail, parse, quiet_jax
from comln.cli.progress import saying
from comln.cli.stopping import Stopping
from comln.data.data_error import DataError
from comln.demo.demonstration import Demonstration, prepare_demonstration
from comln.demo.server import DemoServer, is_loopback
from comln.recipes.experiment import GlyphsData
from comln.run import load_run


@dataclass(frozen=True)
class DemoOptions:
    """Serve a page on this machine: make classes of a few pictures, and watch a run classify more along T."""

    run: Annotated[Path, tyro.conf.Positional]
    """folder that `comln train` wrote, or file that `comln export` wrote"""
    port: int = 8321
    """of the page; 0: any free one"""
    host: str = "127.0.0.1"
    """address to listen at; the default is reached from this machine only"""
    data_folder: Path | None = None
    """where `comln data prepare` put the data, if neither where it was trained nor in your cache"""


def run(arguments: list[str]) -> int:
    """Load the run and serve its page until it is interrupted; return the exit code."""
    options = parse(DemoOptions, arguments, "demo")
    quiet_jax()
    try:
        if not 0 <= options.port < 1 << 16:
            raise ValueError(f"--port must be between 0 and 65535, got {options.port}.")
        with saying("loading") as say:
            demonstration = _load(options, say)
    except (ValueError, RuntimeError, CheckpointError) as error:
        return fail(error)
    try:
        server = DemoServer(demonstration, options.host, options.port)
    except OSError as error:
        return fail(
            f"{options.host}, port {options.port} cannot be listened at ({error.strerror or error}). Choose another "
            "with --port (0: any free one) or --host."
        )
    if not is_loopback(options.host):
        print(
            f"comln: --host {options.host} lets everybody who reaches this machine use the page, without a password "
            "and unencrypted.",
            file=sys.stderr,
        )
    with server, Stopping(), contextlib.suppress(KeyboardInterrupt):
        print(f"{server.address}  (Ctrl-C ends it)", flush=True)
        server.serve_forever(poll_interval=0.2)
    return 0


def _load(options: DemoOptions, say: Callable[[str, float], None]) -> Demonstration:
    say("the run", 0.1)
    loaded = load_run(options.run)
    experiment = loaded.experiment
    if options.data_folder is not None:
        if isinstance(experiment.data, GlyphsData):
            raise ValueError("--data-folder is for prepared data; this run was trained on glyphs, which need none.")
        experiment = dataclasses.replace(
            experiment, data=dataclasses.replace(experiment.data, folder=options.data_folder)
        )
    say("its data", 0.4)
    try:
        splits = experiment.data.load()
    except DataError as error:
        hint = "" if options.data_folder else " Where they lie elsewhere, add --data-folder."
        raise ValueError(f"{error}{hint}") from error
    demonstration = prepare_demonstration(
        options.run.resolve().name, dataclasses.replace(loaded, experiment=experiment), splits
    )
    say("compiling", 0.6)
    demonstration.warm_up()
    return demonstration
