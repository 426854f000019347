"""What an experiment is: everything that determines a run but its seed."""

__all__ = ["COMLNConfig", "Conv4Config", "Experiment", "GlyphsData"]

from dataclasses import dataclass, field

import jax
import numpy as np

from comln.backbones import AbstractBackbone, Conv4, Normalisation
from comln.data.glyphs import load_glyphs
from comln.data.sampling import EpisodeShape
from comln.data.source import Split
from comln.learners import COMLN, AbstractLearner, InitialHead
from comln.optimiser import SGD, Adam
from comln.typing import PRNGKeyArray


@dataclass(frozen=True)
class GlyphsData:
    """Characters of many scripts, drawn in the typefaces that come with matplotlib; 28 x 28 pixels, one channel."""

    image_size: int = field(default=28, init=False)
    channels: int = field(default=1, init=False)

    def load(self) -> dict[str, Split]:
        """Return the splits train (Latin and common), val (Greek) and test (Cyrillic, Armenian, Georgian)."""
        return load_glyphs()


@dataclass(frozen=True)
class Conv4Config:
    """The four-block convolutional network."""

    filters: int = 32
    """channels of every block"""
    scale_output: bool = True
    """divide embeddings by the square root of their size"""

    def build(self, data: GlyphsData, key: PRNGKeyArray) -> AbstractBackbone:
        """Return the network for the images of `data`."""
        return Conv4.init(data.image_size, data.channels, self.filters, key, self.scale_output)


@dataclass(frozen=True)
class COMLNConfig:
    """COMLN: a linear head that follows the gradient flow of the support loss for a learned time."""

    initial_horizon: float = 10.0
    """T before training"""
    initial_head: InitialHead = InitialHead.LEARNED
    """where the flow starts"""
    proximal: float = 0.0
    """pull towards the start, lambda"""
    support_smoothing: float = 0.0
    """share of each support label spread over the other classes"""
    query_smoothing: float = 0.0
    """the same for query labels, in training"""

    def build(self, backbone: AbstractBackbone, ways: int, key: PRNGKeyArray) -> AbstractLearner:
        """Return the untrained learner."""
        return COMLN.init(
            backbone,
            ways,
            key,
            initial_horizon=self.initial_horizon,
            initial_head=self.initial_head,
            proximal=self.proximal,
            support_smoothing=self.support_smoothing,
            query_smoothing=self.query_smoothing,
        )


@dataclass(frozen=True)
class Experiment:
    """Data, network, learner and training of one named run."""

    name: str
    """<data>-<N>way-<K>shot"""
    train: EpisodeShape
    """shape of the training tasks"""
    test: EpisodeShape
    """shape of the test tasks"""
    data: GlyphsData = GlyphsData()
    """where examples come from"""
    backbone: Conv4Config = Conv4Config()
    """the embedding network"""
    learner: COMLNConfig = COMLNConfig()
    """the method"""
    optimiser: Adam | SGD = Adam()
    """how meta-parameters are updated"""
    steps: int = 800
    """updates"""
    tasks_per_step: int = 8
    """tasks in a meta-batch"""
    normalisation: Normalisation = Normalisation.RUNNING
    """batch statistics at evaluation: running averages, or those of the evaluated task itself"""

    def build(self, seed: int) -> AbstractLearner:
        """Return the untrained learner of this seed."""
        backbone_key, head_key = jax.random.split(jax.random.key(np.uint32(seed)))
        return self.learner.build(self.backbone.build(self.data, backbone_key), self.train.ways, head_key)
