"""One battery over all learners: what each of them must do, whatever its method."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln.backbones import AbstractBackbone, Conv4, FilmConv4, Identity, Normalisation
from comln.backbones.layers import convolve_by_patches
from comln.checkpoint import Checkpoints
from comln.episode import Episode, Examples
from comln.episodic import meta_loss
from comln.heads import LinearHead
from comln.learners import (
    ANIL,
    CAVIA,
    COMLN,
    IMAML,
    LEO,
    LRD2,
    MAML,
    R2D2,
    InnerGradient,
    Leap,
    MetaOptNetRidge,
    MetaOptNetSVM,
    MetaSGD,
    ProtoNet,
    TaskHorizon,
)
from comln.typing import Array, Float

WAYS, SHOTS, QUERIES, FEATURES, PIXELS = 3, 2, 4, 6, 16
KEY = jax.random.key(0)


class Dense(AbstractBackbone):
    """One layer: small enough to compile many methods that adapt whole networks."""

    weights: Float[Array, "feature input"]

    @property
    def embedding_size(self):
        return len(self.weights)

    def initial_statistics(self):
        return ()

    def __call__(self, inputs, statistics, normalisation, key=None):
        return jnp.tanh(inputs @ self.weights.T), statistics


def network():
    return Dense(jax.random.normal(KEY, (5, FEATURES)) / FEATURES**0.5)


def backbone():
    return Identity(FEATURES)


def convolutions():
    return Conv4.init(PIXELS, 1, 4, KEY, scale_output=False, convolve=convolve_by_patches)


def with_own_horizons():
    drawn = TaskHorizon.init(KEY)
    factor = eqx.tree_at(lambda m: m.output, drawn, jnp.ones_like(drawn.output))
    return COMLN.init(backbone(), WAYS, KEY, initial_horizon=3.0, task_horizon=factor)


LEARNERS = {
    "comln": lambda: COMLN.init(backbone(), WAYS, KEY, initial_horizon=3.0),
    "comln, a horizon for each task": with_own_horizons,
    "anil": lambda: ANIL.init(backbone(), WAYS, KEY),
    "maml": lambda: MAML.init(network(), WAYS, KEY, steps=2),
    "first-order maml": lambda: MAML.init(network(), WAYS, KEY, inner_gradient=InnerGradient.FIRST_ORDER),
    "meta-sgd": lambda: MetaSGD.init(network(), WAYS, KEY),
    "cavia": lambda: CAVIA(network=FilmConv4.init(PIXELS, 1, 4, WAYS, 5, KEY)),
    "imaml": lambda: IMAML.init(network(), WAYS, KEY, steps=3),
    "metaoptnet-rr": lambda: MetaOptNetRidge.init(backbone(), regularisation=1.0),
    "metaoptnet-svm": lambda: MetaOptNetSVM.init(backbone()),
    "r2d2": lambda: R2D2.init(backbone(), regularisation=1.0, initial_scale=1.0),
    "lrd2": lambda: LRD2(backbone(), regularisation=1.0),
    "leap": lambda: Leap.init(network(), WAYS, KEY, steps=3),
    "leo": lambda: LEO.init(backbone(), KEY, latent_step=0.01),
    "protonet": lambda: ProtoNet(backbone()),
}
CONVOLUTIONAL = {
    "maml": lambda: MAML.init(convolutions(), WAYS, KEY, steps=2),
    "meta-sgd": lambda: MetaSGD.init(convolutions(), WAYS, KEY),
    "imaml": lambda: IMAML.init(convolutions(), WAYS, KEY, steps=3),
    "leap": lambda: Leap.init(convolutions(), WAYS, KEY, steps=3),
}
WITH_A_START = ["anil", "maml", "meta-sgd", "cavia", "imaml", "leap"]
NAMES = list(LEARNERS)


def examples(shape, each, seed):
    rng = np.random.default_rng(seed)
    classes = np.repeat(np.arange(WAYS), each)
    centres = np.random.default_rng(0).normal(size=(WAYS, *shape))
    inputs = jnp.asarray(centres[classes] + 0.5 * rng.normal(size=(len(classes), *shape)))
    return Examples(inputs, jnp.eye(WAYS)[classes], jnp.ones(len(classes)))


def episode(name, seed=1):
    shape = (PIXELS, PIXELS, 1) if name in ("cavia", "images") else (FEATURES,)
    return Episode(examples(shape, SHOTS, seed), examples(shape, QUERIES, seed + 100))


def stack(episodes):
    return jax.tree.map(lambda *x: jnp.stack(x), *episodes)


TRACES = []


@eqx.filter_jit
def logits(model, task):
    TRACES.append(type(model))
    return model.classify(task).logits


@eqx.filter_jit
def logits_of_batch(model, tasks):
    return jax.vmap(lambda task: model.classify(task).logits)(tasks)


def relabelled(model, order):
    """Return the learner with the classes of its class-specific meta-parameters in another order."""

    def reorder(node):
        if isinstance(node, LinearHead):
            return LinearHead(node.weights[order], None if node.bias is None else node.bias[order])
        return node

    model = jax.tree.map(reorder, model, is_leaf=lambda node: isinstance(node, LinearHead))
    if isinstance(model, CAVIA):
        last = model.network.linear_weights[order], model.network.linear_bias[order]
        return eqx.tree_at(lambda m: (m.network.linear_weights, m.network.linear_bias), model, last)
    if getattr(model, "initial_weights", None) is not None:
        model = eqx.tree_at(lambda m: m.initial_weights, model, model.initial_weights[order])
    return model


@eqx.filter_jit
@eqx.filter_value_and_grad(has_aux=True)
def gradient(model, tasks):
    return meta_loss(model, tasks, model.backbone.initial_statistics(), Normalisation.BATCH, KEY)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_jit_changes_nothing(name):
    model, task = LEARNERS[name](), episode(name)
    head, info = model.adapt(task.support)
    result = head(task.query.inputs)
    assert result.shape == (WAYS * QUERIES, WAYS)
    assert bool(info.ok) and info.steps.shape == ()
    np.testing.assert_allclose(logits(model, task), result, rtol=1e-8, atol=1e-10)


@pytest.mark.float32
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_a_loop(name):
    model, tasks = LEARNERS[name](), [episode(name, seed) for seed in (1, 2, 3)]
    together = logits_of_batch(model, stack(tasks))
    tight = 1e-9 if together.dtype == jnp.float64 else 1e-3
    for i, task in enumerate(tasks):
        np.testing.assert_allclose(together[i], logits(model, task), rtol=tight, atol=tight)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_support_does_not_matter(name):
    model, task = LEARNERS[name](), episode(name)
    order = np.random.default_rng(0).permutation(WAYS * SHOTS)
    shuffled = Episode(jax.tree.map(lambda x: x[order], task.support), task.query)
    np.testing.assert_allclose(logits(model, shuffled), logits(model, task), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_names_of_the_classes_do_not_matter(name):
    model, task, order = LEARNERS[name](), episode(name), jnp.array([2, 0, 1])
    renamed = Episode(Examples(task.support.inputs, task.support.labels[:, order], task.support.mask), task.query)
    expected = logits(model, task)[:, order]
    np.testing.assert_allclose(logits(relabelled(model, order), renamed), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.float32
@pytest.mark.parametrize("name", NAMES)
def test_every_meta_parameter_has_a_finite_gradient_that_is_not_zero(name):
    check_gradient(LEARNERS[name](), stack([episode(name, seed) for seed in (1, 2)]))


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_so_it_has_through_convolutions_and_normalisation(name):
    check_gradient(CONVOLUTIONAL[name](), stack([episode("images", seed) for seed in (1, 2)]))


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_a_batch_is_a_loop_through_convolutions_and_normalisation(name):
    """A task's batch statistics are its own: they do not see the other tasks of a batch."""
    model, tasks = CONVOLUTIONAL[name](), [episode("images", seed) for seed in (1, 2)]
    together = logits_of_batch(model, stack(tasks))
    for i, task in enumerate(tasks):
        np.testing.assert_allclose(together[i], logits(model, task), rtol=1e-8, atol=1e-8)


