"""`comln data check|prepare NAME ROOT`: verify a data set of the user's, and convert it to the form for training."""

__all__ = ["SOURCES", "run"]

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import cattrs
import tyro

from comln.cli.options import fail, parse, quiet_jax
from comln.cli.stopping import Stopping
from comln.data.data_error import DataError
from comln.data.prepare import OnProgress, Prepared, check, prepare
from comln.data.prepared import default_folder
from comln.data.safe_archive import ARCHIVES, unpack
from comln.data.sources.cifar import CIFARFS, FC100
from comln.data.sources.cub import CUB
from comln.data.sources.embeddings import Embeddings
from comln.data.sources.image_folder import ImageFolder
from comln.data.sources.layout import AbstractSource
from comln.data.sources.leo_embeddings import LEOMiniImageNet, LEOTieredImageNet
from comln.data.sources.mini_imagenet import MiniImageNet
from comln.data.sources.omniglot import Omniglot
from comln.data.sources.tiered_imagenet import TieredImageNet

SOURCES: dict[str, type[AbstractSource]] = {
    "mini-imagenet": MiniImageNet,
    "tiered-imagenet": TieredImageNet,
    "cifar-fs": CIFARFS,
    "fc100": FC100,
    "cub": CUB,
    "omniglot": Omniglot,
    "leo-mini-imagenet": LEOMiniImageNet,
    "leo-tiered-imagenet": LEOTieredImageNet,
    "folder": ImageFolder,
    "embeddings": Embeddings,
}
"""The data sets by the names that the command line has for them."""
SECONDS_BETWEEN_LINES = 5.0


@dataclass(frozen=True)
class DataOptions:
    """Verify a data set that is on your disk (check), and convert it for training too (prepare).

    The names: mini-imagenet, tiered-imagenet, cifar-fs, fc100, cub, omniglot, leo-mini-imagenet, leo-tiered-imagenet,
    folder (pictures of your own) and embeddings. docs/data.md says which files each of them may come in.
    """

    action: Annotated[Literal["check", "prepare"], tyro.conf.Positional]
    """only verify, or convert too"""
    name: Annotated[str, tyro.conf.Positional]
    """of the data set"""
    root: Annotated[Path, tyro.conf.Positional]
    """the folder that your files are in, or one archive of them (.zip, .tar, .tar.gz, ...)"""
    out: Path | None = None
    """where to put the converted data (default: your cache folder, where training looks for it)"""
    allow_partial: bool = False
    """be content with fewer splits, classes or examples than the data set has"""
    image_size: int | None = None
    """height and width to resize pictures to (mini-imagenet, cub, omniglot, folder)"""
    channel_order: Literal["auto", "rgb", "bgr"] | None = None
    """of the images in your files (tiered-imagenet; default: bgr for .npz, rgb for PNG)"""
    variant: Literal["center", "multiview"] | None = None
    """which embeddings (leo-mini-imagenet)"""
    normalise: Literal["none", "l2"] | None = None
    """what to do to each embedding (leo-*, embeddings; default: nothing)"""
    split_file: Path | None = None
    """JSON with a list of classes for each of train, val, test (cifar-fs, fc100, cub, folder)"""
    vinyals: bool = False
    """accept the lists of Vinyals et al., another split than everyone's (mini-imagenet)"""
    json: bool = False
    """print JSON only"""


def run(arguments: list[str]) -> int:
    """Check or prepare and print what was found; return the exit code."""
    options = parse(DataOptions, arguments, "data")
    quiet_jax()
    try:
        source = _source(options)
        folder = options.out or default_folder(options.name)
        at = folder if options.action == "prepare" else None
        with Stopping(), _folder_of(options.root, at) as root, _progress(options.action) as on_progress:
            if options.action == "check":
                result = check(source, options.name, root, options.allow_partial, on_progress)
            else:
                result = prepare(source, options.name, root, folder, options.allow_partial, on_progress)
    except ValueError as error:
        return fail(error)
    except OSError as error:
        where = error.filename or options.out or options.root
        return fail(f"{where}: {error.strerror or error}. Free space or change permissions, and run it again.", code=1)
    except KeyboardInterrupt:
        done = "" if options.action == "check" else " The same command goes on with the splits that are not done."
        return fail(f"interrupted.{done}", code=130)
    for remark in result.manifest.remarks:
        print(f"comln: {remark}", file=sys.stderr)
    written = folder if options.action == "prepare" else None
    print(json.dumps(_summary(result, written)) if options.json else _describe(result, written))
    return 0


