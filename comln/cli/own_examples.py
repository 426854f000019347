"""A user's own labelled or unlabelled examples, from a folder of pictures or a file of embeddings, in blocks."""

__all__ = ["OwnExamples", "open_examples", "tell_skipped"]

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from comln.data.data_error import DataError
from comln.data.embedding_file import EmbeddingFile, is_embedding_file, open_embeddings
from comln.data.input_form import InputForm
from comln.data.own_files import OwnFile, Skipped, label_of, list_folder, printable
from comln.data.own_pictures import InkOf, OwnPictures
from comln.predict import mixed_blocks


@dataclass
class OwnExamples:
    """Examples that are read block by block.

    - `path`: the folder or file. `names`, `labels`: of each example; a label may be `None`.
    - `classes`: all labels there are, also those of empty folders.
    - `skipped`: what was left out, as far as it was read.
    - `content`: embeddings; or what reads pictures, and the files.
    """

    path: Path
    names: Sequence[str]
    labels: Sequence[str | None]
    classes: tuple[str, ...]
    content: EmbeddingFile | tuple[OwnPictures, Sequence[OwnFile]]
    skipped: list[Skipped] = field(default_factory=list)

    def blocks(self, size: int, mixed: bool = False) -> Iterator[tuple[list[int], np.ndarray]]:
        """Yield positions of examples with the examples; what cannot be read is passed over, with a line each.

        - `mixed`: whether each block of pictures is a mixture of all.
        """
        if isinstance(self.content, EmbeddingFile):
            start = 0
            for block in self.content.blocks():
                yield list(range(start, start + len(block))), block
                start += len(block)
            return
        pictures, files = self.content
        place = {file.path: index for index, file in enumerate(files)}
        order = mixed_blocks(len(files), size) if mixed else [np.arange(len(files))]
        told = 0
        for chosen in order:
            # Each by itself: what is left over of several would be no mixture.
            for read, examples in pictures.blocks((files[i] for i in chosen.tolist()), size):
                told = tell_skipped(self.path, pictures.skipped, told)
                yield [place[file.path] for file in read], examples
        tell_skipped(self.path, pictures.skipped, told)
        self.skipped += pictures.skipped

    @property
    def unreadable(self) -> int:
        """How many of the examples that were come to could not be read."""
        return 0 if isinstance(self.content, EmbeddingFile) else len(self.content[0].skipped)

    @property
    def inks(self) -> tuple[int, int]:
        """How many drawings had dark ink, and how many bright; of other examples, none."""
        if isinstance(self.content, EmbeddingFile):
            return 0, 0
        return self.content[0].dark, self.content[0].bright


def open_examples(path: Path, form: InputForm, ink: InkOf, option: str, labelled: bool = False) -> OwnExamples:
    """Return the examples in a folder of pictures or a file of embeddings, whichever a run of this form takes.

    - `option`: that named the path, for messages.
    - `labelled`: whether each needs a label; files outside of the folders of classes are left out then.

    **Raises:** `DataError` and `ValueError` where there are none, or the run takes others.
    """
    if is_embedding_file(path):
        return _embeddings(path, form, labelled)
    if not form.is_image:
        raise ValueError(
            f"This run has no network for pictures: it takes embeddings of {form.shape[0]} numbers. Pass an .npz or "
            f".parquet file with {option}; `comln embed` writes one."
        )
    listed = list_folder(path)
    if not listed.files:
        raise DataError(path, "it holds no files.")
    files, skipped = listed.files, list(listed.skipped)
    if labelled:
        skipped += [Skipped(file.name, "it lies in no folder of a class") for file in files if file.label is None]
        files = tuple(file for file in files if file.label is not None)
        if not files:
            raise DataError(path, "its pictures lie in no folders. Make a folder for each class, with its name.")
    examples = OwnExamples(
        path,
        [file.name for file in files],
        [file.label for file in files],
        listed.labels,
        (OwnPictures(form, ink), files),
        skipped,
    )
    tell_skipped(path, examples.skipped, 0)
    return examples


def _embeddings(path: Path, form: InputForm, labelled: bool) -> OwnExamples:
    if form.is_image:
        raise ValueError(
            f"{path}: this run embeds pictures itself, by a network of its own. Pass a folder of pictures."
        )
    file = open_embeddings(path)
    if (file.features,) != form.shape:
        raise DataError(path, f"its embeddings have {file.features} numbers, but this run takes {form.shape[0]}.")
    if labelled and file.labels is None:
        raise DataError(path, "it has no labels, which the support needs.")
    names = [printable(name) for name in file.names or map(str, range(file.count))]
    labels = [None] * file.count if file.labels is None else [label_of(label) for label in file.labels]
    return OwnExamples(path, names, labels, tuple(dict.fromkeys(label for label in labels if label)), file)


def tell_skipped(folder: Path, skipped: Sequence[Skipped], told: int) -> int:
    """Say what was skipped after the first `told`, in a line each; return how many are told now."""
    for one in skipped[told:]:
        print(f"comln: skipped {printable(str(folder))}/{one.name}: {one.reason}", file=sys.stderr)
    return len(skipped)
