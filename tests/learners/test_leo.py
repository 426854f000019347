import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from comln.backbones import Identity, Normalisation
from comln.episode import Episode, Examples
from comln.episodic import meta_loss
from comln.learners.base import ParameterGroup
from comln.learners.leo import LEO, Normal, correlation_penalty, drop
from tests.flow.problems import random_problem

WAYS, SIZE, LATENT, BATCH = 3, 6, 4, 8
PENALTIES = ("kl_weight", "encoder_penalty", "l2_penalty", "orthogonality_penalty")


def learner(**settings) -> LEO:
    """Return a learner whose steps differ from coordinate to coordinate and are long enough to be seen."""
    model = LEO.init(Identity(SIZE), jax.random.key(0), latent_size=LATENT, **settings)
    rng = np.random.default_rng(1)
    steps = (jnp.asarray(rng.uniform(0.5, 2, LATENT)), jnp.asarray(rng.uniform(0.1, 0.5, SIZE)))
    steps = jax.tree.map(lambda x: x.astype(model.encoder.dtype), steps)
    return eqx.tree_at(lambda m: (m.latent_step, m.weight_step), model, steps)


def silent(model: LEO) -> LEO:
    """Return a learner that codes everything by zero, so that a draw depends on nothing but its key."""
    return eqx.tree_at(lambda m: m.encoder, model, jnp.zeros_like(model.encoder))


def examples(inputs, labels, mask=None) -> Examples:
    return Examples(inputs, labels, jnp.ones(len(labels), inputs.dtype) if mask is None else mask)


def support(seed=0, shots=2, **settings) -> Examples:
    problem = random_problem(seed, ways=WAYS, support=WAYS * shots, size=SIZE, **settings)
    return examples(problem.embeddings, problem.labels)


def episode(seed=0, shots=2) -> Episode:
    problem = random_problem(seed, ways=WAYS, support=WAYS * shots, size=SIZE, queries=9)
    return Episode(examples(problem.embeddings, problem.labels), examples(problem.query, problem.query_labels))


def episodes(count: int, **settings) -> Episode:
    return jax.tree.map(lambda *x: jnp.stack(x), *[episode(seed, **settings) for seed in range(count)])


@eqx.filter_jit
def compiled_adapt(model: LEO, task: Examples, key):
    return model.adapt(task, key)


def adapt(model: LEO, task: Examples, key=None):
    return compiled_adapt(model, task, key)