def check_gradient(model, tasks):
    (_, (_, info)), slopes = gradient(model, tasks)
    assert int(info.dropped) == 0
    largest = {
        jax.tree_util.keystr(path): float(jnp.max(jnp.abs(slope)))
        for path, slope in jax.tree_util.tree_leaves_with_path(slopes)
    }
    assert all(np.isfinite(x) for x in largest.values())
    # A softmax does not see a shift common to all classes, nor a normalised layer the bias that came before it.
    unseen = {name for name in largest if name == ".shift" or re.fullmatch(r".*convolutions\[\d\]\.bias", name)}
    for name, size in largest.items():
        # Far above round-off: what is not learned would not be.
        assert name in unseen or size > 1e-5 * max(largest.values()), name


@pytest.mark.parametrize("name", NAMES)
def test_a_task_that_fails_is_left_out_exactly(name):
    model, tasks = LEARNERS[name](), stack([episode(name, seed) for seed in (1, 2)])
    spoilt = [
        eqx.tree_at(lambda t: t.support.inputs, tasks, tasks.support.inputs.at[1].set(x)) for x in (jnp.nan, jnp.inf)
    ]
    results = [gradient(model, broken) for broken in spoilt]
    for (loss, (_, info)), slopes in results:
        assert int(info.dropped) == 1 and bool(jnp.isfinite(loss))
        assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(slopes))
    # What the failing task held makes no difference.
    for a, b in zip(jax.tree.leaves(results[0][1]), jax.tree.leaves(results[1][1]), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_two_calls_are_one_trace(name):
    model = LEARNERS[name]()
    logits(model, episode(name, 1))
    before = len(TRACES)
    logits(model, episode(name, 2))
    assert len(TRACES) == before and type(model) in TRACES


@pytest.mark.parametrize("name", NAMES)
def test_what_was_saved_is_restored(name, tmp_path):
    model, task = LEARNERS[name](), episode(name)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, model, {})
    checkpoints.finish()
    blank = jax.tree.map(lambda x: jnp.zeros_like(x) if eqx.is_array(x) else x, model)
    restored = checkpoints.restore_newest(blank)
    assert restored is not None
    np.testing.assert_array_equal(logits(restored[0], task), logits(model, task))


@pytest.mark.parametrize("name", WITH_A_START)
def test_methods_that_learned_a_start_refuse_another_number_of_ways(name):
    assert LEARNERS[name]().ways_note(WAYS) == ""
    with pytest.raises(ValueError, match=f"{WAYS} ways, and has no start for 7"):
        LEARNERS[name]().ways_note(7)
