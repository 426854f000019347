"""A run that is ready for tasks which people make: pictures in, everything along the flow out."""

__all__ = ["Demonstration", "prepare_demonstration"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from comln.backbones import AbstractBackbone, Normalisation
from comln.data.batches import scale_bytes
from comln.data.own_pictures import OwnPictures
from comln.data.pixel_scaling import PixelScaling
from comln.data.source import Split, split_of
from comln.demo.flow_of_task import FlowOfTask, flow_of_task
from comln.demo.gallery import Gallery
from comln.demo.task_request import MOST_CLASSES, MOST_QUERIES, MOST_SUPPORT, Task
from comln.embed import input_form
from comln.learners import COMLN
from comln.run import Run
from comln.typing import Array

PICTURES_AT_ONCE = 16


@dataclass(frozen=True)
class Demonstration:
    """A run as the page uses it.

    - `title`: of the page.
    - `run`: with the learner and its batch statistics. `learner`: the one of `run`, as it is evaluated.
    - `pictures`: reads a person's pictures as `comln predict` does. `gallery`: pictures to pick from.
    """

    title: str
    run: Run
    learner: COMLN
    pictures: OwnPictures
    gallery: Gallery

    def describe(self) -> dict[str, Any]:
        """Return what the page has to know from the start, ready for JSON."""
        experiment, start = self.run.experiment, self.learner.initial_weights
        return {
            "title": self.title,
            "recipe": experiment.name,
            "step": self.run.step,
            "horizon": float(self.learner.horizon),
            "per_task": self.learner.task_horizon is not None,
            "ways": experiment.test.ways,
            "learned_ways": None if start is None else len(start),
            "size": self.pictures.form.shape[0],
            "gallery": [
                {"name": name, "label": label, "count": len(members)}
                for name, label, members in zip(
                    self.gallery.names, self.gallery.labels, self.gallery.members, strict=True
                )
            ],
            "limits": {"classes": MOST_CLASSES, "support": MOST_SUPPORT, "queries": MOST_QUERIES},
        }

    def adapt(self, task: Task) -> FlowOfTask:
        """Embed the pictures of a task and follow its flow.

        **Raises:** `ValueError` or `RuntimeError` where the flow cannot be followed.
        """
        embeddings = self._embed(np.concatenate([task.support, task.queries]))
        count = len(task.support)
        return flow_of_task(self.learner, embeddings[:count], task.classes, task.ways, embeddings[count:])

    def _embed(self, pictures: np.ndarray) -> np.ndarray:
        """Return the embeddings of pictures, all of one task: with batch statistics they depend on one another."""
        normalisation = self.run.experiment.normalisation
        at_once = PICTURES_AT_ONCE if normalisation is Normalisation.RUNNING else len(pictures)
        parts = [
            _embed(
                self.learner.backbone,
                self.run.statistics,
                np.resize(pictures[start : start + at_once], (at_once, *pictures.shape[1:])),
                self.pictures.form.scaling,
                normalisation,
            )
            for start in range(0, len(pictures), at_once)
        ]
        return np.concatenate([np.asarray(part) for part in parts])[: len(pictures)]

    def warm_up(self) -> None:
        """Adapt once to a task of the usual number of classes, so that the first one of a person is quick."""
        ways = min(self.run.experiment.test.ways, len(self.gallery.members))
        support = np.stack([self.gallery.picture(number, 0) for number in range(ways)])
        self.adapt(Task(ways, support, np.arange(ways), support[:1]))


@eqx.filter_jit
def _embed(
    backbone: AbstractBackbone,
    statistics: Any,
    pictures: Array | np.ndarray,
    scaling: PixelScaling | None,
    normalisation: Normalisation,
) -> Array:
    return backbone(scale_bytes(jnp.asarray(pictures), scaling), statistics, normalisation)[0]


def prepare_demonstration(title: str, run: Run, splits: Mapping[str, Split]) -> Demonstration:
    """Return a run with what the page needs of the data that it was trained on.

    **Raises:** `ValueError` where the page has nothing to show of it; `RunError` as `input_form` does.
    """
    experiment = run.experiment
    learner = experiment.at_test(run.learner)
    if not isinstance(learner, COMLN):
        raise ValueError(
            f"{title} is a run of {type(learner).__name__}, and the page shows how a classifier changes along T, which "
            "only COMLN has. Train with `--learner comln`."
        )
    if len(experiment.data.example_shape) != 3:
        raise ValueError(f"{title} was trained on embeddings, and the page takes pictures. Pass a run on pictures.")
    return Demonstration(
        title=title,
        run=run,
        learner=learner,
        pictures=OwnPictures(input_form(run)),
        gallery=Gallery.of(split_of(splits, "test")),
    )