@eqx.filter_jit
@functools.partial(eqx.filter_value_and_grad, has_aux=True)
def value_and_gradient(model_and_task: tuple[LEO, Episode], key):
    """Return the objective and the outcome, and the gradient in all arrays of the learner and of the task."""
    model, task = model_and_task
    return model.objective(task, key)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def by_hand(model: LEO, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the head without a key, and the latents before and after their steps.

    Written as in the method's paper: `inputs` of shape `(way, shot, feature)`, sums over pairs and shots as loops, and
    the gradients of the summed loss in closed form.
    """
    ways, shots, size = inputs.shape
    encoder, decoder = np.asarray(model.encoder), np.asarray(model.decoder)[:, :size]
    first, second, third = (np.asarray(x) for x in model.relation)
    codes = [inputs[n, k] @ encoder for n in range(ways) for k in range(shots)]

    def related(code):
        pairs = [np.concatenate([code, other]) for other in codes]
        return np.mean([np.maximum(np.maximum(pair @ first, 0) @ second, 0) @ third for pair in pairs], axis=0)

    per_class = np.array([related(code) for code in codes]).reshape(ways, shots, -1).mean(1)
    start = np.repeat(per_class[:, None, : encoder.shape[1]], shots, axis=1)

    def gradient_in_copies(copies):
        residual = softmax(inputs @ copies.mean(1).T) - np.eye(ways)[:, None, :]
        by_class = np.einsum("nkc,nkd->cd", residual, inputs)
        return np.repeat(by_class[:, None, :], shots, axis=1) / shots

    latents = start
    for _ in range(model.steps_in_latents):
        latents = latents - np.asarray(model.latent_step) * (gradient_in_copies(latents @ decoder) @ decoder.T)
    copies = latents @ decoder
    for _ in range(model.steps_in_weights):
        copies = copies - np.asarray(model.weight_step) * gradient_in_copies(copies)
    return copies.mean(1), start, latents


def by_class(inputs) -> np.ndarray:
    """Return embeddings whose classes take turns as `(way, shot, feature)`."""
    return np.asarray(inputs).reshape(-1, WAYS, SIZE).swapaxes(0, 1)


# Adaptation


@pytest.mark.parametrize(("shots", "counts"), [(3, (1, 0)), (3, (0, 1)), (2, (5, 5))], ids=str)
def test_evaluation_is_the_method_written_out_by_hand(shots, counts):
    """Also says that the inner loss is a sum: a mean over the support would make every step shorter."""
    model = learner(steps_in_latents=counts[0], steps_in_weights=counts[1])
    task = support(shots=shots)
    head, info = adapt(model, task)
    np.testing.assert_allclose(head.weights, by_hand(model, by_class(task.inputs))[0], rtol=1e-10)
    assert bool(info.ok) and int(info.steps) == sum(counts)


def test_without_a_key_the_same_head_comes_again_and_with_keys_others_come():
    model, task = learner(), support()
    first, again = adapt(model, task)[0], adapt(model, task)[0]
    np.testing.assert_array_equal(first.weights, again.weights)
    drawn = [adapt(model, task, jax.random.key(i))[0].weights for i in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert np.abs(drawn[0] - drawn[2]).max() > 1e-3 and np.abs(drawn[0] - first.weights).max() > 1e-3


def test_a_head_is_the_mean_of_independent_copies_one_for_each_shot():
    """A code of zero decodes to weights around zero with spread sqrt(2 / (N + d)); the mean of k copies has less."""
    shots, model = 4, silent(learner(steps_in_latents=0, steps_in_weights=0))
    keys = jax.random.split(jax.random.key(0), 1000)
    drawn = jax.jit(jax.vmap(lambda key: model.adapt(support(shots=shots), key)[0].weights))(keys)
    np.testing.assert_allclose(np.std(drawn), np.sqrt(2 / (WAYS + SIZE) / shots), rtol=0.02)
    np.testing.assert_allclose(np.mean(drawn), 0.0, atol=0.02)


@pytest.mark.float32
def test_examples_may_come_in_any_order():
    model, task = learner(), support()
    head, _ = adapt(model, task)
    order = jnp.array([4, 0, 3, 5, 1, 2])
    shuffled, _ = adapt(model, jax.tree.map(lambda x: x[order], task))
    np.testing.assert_allclose(shuffled.weights, head.weights, atol=2e-5)


@pytest.mark.parametrize("key", [None, jax.random.key(3)], ids=["means", "draws"])
def test_relabelling_the_classes_permutes_the_head(key):
    model, task, order = learner(), support(), jnp.array([2, 0, 1])
    head, _ = adapt(model, task, key)
    relabelled, _ = adapt(model, Examples(task.inputs, task.labels[:, order], task.mask), key)
    np.testing.assert_allclose(relabelled.weights, head.weights[order], rtol=1e-10)


def test_an_example_without_weight_does_not_exist():
    """Also with unequal shots: two examples of two classes are left, and one of the third."""
    model, task, mask = learner(), support(), jnp.ones(6).at[5].set(0.0)
    head, _ = adapt(model, Examples(100 * (1 - mask)[:, None] + task.inputs, task.labels, mask))
    expected, _ = adapt(model, jax.tree.map(lambda x: x[:5], task))
    np.testing.assert_allclose(head.weights, expected.weights, rtol=1e-10)


def test_with_unequal_shots_an_example_of_weight_two_counts_as_two():
    model, task = learner(), support()
    heavy, _ = adapt(model, examples(task.inputs[:5], task.labels[:5], jnp.array([1.0, 1.0, 2.0, 1.0, 1.0])))
    twice = jnp.array([0, 1, 2, 2, 3, 4])
    expected, _ = adapt(model, jax.tree.map(lambda x: x[twice], task))
    np.testing.assert_allclose(heavy.weights, expected.weights, rtol=1e-10)


def test_a_class_without_examples_has_weights_of_zero():
    task = support()
    head, info = adapt(learner(), Examples(task.inputs, task.labels, 1 - task.labels[:, 2]))
    np.testing.assert_array_equal(head.weights[2], 0.0)
    assert bool(info.ok) and np.abs(head.weights[:2]).min() > 0


# Draws


@pytest.mark.float32
def test_a_spread_has_a_floor_and_does_not_overflow():
    exponents = jnp.array([[-100.0, 0.0, 1e-5, 1.0, 20.0, 1000.0]])
    spread = Normal.of(jnp.concatenate([jnp.zeros((1, 6)), exponents], axis=1)).spread[0]
    tangent = np.expm1(20.0) + 980 * np.exp(20.0)
    expected = np.array([1e-10, 1e-10, np.expm1(1e-5), np.expm1(1.0), np.expm1(20.0), tangent])
    np.testing.assert_allclose(spread, expected, rtol=1e-5)
    slope = jax.grad(lambda u: Normal.of(jnp.stack([u, u])[None], offset=0.5).spread.sum())
    np.testing.assert_allclose([slope(jnp.array(u)) for u in (-1.0, 2.0, 21.0)], [0, np.exp(2), np.exp(20)], rtol=1e-5)


def test_divergence_is_the_ratio_of_two_densities():
    mean, spread = jnp.array([[0.3, -1.0, 0.0]]), jnp.array([[0.5, 2.0, 1.0]])
    noise = jax.random.normal(jax.random.key(0), (20_000, 3))
    ratios = jax.vmap(lambda noise: Normal(mean, spread).divergence(noise[None])[0])(noise)
    drawn = np.asarray(mean + spread * noise)
    expected = scipy.stats.norm.logpdf(drawn, mean, spread) - scipy.stats.norm.logpdf(drawn)
    np.testing.assert_allclose(ratios, expected, atol=1e-12)
    np.testing.assert_array_equal(ratios[:, 2], 0.0)  # a standard normal distribution is the prior
    np.testing.assert_allclose(Normal(mean, spread).divergence(None)[0], expected.mean(0), atol=0.08)


def test_dropout_keeps_the_mean():
    dropped = drop(jnp.full((100, 100), 3.0), 0.25, jax.random.key(0))
    assert set(np.unique(dropped).tolist()) == {0.0, 4.0}
    np.testing.assert_allclose(jnp.mean(dropped), 3.0, rtol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["code", "inner loss", "query"])
def test_dropout_reaches(place, monkeypatch):
    monkeypatch.setattr(Normal, "draw", lambda normal, noise: normal.mean)  # so that nothing else is random
    task, keys = episode(), jax.random.split(jax.random.key(5), 2)
    model = learner(steps_in_latents=0, steps_in_weights=int(place == "inner loss"))
    if place == "inner loss":
        model = silent(model)
    if place == "query":  # whose examples are all the same
        task = eqx.tree_at(lambda e: e.query.inputs, task, jnp.broadcast_to(task.query.inputs[:1], (9, SIZE)))
        logits = jax.jit(lambda key: model.objective(task, key)[1].logits)(keys[0])
        assert np.ptp(logits, axis=0).min() > 1e-3
    else:
        first, second = jax.jit(jax.vmap(lambda key: model.adapt(task.support, key)[0].weights))(keys)
        assert np.abs(first - second).max() > 1e-3


# Objective


def with_penalties(model: LEO, **weights: float) -> LEO:
    """Return a learner whose penalties have these weights, as arrays: compiled once for all."""
    arrays = [jnp.asarray(weights.get(name, 0.0), model.encoder.dtype) for name in PENALTIES]
    return eqx.tree_at(lambda m: [getattr(m, name) for name in PENALTIES], model, arrays)


def weighted(**weights: float) -> LEO:
    return with_penalties(learner(query_smoothing=0.2), **weights)


def penalty(name: str, key=None, change=lambda model: model):
    """Return what a weight of one adds to the objective and to its gradient in the learner."""
    results = []
    for weights in ({name: 1.0}, {}):
        (value, _), (gradient, _) = value_and_gradient((change(weighted(**weights)), episode()), key)
        results.append((value, gradient))
    return jax.tree.map(lambda a, b: np.asarray(a - b), *results)


def test_the_objective_without_penalties_is_the_mean_query_loss():
    task = eqx.tree_at(lambda e: e.query.mask, episode(), jnp.arange(9.0))
    (value, outcome), _ = value_and_gradient((weighted(), task), None)
    np.testing.assert_allclose(outcome.logits, adapt(learner(), task.support)[0](task.query.inputs), rtol=1e-10)
    smoothed = 0.8 * task.query.labels + 0.1 * (1 - task.query.labels)
    losses = -np.sum(smoothed * np.log(softmax(np.asarray(outcome.logits))), axis=1)
    np.testing.assert_allclose(value, np.average(losses, weights=np.arange(9)), rtol=1e-10)


def test_encoder_penalty_is_the_mean_squared_way_of_the_latents_and_moves_only_the_start():
    value, gradient = penalty("encoder_penalty")
    _, start, latents = by_hand(learner(), by_class(episode().support.inputs))
    np.testing.assert_allclose(value, np.mean((latents - start) ** 2), rtol=1e-9)
    np.testing.assert_allclose(gradient.latent_step, 0.0, atol=1e-12)
    assert np.abs(gradient.encoder).max() > 1e-6


def test_l2_penalty_is_half_the_squared_norm_of_all_matrices():
    value, gradient = penalty("l2_penalty")
    model = learner()
    matrices = (model.encoder, *model.relation, model.decoder)
    np.testing.assert_allclose(value, sum(np.sum(np.square(m)) for m in matrices) / 2, rtol=1e-9)
    np.testing.assert_allclose(gradient.relation[1], model.relation[1], atol=1e-10)
    np.testing.assert_allclose(gradient.weight_step, 0.0, atol=1e-12)


@pytest.mark.parametrize(("key", "exact"), [(None, 1e-9), (jax.random.key(1), 0.5)], ids=["expected", "drawn"])
def test_kl_of_a_silent_code_is_that_of_the_floor(key, exact):
    """A code of zero has mean zero and the smallest spread: log(1e10), less half of a squared normal number."""
    value, _ = penalty("kl_weight", key, silent)
    np.testing.assert_allclose(value, 10 * np.log(10) - 0.5, atol=exact)


def test_orthogonality_penalty_is_zero_for_orthogonal_rows_and_sees_no_scale():
    rows = jax.random.normal(jax.random.key(0), (4, 12))
    scaled = rows * jnp.array([1.0, 2.0, 30.0, 0.1])[:, None]
    compiled = jax.jit(jax.value_and_grad(correlation_penalty))
    np.testing.assert_allclose(compiled(scaled)[0], compiled(rows)[0], rtol=1e-12)
    np.testing.assert_allclose(compiled(5 * jnp.eye(4, 12))[0], 0.0, atol=1e-15)
    assert np.isfinite(compiled(rows.at[0].set(0.0))[1]).all()
    value, gradient = penalty("orthogonality_penalty")
    np.testing.assert_allclose(value, correlation_penalty(learner().decoder), rtol=1e-9)
    np.testing.assert_allclose(gradient.encoder, 0.0, atol=1e-12)


# Meta-gradients


def test_gradient_through_both_loops_equals_central_differences():
    """In a random direction of each array in turn, the embeddings and the weights of the penalties included."""
    # Without the encoder's penalty, in which the latents' end is held fixed.
    model = weighted(kl_weight=0.1, l2_penalty=0.1, orthogonality_penalty=0.5)
    leaves, structure = jax.tree.flatten(eqx.filter((model, episode()), eqx.is_inexact_array))
    fixed = eqx.filter((model, episode()), eqx.is_inexact_array, inverse=True)

    def evaluate(leaves):
        return value_and_gradient(eqx.combine(jax.tree.unflatten(structure, leaves), fixed), jax.random.key(2))

    rng, step = np.random.default_rng(0), 1e-6
    gradients = jax.tree.leaves(evaluate(leaves)[1])
    assert len(gradients) == len(leaves) == 7 + len(PENALTIES) + 6
    for i, gradient in enumerate(gradients):
        direction = rng.normal(size=gradient.shape)

        def moved(by, i=i, direction=direction):
            return evaluate([leaf + by * direction if j == i else leaf for j, leaf in enumerate(leaves)])[0][0]

        slope = (moved(step) - moved(-step)) / (2 * step)
        np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-5, atol=1e-8)


@pytest.mark.float32
def test_every_array_has_a_finite_gradient_that_is_not_zero():
    model = weighted(**dict.fromkeys(PENALTIES, 0.1))
    _, (gradient, of_task) = value_and_gradient((model, episode()), jax.random.key(0))
    for leaf in [*jax.tree.leaves(gradient), of_task.support.inputs, of_task.query.inputs]:
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0


@pytest.mark.float32
@pytest.mark.parametrize("broken", ["nan", "huge"])
def test_a_task_that_fails_says_so(broken):
    task = episode()
    number = np.nan if broken == "nan" else 0.1 * float(jnp.finfo(task.query.inputs.dtype).max)
    task = eqx.tree_at(lambda e: e.support.inputs, task, task.support.inputs.at[0].set(number))
    (_, outcome), _ = value_and_gradient((weighted(kl_weight=0.1), task), jax.random.key(0))
    assert not bool(outcome.ok)


@eqx.filter_jit
@functools.partial(eqx.filter_value_and_grad, has_aux=True)
def batch_gradient(model: LEO, tasks: Episode, key):
    return meta_loss(model, tasks, (), Normalisation.RUNNING, key)


def mean_of_each(model: LEO, tasks: Episode, key, chosen: range):
    """Return what `batch_gradient` does, from one task after the other."""
    results = []
    for i in chosen:
        task = jax.tree.map(lambda x, i=i: x[i], tasks)
        (value, _), (gradient, _) = value_and_gradient((model, task), jax.random.split(key, BATCH)[i])
        results.append((value, gradient))
    return jax.tree.map(lambda *x: sum(x) / len(x), *results)


@pytest.mark.slow
@pytest.mark.float32
@pytest.mark.parametrize("broken", [None, "nan", "huge"])
def test_a_batch_is_the_mean_of_its_tasks_one_after_the_other_without_those_that_fail(broken):
    model, tasks, key = weighted(**dict.fromkeys(PENALTIES, 0.1)), episodes(BATCH), jax.random.key(0)
    sound = range(BATCH) if broken is None else range(1, BATCH)
    expected = mean_of_each(model, tasks, key, sound)
    if broken is not None:
        number = np.nan if broken == "nan" else 0.1 * float(jnp.finfo(tasks.support.inputs.dtype).max)
        tasks = eqx.tree_at(lambda e: e.support.inputs, tasks, tasks.support.inputs.at[0, 0].set(number))
    (value, (_, info)), gradient = batch_gradient(model, tasks, key)
    assert int(info.dropped) == BATCH - len(sound)
    for actual, mean in zip(jax.tree.leaves((value, gradient)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(actual, mean, rtol=1e-4, atol=1e-5)


def test_a_task_without_support_fails():
    task = eqx.tree_at(lambda e: e.mask, support(), jnp.zeros(6))
    assert not bool(adapt(learner(), task)[1].ok)


# Training


@pytest.mark.slow
@pytest.mark.float32
def test_learns_to_classify_clusters():
    penalties = {"kl_weight": 1e-3, "l2_penalty": 1e-6, "orthogonality_penalty": 1e-3}
    model, tasks = weighted(**penalties), episodes(4 * BATCH)
    optimiser, losses = optax.chain(optax.clip(0.1), optax.adam(1e-2)), []
    state = optimiser.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def update(model, gradient, state):
        with jax.numpy_dtype_promotion("standard"):  # Optax mixes integers and floats
            updates, state = optimiser.update(gradient, state)
        return with_penalties(eqx.apply_updates(model, updates), **penalties), state

    batches = [jax.tree.map(lambda x, i=i: x[i * BATCH :][:BATCH], tasks) for i in range(4)]
    for i, key in enumerate(jax.random.split(jax.random.key(1), 80)):
        (loss, _), gradient = batch_gradient(model, batches[i % 4], key)
        model, state = update(model, gradient, state)
        losses.append(float(loss))
    assert np.mean(losses[-8:]) < 0.7 * np.mean(losses[:8]), losses


# Making a learner


def test_a_learner_begins_as_published():
    model = LEO.init(Identity(640), jax.random.key(0))
    shapes = [x.shape for x in (model.encoder, *model.relation, model.decoder)]
    assert shapes == [(640, 64), (128, 128), (128, 128), (128, 128), (64, 1280)]
    for matrix in (model.encoder, *model.relation, model.decoder):
        bound = np.sqrt(6 / sum(matrix.shape))
        np.testing.assert_allclose(jnp.abs(matrix).max(), bound, rtol=1e-2)
    assert set(np.unique(model.latent_step)) == {1.0} and model.latent_step.shape == (64,)
    assert set(np.unique(model.weight_step)) == {1e-3} and model.weight_step.shape == (640,)
    assert {name: round(float(x), 9) for name, x in model.scalars().items()} == {
        "latent_step": 1.0,
        "weight_step": 1e-3,
    }


def test_the_step_sizes_are_in_their_own_group():
    groups = learner().parameter_groups()
    assert groups.latent_step is groups.weight_step is ParameterGroup.SCALE
    assert set(jax.tree.leaves((groups.encoder, groups.relation, groups.decoder))) == {ParameterGroup.NETWORK}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent_size": 0}, "at least one coordinate, got 0"),
        ({"steps_in_latents": -1}, "at least 0, got \\(-1, 5\\)"),
        ({"dropout": 1.0}, "below 1, got \\(1.0, 0.0\\)"),
        ({"query_smoothing": -0.1}, "below 1, got"),
        ({"kl_weight": -1.0}, "at least 0 and finite"),
        ({"latent_step": np.inf}, "at least 0 and finite"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LEO.init(Identity(SIZE), jax.random.key(0), **settings)
