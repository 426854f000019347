"""A run small enough for tests: stripes, a narrow network, a few steps."""

import jax

from comln.backbones import Conv4
from comln.data.sampling import EpisodeShape, Sampler
from comln.learners import COMLN
from comln.meta_train import meta_train, start_training
from comln.optimiser import Adam
from tests.data.splits import stripes

STEPS = 6
SETTINGS = {"steps": STEPS, "tasks_per_step": 2, "seed": 0}


def sampler(**settings) -> Sampler:
    return Sampler(stripes(**settings), EpisodeShape(ways=3, shots=1, queries=4))


def learner(horizon: float = 5.0) -> COMLN:
    backbone = Conv4.init(16, 1, 4, jax.random.key(0))
    return COMLN.init(backbone, ways=3, key=jax.random.key(1), initial_horizon=horizon)


def train(state=None, optimiser=None, model=None, samplers=None, **settings):
    """Train to the end, from a state or from the start."""
    model = learner() if model is None else model
    settings = {**SETTINGS, **settings}
    optimiser = Adam().build(model, settings["steps"]) if optimiser is None else optimiser
    state = start_training(model, optimiser) if state is None else state
    # Optax mixes integers and floats, which the tests of our own code forbid.
    with jax.numpy_dtype_promotion("standard"):
        return meta_train(state, optimiser, [sampler()] if samplers is None else samplers, **settings)
