r"""The programs whose memory and time Figures 3 and 4 and Table 1 compare: the meta-gradient of one task.

A *whole* program goes from a task's images to the gradient in everything that is meta-learned: network, initial
weights, horizon. A *head's* program goes from its embeddings to the gradient in the embeddings, the initial weights and
the horizon; it is the whole one without the network, which is the same for all methods that adapt a head alone. All
take steps of 0.01, or follow the flow to $T = 0.01 n$ (paper, E.2).
"""

__all__ = ["METHODS", "STEP", "Method", "Program", "head_program", "images_of_task", "network_program", "whole_program"]

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from comln.backbones import AbstractBackbone, Identity, Normalisation
from comln.backbones.layers import convolve, convolve_by_patches
from comln.data.batches import make_batch, to_episodes
from comln.data.glyphs import IMAGE_SIZE, load_glyphs
from comln.data.sampling import EpisodeShape, Sampler
from comln.episode import Episode, Examples
from comln.episodic import embed_batch
from comln.flow.integrator import Dopri5, Integrator
from comln.flow.meta_gradients import AbstractMetaGradient, ForwardSensitivity, NaiveForwardSensitivity, SpanAdjoint
from comln.learners import ANIL, COMLN, IMAML, MAML, AbstractLearner
from comln.learners.whole_network import WholeNetwork
from comln.recipes.backbones import BackboneConfig
from comln.reproduce.checkpointing import CheckpointedANIL, CheckpointedMAML
from comln.typing import Array, Int, PRNGKeyArray, Scalar

STEP = 0.01
"""Of gradient descent, and so the time that one step is worth."""

MOST_EULER_STEPS = 2_000_000
CHANNELS = 3


@dataclass(frozen=True)
class Method:
    """A way to the meta-gradient of a task.

    - `name`, `title`: for files and for people.
    - `learner`: from a network, the number of ways, the number of steps and a key.
    - `whole_network`: whether all of the network is adapted, rather than its last layer.
    - `fixed_program`: whether the horizon is an argument of the program, so that one program is for all of them.
    - `adaptive`: whether it takes as many steps as it needs, which are few, however long the horizon.
    """

    name: str
    title: str
    learner: Callable[[AbstractBackbone, int, int, PRNGKeyArray], AbstractLearner]
    whole_network: bool = False
    fixed_program: bool = False
    adaptive: bool = False

    def build(self, network: BackboneConfig, image_size: int, ways: int, steps: int) -> AbstractLearner:
        """Return the learner with its network for images of `image_size` pixels."""
        backbone_key, head_key = jax.random.split(jax.random.key(0))
        form = convolve_by_patches if self.whole_network else convolve
        backbone = network.build((image_size, image_size, CHANNELS), backbone_key, form)
        return self.learner(backbone, ways, steps, head_key)

    def build_head(self, features: int, ways: int, steps: int) -> AbstractLearner:
        """Return the learner for embeddings of a task."""
        return self.learner(Identity(features), ways, steps, jax.random.key(1))


def _maml(network: AbstractBackbone, ways: int, steps: int, key: PRNGKeyArray) -> AbstractLearner:
    return MAML.init(network, ways, key, STEP, steps)


def _checkpointed_maml(network: AbstractBackbone, ways: int, steps: int, key: PRNGKeyArray) -> AbstractLearner:
    return CheckpointedMAML(network=WholeNetwork.init(network, ways, key), step=STEP, steps=steps)


def _imaml(network: AbstractBackbone, ways: int, steps: int, key: PRNGKeyArray) -> AbstractLearner:
    return IMAML.init(network, ways, key, STEP, steps)


def _anil(backbone: AbstractBackbone, ways: int, steps: int, key: PRNGKeyArray) -> AbstractLearner:
    return ANIL.init(backbone, ways, key, STEP, steps)


def _checkpointed_anil(backbone: AbstractBackbone, ways: int, steps: int, key: PRNGKeyArray) -> AbstractLearner:
    weights = ANIL.init(backbone, ways, key).initial_weights
    return CheckpointedANIL(backbone=backbone, initial_weights=weights, step=STEP, steps=steps)


def _comln(
    backbone: AbstractBackbone,
    ways: int,
    steps: int,
    key: PRNGKeyArray,
    meta_gradient: AbstractMetaGradient,
    integrator: Integrator,
) -> AbstractLearner:
    return COMLN.init(backbone, ways, key, STEP * steps, meta_gradient=meta_gradient, integrator=integrator)


def _flow(meta_gradient: AbstractMetaGradient, integrator: Integrator) -> Callable[..., AbstractLearner]:
    return functools.partial(_comln, meta_gradient=meta_gradient, integrator=integrator)


