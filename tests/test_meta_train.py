import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from comln.backbones import Normalisation
from comln.data.batches import make_batch, to_episodes
from comln.data.residence import Residence
from comln.data.sampling import EpisodeShape, Sampler
from comln.episodic import meta_loss
from comln.meta_train import Divergence, start_training
from comln.optimiser import SGD, Adam
from tests.data.splits import STILL, stripes
from tests.training import STEPS, learner, sampler, train


def arrays(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array))]


def test_training_lowers_the_loss_and_reports_every_step():
    reports = []
    state = train(steps=40, tasks_per_step=4, on_step=reports.append)
    losses = [report.values["loss"] for report in reports]
    assert [report.step for report in reports] == list(range(1, 41)) and int(state.step) == 40
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])
    assert {"accuracy", "gradient_norm", "dropped_tasks", "solver_steps", "horizon"} < set(reports[0].values)


def test_stopping_and_going_on_gives_bit_identical_parameters():
    states = []
    whole = train(on_state=states.append)
    resumed = train(state=states[2])
    for a, b in zip(arrays(whole), arrays(resumed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_so_does_a_mixture_of_shapes_whose_order_is_that_of_the_seed():
    mixture = [Sampler(stripes(), EpisodeShape(ways=3, shots=shots, queries=2)) for shots in (1, 2)]
    states = []
    whole = train(on_state=states.append, samplers=mixture)
    resumed = train(state=states[1], samplers=mixture)
    only_one = train(samplers=mixture[:1])
    for a, b in zip(arrays(whole), arrays(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(not np.array_equal(a, b) for a, b in zip(arrays(whole), arrays(only_one), strict=True))


@pytest.mark.parametrize("augmentation", [None, STILL], ids=["as they are", "varied"])
def test_examples_on_the_device_train_to_the_same_parameters_as_those_on_the_host(augmentation):
    """Two shapes of one split, as a mixture has them; its examples go to the device once."""
    split = stripes(augmentation=augmentation)
    mixture = [Sampler(split, EpisodeShape(ways=3, shots=shots, queries=2)) for shots in (1, 2)]
    host, device = (train(samplers=mixture, examples_on=place) for place in (Residence.HOST, Residence.DEVICE))
    for a, b in zip(arrays(host), arrays(device), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_loss_that_is_no_number_stops_the_run_before_its_state_is_seen():
    model = learner()
    optimiser = optax.partition({"network": optax.sgd(1e30), "horizon": optax.sgd(0.0)}, model.parameter_groups())
    seen = []
    with pytest.raises(Divergence, match=r"No task of step 2 could be adapted.*Lower the learning rates") as caught:
        train(model=model, optimiser=optimiser, on_state=lambda state: seen.append(int(state.step)))
    assert caught.value.step == 2 and seen == []


@pytest.mark.parametrize("settings", [Adam(weight_decay=0.5), SGD(weight_decay=0.5)], ids=["adam", "sgd"])
def test_weight_decay_moves_the_network_but_never_the_horizon(settings):
    model = learner()
    optimiser = settings.build(model, STEPS)
    parameters = eqx.filter(model, eqx.is_inexact_array)
    state, nothing = optimiser.init(parameters), jax.tree.map(jnp.zeros_like, parameters)
    with jax.numpy_dtype_promotion("standard"):
        # The first steps of a schedule that warms up are of length zero.
        for _ in range(2):
            _, state = optimiser.update(nothing, state, parameters)
        updates, _ = optimiser.update(nothing, state, parameters)
    assert float(updates.log_horizon) == 0.0
    assert float(jnp.abs(updates.initial_weights).max()) > 0.0


def test_a_step_of_the_horizon_is_at_most_its_own_rate():
    reports = []
    train(optimiser=Adam(horizon_learning_rate=1e-2).build(learner(), STEPS), on_step=reports.append)
    horizons = [report.values["horizon"] for report in reports]
    assert np.abs(np.diff(np.log(horizons))).max() <= 1.05e-2


@pytest.mark.parametrize("horizon", [1e-3, 1e3])
def test_a_wild_initial_horizon_still_trains(horizon):
    reports = []
    train(model=learner(horizon), steps=40, tasks_per_step=4, on_step=reports.append)
    losses = [report.values["loss"] for report in reports]
    assert np.mean(losses[-10:]) < np.mean(losses[:5])


def test_a_task_that_cannot_be_solved_is_dropped_and_counted_and_the_others_go_on():
    model = learner()
    batch = make_batch(sampler(), 0, range(3))
    episodes = to_episodes(batch, None, jax.random.key(0))
    # All support examples of the second task masked away: nothing to adapt to.
    broken = eqx.tree_at(lambda e: e.support.mask, episodes, episodes.support.mask.at[1].set(0.0))
    statistics = model.backbone.initial_statistics()

    def loss(model, episodes):
        return meta_loss(model, episodes, statistics, Normalisation.RUNNING, jax.random.key(0))

    (value, (_, info)), gradient = eqx.filter_jit(eqx.filter_value_and_grad(loss, has_aux=True))(model, broken)
    others = jax.tree.map(lambda x: x[jnp.array([0, 2])], episodes)
    (expected, _), expected_gradient = eqx.filter_jit(eqx.filter_value_and_grad(loss, has_aux=True))(model, others)
    assert int(info.dropped) == 1
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for a, b in zip(arrays(gradient), arrays(expected_gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


def test_the_state_before_training_has_made_no_step():
    model = learner()
    assert int(start_training(model, Adam().build(model, 5)).step) == 0


def test_training_ends_with_the_state_that_was_enough():
    whole, reports = [], []
    train(on_state=whole.append)
    ended = train(on_state=lambda state: int(state.step) == 3, on_step=lambda report: reports.append(report.step))
    assert int(ended.step) == 3 and reports == [1, 2, 3]
    for a, b in zip(arrays(whole[2]), arrays(ended), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_wish_to_stop_lets_the_running_step_finish_and_its_state_be_seen():
    seen, reports = [], []
    state = train(
        on_state=lambda state: seen.append(int(state.step)),
        on_step=lambda report: reports.append(report.step),
        should_stop=lambda: len(reports) == 2,
    )
    assert int(state.step) == 2 and seen == [1, 2]
