"""What an experiment is: everything that determines a run but its seed."""

__all__ = ["DataConfig", "Experiment", "GlyphsData"]

from dataclasses import dataclass, field
from typing import Annotated

import jax
import numpy as np
import tyro

from comln.backbones import Normalisation
from comln.data.glyphs import load_glyphs
from comln.data.input_form import Ink, InputForm
from comln.data.prepared import PreparedData, PreparedEmbeddings
from comln.data.sampling import EpisodeShape
from comln.data.source import Split
from comln.learners import AbstractLearner
from comln.optimiser import SGD, Adam, StepwiseAdam
from comln.recipes.backbones import BackboneConfig, Conv4Config
from comln.recipes.learner_config import Setting
from comln.recipes.learners import COMLNConfig, LearnerConfig


@dataclass(frozen=True)
class GlyphsData:
    """Characters of many scripts, drawn in the typefaces that come with matplotlib; 28 x 28 pixels, one channel."""

    @property
    def example_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return 28, 28, 1

    def load(self) -> dict[str, Split]:
        """Return the splits train (Latin and common), val (Greek) and test (Cyrillic, Armenian, Georgian)."""
        return load_glyphs()

    def input_form(self) -> InputForm:
        """Return what the network expects of an image."""
        return InputForm(self.example_shape, ink=Ink.CENTRED)


DataConfig = GlyphsData | PreparedData | PreparedEmbeddings
"""Where examples come from."""


@dataclass(frozen=True)
class Experiment:
    """Data, network, learner and training of one named run."""

    name: str
    """<data>-<N>way-<K>shot"""
    train: EpisodeShape
    """shape of the training tasks"""
    test: EpisodeShape
    """shape of the test tasks"""
    train_mixture: Annotated[tuple[EpisodeShape, ...], tyro.conf.Suppress] = ()
    """shapes of which each update takes one at random, instead of `train` alone"""
    data: DataConfig = field(default=GlyphsData())
    """where examples come from"""
    backbone: BackboneConfig = field(default=Conv4Config())
    """the embedding network"""
    learner: LearnerConfig = field(default=COMLNConfig())
    """the method"""
    optimiser: Adam | SGD | StepwiseAdam = Adam()
    """how meta-parameters are updated"""
    steps: int = 800
    """updates"""
    tasks_per_step: int = 8
    """tasks in a meta-batch"""
    normalisation: Normalisation = Normalisation.RUNNING
    """batch statistics at evaluation: running averages, or those of the evaluated task itself"""

    validate_every: int = 0
    """updates between validations, by which the best state is chosen (0: never, the last state is taken)"""
    validation_tasks: int = 200
    """tasks of each validation, of the classes for validation"""
    patience: int = 0
    """validations without a better one after which training stops (0: it does not stop)"""

    def __post_init__(self) -> None:
        if self.validate_every < 0 or self.patience < 0:
            raise ValueError("--validate-every and --patience must be at least 0.")
        if self.validation_tasks < 2:
            raise ValueError(f"--validation-tasks must be at least 2, got {self.validation_tasks}.")
        if self.patience and not self.validate_every:
            raise ValueError("--patience counts validations, but there are none. Add --validate-every N.")
        if self.learner.adapts_whole_network() and self.normalisation is Normalisation.RUNNING:
            raise ValueError(
                "This method adapts its whole network, which is normalised by the statistics of each task's examples. "
                "Leave out --normalisation, or pass --normalisation batch."
            )
        if self.train_mixture and self.train not in self.train_mixture:
            raise ValueError(
                "This protocol trains on a mixture of shapes, in which the one of --train does not occur. Leave out "
                "--train.*, or use --protocol house."
            )

    def build(self, seed: int) -> AbstractLearner:
        """Return the untrained learner of this seed."""
        key = jax.random.key(np.uint32(seed))
        return self.learner.build(Setting(self.backbone, self.data.example_shape, self.train.ways, key))

    def train_shapes(self) -> tuple[EpisodeShape, ...]:
        """Return the shapes of the training tasks."""
        return self.train_mixture or (self.train,)

    def at_test(self, learner: AbstractLearner) -> AbstractLearner:
        """Return the learner as it is evaluated: some methods take more inner steps than in training."""
        return self.learner.at_test(learner)
