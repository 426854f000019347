"""`comln reproduce TARGET`: a result of the paper again, with its numbers and pictures."""

__all__ = ["TARGETS", "run"]

import difflib
import html
import importlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from comln.cli.options import fail, parse, quiet_jax
from comln.cli.progress import saying
from comln.data.data_error import DataError
from comln.reproduce.page import write_files
from comln.reproduce.workspace import Budget, Workspace

TARGETS = {
    "glyphs": "every method on glyphs, with the same time for training",
    "task-horizon": "one horizon for all tasks, one for each, and the best",
    "table2": "every method, for the same number of updates, with several seeds",
    "table4": "the solver of the flow, and whether it changes the accuracy",
    "table5": "every method with a linear head on frozen embeddings, and MetaOptNet's solver",
    "figure1": "discrete and continuous adaptation, in the plane",
    "figure5": "T during meta-training, and a learned T against fixed ones",
    "figure2": "the adjoint method loses the trajectory of a gradient flow on its way back",
    "figure3": "memory and time of a meta-gradient against the number of inner steps, Conv-4",
    "figure4": "the same with ResNet-12",
    "table1": "memory of each way to the meta-gradient, in theory and measured",
}
"""What can be reproduced: modules of `comln.reproduce` with `FILES`, `compute`, `write`, `describe` and `numbers`."""

ALL = "all"
"""The target that is all of them, each in a folder of its own."""

ON_OTHER_DATA = ("table2", "table4", "table5", "figure5")
"""Those of them that can be computed on data that `comln data prepare` has prepared; their modules have `DATA`."""


@dataclass(frozen=True)
class ReproduceOptions:
    """Compute a result of the paper again; write its numbers, its picture and a page that explains them."""

    target: Annotated[
        str,
        tyro.conf.Positional,
        tyro.conf.arg(
            help="what to reproduce: " + "; ".join(f"{name} ({what})" for name, what in TARGETS.items()) + "; or all"
        ),
    ]
    budget: Budget = Budget.COMMITTED
    """smoke: minutes, to see that it works; committed: what the documentation shows; full: for whoever has days"""
    out: Path | None = None
    """folder to write to (default: reproduced/<target>, or reproduced for all); parts that are there are not computed
    again"""
    data: str = "glyphs"
    """data set; others than glyphs for the tables of accuracy and figure5, prepared by `comln data prepare`"""
    root: Path | None = None
    """where `comln data prepare` put it, if not in the user's cache"""
    json: bool = False
    """print JSON only"""


def run(arguments: list[str]) -> int:
    """Reproduce one result, or all, and print the numbers; return the exit code."""
    options = parse(ReproduceOptions, arguments, "reproduce")
    if options.target not in (*TARGETS, ALL):
        near = difflib.get_close_matches(options.target, (*TARGETS, ALL), n=1, cutoff=0.0)[0]
        return fail(f"unknown target {options.target!r}. Did you mean {near!r}? See `comln reproduce --help`.")
    quiet_jax()
    base = options.out or Path("reproduced")
    if options.target == ALL:
        folders = {name: base / name for name in TARGETS}
    else:
        folders = {options.target: options.out or base / options.target}
    folder = base
    try:
        _check_data(options)
        for name, folder in folders.items():
            _prepare(folder, name, _module(name).FILES)
    except ValueError as error:
        return fail(error)
    except OSError as error:
        return fail(f"{folder} cannot be written ({error.strerror or error}). Choose another folder with --out.")
    numbers = {}
    try:
        with saying("reproducing" if options.target == ALL else f"reproducing {options.target}") as on_progress:
            for number, (name, folder) in enumerate(folders.items()):
                say = _share(on_progress, name, number, len(folders))
                target = _module(name)
                result = target.compute(_workspace(options, folder, say))
                paths = target.write(result, folder)
                numbers[name] = target.numbers(result)
                if options.target == ALL:
                    write_files(base, {"index.html": _contents(folders).encode()})
                if not options.json:
                    print(target.describe(result))
                    print(f"wrote {', '.join(path.name for path in paths)} to {folder}", flush=True)
    except DataError as error:
        return fail(error)
    except OSError as error:
        return fail(f"{folder} cannot be written ({error.strerror or error}).", code=1)
    except KeyboardInterrupt:
        return fail("interrupted. The same command goes on from the parts that are done.", code=130)
    if options.json:
        print(json.dumps(numbers if options.target == ALL else numbers[options.target]))
    elif options.target == ALL:
        print(f"all of them: {base / 'index.html'}")
    return 0


def _module(target: str) -> Any:
    return importlib.import_module(f"comln.reproduce.{target.replace('-', '_')}")


def _share(
    on_progress: Callable[[str, float], None], target: str, number: int, count: int
) -> Callable[[str, float], None]:
    """Return what to call with the progress of one of `count` targets."""
    if count == 1:
        return on_progress
    return lambda what, done: on_progress(f"{target}: {what}", (number + done) / count)


def _contents(folders: Mapping[str, Path]) -> str:
    """Return a page that leads to those of all targets that are done."""
    links = "".join(
        f'<li><a href="{name}/index.html">{name}</a>: {html.escape(TARGETS[name])}</li>'
        if (folder / "index.html").exists()
        else f"<li>{name}: {html.escape(TARGETS[name])} (not computed yet)</li>"
        for name, folder in folders.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>comln reproduce all</title>'
        "<style>:root { color-scheme: light dark; } body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem; }"
        f"</style></head><body><h1>comln reproduce all</h1><ul>{links}</ul></body></html>\n"
    )


def _check_data(options: ReproduceOptions) -> None:
    """Raise `ValueError` for a data set that the target cannot be computed on."""
    known = _module(options.target).DATA if options.target in ON_OTHER_DATA else ("glyphs",)
    if options.data not in known:
        raise ValueError(f"{options.target} can be computed on {', '.join(known)}, not on {options.data!r}.")
    if options.root is not None and options.data == "glyphs":
        raise ValueError("--root is the folder of prepared data. Add --data NAME, or leave it out.")


def _workspace(options: ReproduceOptions, folder: Path, on_progress: Callable[[str, float], None]) -> Workspace:
    """Return where parts are kept: in the folder; those of other targets, in folders beside it, are used as well."""
    others = tuple(folder.parent / target / "parts" for target in TARGETS if target != folder.name)
    return Workspace(folder / "parts", options.budget, on_progress, others, options.data, options.root)


def _prepare(folder: Path, target: str, names: Sequence[str]) -> None:
    """Make the folder, and see that it can be written and that no file there belongs to somebody else."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file. Choose a folder with --out.")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
    there = [name for name in names if (folder / name).exists()]
    if there and not _wrote(folder / f"{target}.json", target):
        raise ValueError(
            f"{folder} holds {', '.join(there)}, not written by `comln reproduce {target}`. Choose another --out."
        )


def _wrote(path: Path, target: str) -> bool:
    """Whether `path` holds the numbers of an earlier run."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("target") == target