DORMAND_PRINCE = Integrator(method=Dopri5())
METHODS = {
    method.name: method
    for method in (
        Method("maml", "MAML", _maml, whole_network=True),
        Method("checkpointed-maml", "MAML, checkpoints", _checkpointed_maml, whole_network=True),
        Method("imaml", "iMAML", _imaml, whole_network=True),
        Method("anil", "ANIL", _anil),
        Method("checkpointed-anil", "ANIL, checkpoints", _checkpointed_anil),
        Method(
            "comln-euler",
            "COMLN, Euler",
            _flow(ForwardSensitivity(), Integrator.euler(STEP, MOST_EULER_STEPS)),
            fixed_program=True,
        ),
        Method("comln-rk", "COMLN, RK", _flow(ForwardSensitivity(), DORMAND_PRINCE), fixed_program=True, adaptive=True),
        Method(
            "comln-span", "COMLN, SpanAdjoint", _flow(SpanAdjoint(), Integrator()), fixed_program=True, adaptive=True
        ),
        Method(
            "comln-span-euler",
            "COMLN, Euler, SpanAdjoint",
            _flow(SpanAdjoint(), Integrator.euler(STEP, MOST_EULER_STEPS)),
            fixed_program=True,
        ),
        Method(
            "comln-naive",
            "COMLN, whole Jacobians",
            _flow(NaiveForwardSensitivity(), DORMAND_PRINCE),
            fixed_program=True,
            adaptive=True,
        ),
    )
}
"""By name. `comln-euler` and `comln-rk` carry the paper's forward sensitivities, `comln-span` and `-span-euler` are
ours."""


@dataclass(frozen=True)
class Program:
    """A function to compile, and its arguments: arrays, or their shapes where nothing is to be run."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]

    def compile(self) -> jax.stages.Compiled:
        """Return the function compiled for its arguments."""
        return jax.jit(self.function).lower(*self.arguments).compile()


def whole_program(learner: AbstractLearner, task: Episode) -> Program:
    """Return from images to the gradient in all that is learned; also the steps taken and whether they went well."""
    parameters, fixed = eqx.partition(learner, _is_inexact)

    def loss(parameters: Any, task: Episode) -> tuple[Scalar, tuple[Int[Array, ""], Array]]:
        learner = eqx.combine(parameters, fixed)
        value, outcome = learner.objective(_embed(learner.backbone, task))
        return value, (outcome.steps, outcome.ok)

    return Program(jax.grad(loss, has_aux=True), (parameters, task))


def head_program(learner: AbstractLearner, task: Episode) -> Program:
    """Return from embeddings to the gradient in them and all that is learned, with the same besides."""
    parameters, fixed = eqx.partition(learner, _is_inexact)

    def loss(parameters: Any, support: Array, query: Array, labels: Episode) -> Any:
        episode = Episode(_with_inputs(labels.support, support), _with_inputs(labels.query, query))
        value, outcome = eqx.combine(parameters, fixed).objective(episode)
        return value, (outcome.steps, outcome.ok)

    function = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)
    return Program(function, (parameters, task.support.inputs, task.query.inputs, task))


def network_program(backbone: AbstractBackbone, task: Episode) -> Program:
    """Return what the network alone takes: embed a task's images, and pull back a cotangent of their embeddings."""
    parameters, fixed = eqx.partition(backbone, _is_inexact)

    def there_and_back(parameters: Any, task: Episode) -> Any:
        def embed(parameters: Any) -> tuple[Array, Array]:
            embedded = _embed(eqx.combine(parameters, fixed), task)
            return embedded.support.inputs, embedded.query.inputs

        embeddings, pull_back = jax.vjp(embed, parameters)
        return pull_back(embeddings)

    return Program(there_and_back, (parameters, task))


def _is_inexact(leaf: Any) -> bool:
    """Whether a leaf is an array, or the shape of one, of floating-point numbers."""
    return isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def _with_inputs(examples: Examples, inputs: Array) -> Examples:
    return Examples(inputs, examples.labels, examples.mask)


def _embed(backbone: AbstractBackbone, task: Episode) -> Episode:
    batch = jax.tree.map(lambda x: x[None], task)
    embedded, _ = embed_batch(backbone, batch, backbone.initial_statistics(), Normalisation.BATCH)
    return jax.tree.map(lambda x: x[0], embedded)


def images_of_task(image_size: int, ways: int, shots: int, queries: int) -> Episode:
    """Return a task of unseen glyphs, each pixel enlarged to a square, three channels alike.

    - `image_size`: a multiple of 28.

    **Raises:** `ValueError` if it is not.
    """
    factor, rest = divmod(image_size, IMAGE_SIZE)
    if rest or not factor:
        raise ValueError(f"Glyphs can be enlarged to a multiple of {IMAGE_SIZE} pixels a side, got {image_size}.")
    split = load_glyphs()["test"]
    batch = make_batch(Sampler(split, EpisodeShape(ways, shots, queries)), 0, range(1))
    task = jax.tree.map(lambda x: x[0], to_episodes(batch, None, jax.random.key(0), split.scaling))

    def enlarge(examples: Examples) -> Examples:
        images = jnp.repeat(jnp.repeat(examples.inputs, factor, axis=1), factor, axis=2)
        return Examples(jnp.tile(images, (1, 1, 1, CHANNELS)), examples.labels, examples.mask)

    return Episode(enlarge(task.support), enlarge(task.query))
