"""`comln embed RUN DIR --out FILE`: embeddings of a folder of pictures, by a run's network or one of one's own."""

__all__ = ["run"]

import dataclasses
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from comln.backbones import Normalisation
from comln.checkpoint import CheckpointError
from comln.cli.options import fail, parse, quiet_jax
from comln.cli.own_examples import tell_skipped
from comln.cli.progress import counting
from comln.data.data_error import DataError
from comln.data.embedding_file import Block, write_embeddings
from comln.data.own_files import OwnFolder, list_folder
from comln.data.own_pictures import InkOf, OwnPictures
from comln.embed import RunNetwork, input_form
from comln.onnx_network import OnnxNetwork, Preprocessing
from comln.run import load_run

ONNX = "onnx:"


@dataclass(frozen=True)
class EmbedOptions:
    """Write the embeddings of a folder of pictures, by the network of a run or by one that you exported."""

    places: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN] DIR")]
    """the run (left out with --backbone), and the folder of pictures, in folders that are named as classes or not"""
    out: Path
    """where to write them: .npz or .parquet"""
    backbone: str | None = None
    """onnx:FILE for a network of your own, instead of a run's; needs the extra [onnx]"""
    ink: InkOf = "auto"
    """of drawings, for runs on drawings: darker or brighter than the ground (auto: as each one looks)"""
    image_size: int | None = None
    """pixels a side that an ONNX model takes (default: as it says itself)"""
    mean: tuple[float, ...] = (0.0,)
    """of pixels in [0, 1], by which an ONNX model's input is normalised: one number, or one for red, green and blue"""
    std: tuple[float, ...] = (1.0,)
    """the standard deviation, likewise"""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    """in which an ONNX model takes colours"""
    layout: Literal["auto", "nchw", "nhwc"] = "auto"
    """where an ONNX model takes channels"""
    output: str | None = None
    """of an ONNX model (default: its first)"""
    data_folder: Path | None = None
    """where `comln data prepare` put the data of an older run, if not in your cache"""
    json: bool = False
    """print JSON only"""


def run(arguments: list[str]) -> int:
    """Embed, write and say how many; return the exit code."""
    options = parse(EmbedOptions, arguments, "embed")
    quiet_jax()
    try:
        if options.out.is_dir():
            raise ValueError(f"{options.out} is a folder. Name a file with --out.")
        network, note = _network(options)
        listed = list_folder(options.places[-1])
        if not listed.files:
            raise DataError(options.places[-1], "it holds no files.")
        pictures = OwnPictures(network.form, options.ink)
        labelled = all(file.label is not None for file in listed.files)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        blocks = _blocks(options, network, pictures, listed)
        count = write_embeddings(options.out, network.features, labelled, blocks)
    except (ValueError, RuntimeError, CheckpointError) as error:
        return fail(error)
    except OSError as error:
        return fail(f"{error.filename or options.out}: {error.strerror or error}.", code=1)
    if not labelled and listed.labels:
        note = f"{note} Some pictures lie in no folder of a class, so no labels are written.".strip()
    if note:
        print(f"comln: {note}", file=sys.stderr)
    skipped = [*listed.skipped, *pictures.skipped]
    if options.json:
        content = {
            "out": str(options.out),
            "embeddings": count,
            "features": network.features,
            "labels": sorted(set(listed.labels)) if labelled else None,
            "skipped": [{"file": one.name, "reason": one.reason} for one in skipped],
            "note": note,
        }
        print(json.dumps(content))
    else:
        left_out = f", {len(skipped)} skipped" if skipped else ""
        kind = f"of {len(listed.labels)} classes" if labelled else "without labels"
        print(f"wrote {options.out}: {count} embeddings of {network.features} numbers, {kind}{left_out}")
        print(f"  {_seen(network)}")
    return 0


def _network(options: EmbedOptions) -> tuple[RunNetwork | OnnxNetwork, str]:
    """Return the network, and a remark on it."""
    expected = 1 if options.backbone else 2
    if len(options.places) != expected:
        usage = "--backbone onnx:FILE DIR" if options.backbone else "RUN DIR"
        raise ValueError(f"Usage: comln embed {usage} --out FILE; {len(options.places)} paths were given.")
    given = (options.image_size, options.mean, options.std, options.channel_order, options.layout)
    if options.backbone is not None:
        if not options.backbone.startswith(ONNX):
            raise ValueError(f"--backbone must be onnx:FILE, got {options.backbone!r}.")
        preprocessing = Preprocessing(*given)
        return OnnxNetwork(Path(options.backbone.removeprefix(ONNX)), preprocessing, options.output), ""
    if given != dataclasses.astuple(Preprocessing()) or options.output is not None:
        raise ValueError(
            "--image-size, --mean, --std, --channel-order, --layout and --output are for --backbone onnx:FILE; a run "
            "knows its own."
        )
    loaded = load_run(options.places[0])
    network = RunNetwork(loaded, input_form(loaded, options.data_folder))
    batch = loaded.experiment.normalisation is Normalisation.BATCH
    return network, "this run was evaluated with batch statistics; embeddings are made with running ones." * batch


def _blocks(
    options: EmbedOptions, network: RunNetwork | OnnxNetwork, pictures: OwnPictures, listed: OwnFolder
) -> Iterator[Block]:
    folder, told, done = options.places[-1], 0, 0
    tell_skipped(folder, listed.skipped, 0)
    with counting("embedding", len(listed.files)) as on_progress:
        for files, examples in pictures.blocks(listed.files, network.at_once):
            told = tell_skipped(folder, pictures.skipped, told)
            yield network(examples), [file.name for file in files], [file.label for file in files]
            done += len(files)
            on_progress(done + len(pictures.skipped))
    tell_skipped(folder, pictures.skipped, told)


def _seen(network: RunNetwork | OnnxNetwork) -> str:
    """Return how pictures were shown to the network, in words."""
    height, width, channels = network.form.shape
    colours = "grey" if channels == 1 else "colours"
    if isinstance(network, RunNetwork):
        return f"pictures: {height} x {width}, {colours}, as the run was trained"
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (network.form.mean, network.form.std))
    return f"pictures: {height} x {width}, {colours}; mean {mean}, std {std}; output {network.output}"
