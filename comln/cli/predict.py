"""`comln predict RUN --support DIR --query DIR`: class probabilities of one's own pictures or embeddings."""

__all__ = ["run"]

import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from comln.checkpoint import CheckpointError
from comln.cli.options import fail, parse, quiet_jax
from comln.cli.own_examples import OwnExamples, open_examples
from comln.cli.progress import counting
from comln.data.data_error import DataError
from comln.data.input_form import InputForm
from comln.data.own_pictures import InkOf
from comln.data.split_writer import write_whole
from comln.embed import input_form
from comln.predict import Assessment, Classifier, Prediction, adapt, assess
from comln.run import Run, load_run

CLASSES_SHOWN = 20
"""A confusion matrix of more classes is not printed."""
Rows = Mapping[int, np.ndarray]


@dataclass(frozen=True)
class PredictOptions:
    """Classify your own pictures, by a few labelled ones of any classes: a folder of pictures for each class."""

    run: Annotated[Path, tyro.conf.Positional]
    """folder that `comln train` wrote, or file that `comln export` wrote"""
    support: Path
    """folder with a folder of labelled pictures for each class; for a run on embeddings .npz or .parquet"""
    query: Path
    """folder of pictures to classify, in folders that are named as their classes if these are known; or embeddings"""
    out: Path = Path("predictions.csv")
    """where to write the probabilities"""
    horizon: float | None = None
    """time to follow the gradient flow for, instead of the learned T (comln)"""
    unbalanced: bool = False
    """weigh every support example alike: classes with more of them become likelier"""
    ink: InkOf = "auto"
    """of drawings, for runs on drawings: darker or brighter than the ground (auto: as each one looks)"""
    plot: Path | None = None
    """where to draw the confusion matrix, as PNG"""
    data_folder: Path | None = None
    """where `comln data prepare` put the data of an older run, if not in your cache"""
    json: bool = False
    """print JSON only"""


def run(arguments: list[str]) -> int:
    """Classify, write the probabilities and say how right they are, where that is known; return the exit code."""
    options = parse(PredictOptions, arguments, "predict")
    quiet_jax()
    try:
        for path in (options.out, options.plot):
            if path is not None and path.is_dir():
                raise ValueError(f"{path} is a folder. Name a file.")
            if path is not None and path.resolve() in [each.resolve() for each in _others(options, path)]:
                raise ValueError(f"{path} would be written over, but is asked for otherwise too. Name another file.")
        loaded = load_run(options.run)
        form = input_form(loaded, options.data_folder)
        support = open_examples(options.support, form, options.ink, "--support", labelled=True)
        query = open_examples(options.query, form, options.ink, "--query")
        classifier, seen, unclear = _adapt(loaded, form, support, options)
        rows, again = _classify(classifier, query, form, seen)
        prediction = Prediction(classifier.classes, np.stack(list(rows.values())))
        assessment = assess(classifier.classes, prediction.predicted, [query.labels[index] for index in rows])
        if options.plot is not None:
            _plot(options.plot, classifier, assessment)
        _write(options.out, [query.names[index] for index in rows], prediction)
    except (ValueError, RuntimeError, CheckpointError) as error:
        return fail(error)
    except OSError as error:
        return fail(f"{error.filename or options.out}: {error.strerror or error}.", code=1)
    remarks = list(_remarks(classifier, support, query, unclear, again))
    for remark in remarks:
        print(f"comln: {remark}", file=sys.stderr)
    if options.json:
        print(json.dumps({**_summary(options, classifier, support, query, len(rows), assessment), "remarks": remarks}))
    else:
        print(_describe(options, classifier, query, len(rows), assessment))
    return 0


def _others(options: PredictOptions, written: Path) -> Iterator[Path]:
    """Yield the paths that must not be that of a written file: those read, and the other one written."""
    yield from (options.run, options.support, options.query)
    if options.plot is not None and written is options.plot:
        yield options.out


def _adapt(
    loaded: Run, form: InputForm, support: OwnExamples, options: PredictOptions
) -> tuple[Classifier, dict[bytes, str], list[str]]:
    """Return the classifier, the labels of the support examples by their content, and names of those with several."""
    indices: list[int] = []
    parts: list[np.ndarray] = []
    for chosen, examples in support.blocks(form.at_once):
        indices += chosen
        parts.append(examples)
    labels = [support.labels[index] or "" for index in indices]
    empty = sorted(set(support.classes) - set(labels))
    if empty:
        raise DataError(
            support.path, f"no picture can be read in its folder {empty[0]!r}. Put one there, or remove it."
        )
    if not parts:
        raise DataError(support.path, "it holds no examples.")
    examples = np.concatenate(parts)
    classifier = adapt(loaded, examples, labels, options.horizon, not options.unbalanced, form)
    seen: dict[bytes, str] = {}
    unclear = []
    for index, label, each in zip(indices, labels, examples, strict=True):
        if seen.setdefault(each.tobytes(), label) != label:
            unclear.append(support.names[index])
    return classifier, seen, unclear


