"""Embeddings of examples by the network of a run, each by itself."""

__all__ = ["RunNetwork", "input_form"]

import dataclasses
from pathlib import Path

import numpy as np

from comln.backbones import Identity
from comln.data.data_error import DataError
from comln.data.input_form import FEW, MANY, InputForm
from comln.data.prepared import PreparedData, PreparedEmbeddings
from comln.data.source import content_hash
from comln.evaluate import embed_with_running_statistics
from comln.run import Run, RunError


def input_form(run: Run, data_folder: Path | None = None) -> InputForm:
    """Return what a run expects of an example: as it was written down, or as its data say.

    - `data_folder`: where `comln data prepare` put the data of a run from before this was written down, if not in the
      cache.

    **Raises:** `RunError` where these data are needed and not there, or not those it was trained on.
    """
    if run.inputs is not None:
        return run.inputs
    data = run.experiment.data
    if not isinstance(data, PreparedData | PreparedEmbeddings):
        return data.input_form()
    if data_folder is not None:
        data = dataclasses.replace(data, folder=data_folder)
    try:
        if content_hash(data.load()) != run.splits_hash:
            raise RunError("The data set here is not the one that this run was trained on. Name it with --data-folder.")
        return data.input_form()
    except DataError as error:
        raise RunError(
            f"How this run takes its examples stands in its data, which are needed: {error} Where they lie elsewhere, "
            "add --data-folder."
        ) from error


class RunNetwork:
    """The embedding network of a run, with running batch statistics.

    - `form`: what it expects of an example. `features`: numbers of an embedding. `at_once`: examples of a block.

    **Raises:** `RunError` where the run has no network of its own.
    """

    def __init__(self, run: Run, form: InputForm) -> None:
        if isinstance(run.learner.backbone, Identity):
            why = (
                "its examples are embeddings already"
                if run.learner.backbone.size is not None
                else "its method adapts a whole network to each task"
            )
            raise RunError(f"This run has no network that embeds pictures: {why}.")
        self.form, self.features, self.at_once = form, run.learner.backbone.embedding_size, form.at_once
        self._backbone, self._statistics = run.learner.backbone, run.statistics

    def __call__(self, examples: np.ndarray) -> np.ndarray:
        """Return the embeddings of examples in this form, at least one: shape `(example, feature)`."""
        parts = []
        for start in range(0, len(examples), self.form.at_once):
            block = examples[start : start + self.form.at_once]
            filled = np.resize(block, (FEW if len(block) <= FEW else MANY, *block.shape[1:]))
            embeddings = embed_with_running_statistics(self._backbone, self._statistics, filled, self.form.scaling)
            parts.append(np.asarray(embeddings[: len(block)]))
        return np.concatenate(parts)