def _source(options: DataOptions) -> AbstractSource:
    """Return the data set with what was chosen for it."""
    if options.name not in SOURCES:
        import difflib

        near = difflib.get_close_matches(options.name, SOURCES, n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown data set {options.name!r}. Did you mean {near!r}? See `comln data --help`.")
    kind: Any = SOURCES[options.name]
    known = {field.name for field in dataclasses.fields(kind)}
    chosen = {
        name: value
        for name in ("image_size", "channel_order", "variant", "normalise", "split_file", "vinyals")
        if (value := getattr(options, name)) not in (None, False)
    }
    for name in chosen.keys() - known:
        flags = ", ".join(f"--{other.replace('_', '-')}" for other in sorted(known)) or "no option of its own"
        raise ValueError(f"--{name.replace('_', '-')} is not for {options.name}, which has {flags}.")
    if options.image_size is not None and not 1 <= options.image_size <= 1024:
        raise ValueError(f"--image-size must be between 1 and 1024, got {options.image_size}.")
    return kind(**chosen)


@contextmanager
def _folder_of(root: Path, out: Path | None) -> Iterator[Path]:
    """Yield the folder of the user's files; an archive is unpacked for as long as it is read.

    - `out`: beside which it is unpacked, on the disk that the result goes to; `None`: in the system's folder for
      temporary files.
    """
    if not (root.is_file() and root.name.lower().endswith(ARCHIVES)):
        if root.is_file():
            raise DataError(root, f"it is neither a folder nor an archive ({', '.join(ARCHIVES)}). Pass its folder.")
        yield root
        return
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
    prefix, parent = ("comln-unpacked-", None) if out is None else (f".{out.name}-unpacked-", out.parent)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as folder:
        print(f"comln: unpacking {root} ...", file=sys.stderr)
        unpack(root, Path(folder))
        yield Path(folder)


@contextmanager
def _progress(action: str) -> Iterator[OnProgress]:
    """Yield a function that tells what is done: a bar on a terminal, elsewhere a line every few seconds."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.completed}/{task.total}"))
    doing = "checking" if action == "check" else "preparing"
    last = time.monotonic()
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        row = bar.add_task(doing, total=1)

        def show(split: str, done: int, total: int) -> None:
            nonlocal last
            bar.update(row, description=f"{doing} {split}", completed=done, total=total)
            if bar.disable and time.monotonic() - last > SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                print(f"{doing} {split} {done}/{total}", file=sys.stderr, flush=True)

        yield show


def _summary(result: Prepared, written: Path | None) -> dict[str, Any]:
    content = cattrs.unstructure(result.manifest)
    return {**content, "kept": list(result.kept), "folder": None if written is None else str(written)}


def _describe(result: Prepared, written: Path | None) -> str:
    manifest = result.manifest
    lines = [f"{manifest.name}, in the files of {manifest.layout}"]
    for split, summary in manifest.splits.items():
        each = f"{summary.smallest}" if summary.smallest == summary.largest else f"{summary.smallest}-{summary.largest}"
        lines.append(f"  {split:<6}{summary.classes} classes, {summary.examples} examples, {each} of each class")
    shape = " x ".join(map(str, manifest.example_shape))
    lines += [f"  examples: {shape}"] + [f"  {name.replace('_', ' ')}: {note}" for name, note in manifest.notes.items()]
    if manifest.mean:
        numbers = (" ".join(f"{value:.3f}" for value in values) for values in (manifest.mean, manifest.std))
        lines.append(f"  normalisation ({manifest.normalisation}): mean {next(numbers)}, deviation {next(numbers)}")
    if result.kept:
        lines.append(f"  done before and kept: {', '.join(result.kept)}")
    if written is not None:
        lines.append(f"wrote {written}")
    return "\n".join(lines)