def _classify(
    classifier: Classifier, query: OwnExamples, form: InputForm, seen: Mapping[bytes, str]
) -> tuple[Rows, list[str]]:
    """Return the probabilities by the position of their example, and the names of queries that the support has too."""
    rows, again = {}, []
    with counting("classifying", len(query.names)) as on_progress:
        for indices, examples in query.blocks(classifier.together or form.at_once, mixed=classifier.together > 0):
            rows.update(zip(indices, classifier.probabilities(examples), strict=True))
            again += [query.names[i] for i, each in zip(indices, examples, strict=True) if each.tobytes() in seen]
            on_progress(len(rows) + query.unreadable)
    if not rows:
        raise DataError(query.path, "none of its pictures can be read: there is nothing to classify.")
    return dict(sorted(rows.items())), again


def _write(path: Path, names: Sequence[str], prediction: Prediction) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "predicted", *(f"p({name})" for name in prediction.classes)])
    for name, predicted, row in zip(names, prediction.predicted, prediction.probabilities.tolist(), strict=True):
        writer.writerow([_no_formula(name), predicted, *(f"{p:.6g}" for p in row)])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.getvalue().encode())


def _no_formula(name: str) -> str:
    """Return a path to the same file that a spreadsheet does not take for a formula."""
    return f"./{name}" if name.startswith(("=", "+", "-", "@")) else name


def _plot(path: Path, classifier: Classifier, assessment: Assessment | None) -> None:
    if assessment is None:
        raise ValueError("There is no confusion matrix to --plot: no query lies in a folder that is named as a class.")
    from comln.report.confusion_picture import confusion_png

    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, confusion_png(assessment.confusion, classifier.classes))


def _remarks(
    classifier: Classifier, support: OwnExamples, query: OwnExamples, unclear: Sequence[str], again: Sequence[str]
) -> Iterator[str]:
    if classifier.note:
        yield classifier.note
    if unclear:
        yield (
            f"{len(unclear)} of the support examples stand in another class too, the first being {unclear[0]}: neither "
            "class can be learned from them."
        )
    other = sorted({label for label in query.labels if label is not None} - set(classifier.classes))
    if other:
        yield f"no class of the support is named {', '.join(map(repr, other[:5]))}: its queries count as unlabelled."
    if again:
        yield f"{len(again)} of the queries are in the support too, the first being {again[0]}."
    if classifier.together:
        yield (
            f"this method normalises queries together, {classifier.together} at once, so that the probabilities of one "
            "depend on the others."
        )
    for examples, option in ((support, "support"), (query, "query")):
        dark, bright = examples.inks
        if dark and bright:
            yield f"--{option}: {dark} pictures show dark ink, {bright} bright ink. --ink decides for all."


def _summary(
    options: PredictOptions,
    classifier: Classifier,
    support: OwnExamples,
    query: OwnExamples,
    count: int,
    assessment: Assessment | None,
) -> dict[str, Any]:
    known = assessment is not None
    return {
        "out": str(options.out),
        "classes": dict(zip(classifier.classes, classifier.shots, strict=True)),
        "queries": count,
        "skipped": [
            {"in": option, "file": one.name, "reason": one.reason}
            for option, examples in (("support", support), ("query", query))
            for one in examples.skipped
        ],
        "horizon": classifier.horizon,
        "note": classifier.note,
        "labelled": assessment.count if known else 0,
        "accuracy": assessment.accuracy if known else None,
        "interval95": assessment.interval if known else None,
        "confusion": assessment.confusion.tolist() if known else None,
    }


def _describe(
    options: PredictOptions, classifier: Classifier, query: OwnExamples, count: int, assessment: Assessment | None
) -> str:
    support = f"{len(classifier.classes)} classes, {sum(classifier.shots)} support examples"
    horizon = "" if classifier.horizon is None else f", T = {classifier.horizon:.4g}"
    skipped = f", {len(query.skipped)} skipped" if query.skipped else ""
    lines = [f"{support}{horizon}", f"wrote {options.out}: {count} queries{skipped}"]
    if assessment is not None:
        low, high = assessment.interval
        lines.append(
            f"accuracy {100 * assessment.accuracy:.1f} % on {assessment.count} labelled queries (95 % interval "
            f"{100 * low:.1f} to {100 * high:.1f})"
        )
        lines += _matrix(classifier.classes, assessment.confusion)
    return "\n".join(lines)


def _matrix(classes: Sequence[str], confusion: np.ndarray) -> list[str]:
    """Return the confusion matrix in lines: a row for each actual class, a column for each predicted one."""
    if len(classes) > CLASSES_SHOWN:
        return [f"the confusion matrix of {len(classes)} classes is in --json and in --plot"]
    names = [name if len(name) <= 16 else f"{name[:15]}…" for name in classes]
    width, cell = max(map(len, names)), [max(len(name), 4) for name in names]
    head = " ".join(name.rjust(size) for name, size in zip(names, cell, strict=True))
    rows = [
        f"  {name:<{width}}  " + " ".join(f"{value:>{size}}" for value, size in zip(row, cell, strict=True))
        for name, row in zip(names, confusion.tolist(), strict=True)
    ]
    return ["actual (rows), predicted (columns):", f"  {'':<{width}}  {head}", *rows]
