"""The cost model's counts, against the networks themselves and against the compiler's own count of operations."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from comln.backbones import Conv4, Normalisation
from comln.reproduce.cost_model import Conv4Cost, FlowCost, ResNet12Cost, TaskShape, meta_step_operations


@pytest.mark.parametrize(("image_size", "channels", "filters"), [(28, 1, 32), (84, 3, 64)])
def test_parameters_and_features_are_those_of_the_network(image_size, channels, filters):
    network, cost = Conv4.init(image_size, channels, filters, jax.random.key(0)), Conv4Cost(filters)
    counted = sum(x.size for x in jax.tree.leaves(eqx.filter(network, eqx.is_inexact_array)))
    assert cost.parameters(channels) == counted
    assert cost.features(image_size) == network.embedding_size


def test_operations_are_those_that_the_compiler_counts():
    network, images = Conv4.init(84, 3, 64, jax.random.key(0)), jnp.zeros((2, 84, 84, 3), jnp.float32)
    network = jax.tree.map(lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, network)
    statistics = jax.tree.map(lambda x: x.astype(jnp.float32), network.initial_statistics())

    def embed(images):
        return network(images, statistics, Normalisation.BATCH)[0]

    analysis = jax.jit(embed).lower(images).compile().cost_analysis()
    assert analysis is not None
    ours = 2 * Conv4Cost(64).forward_operations(84, 3)
    # The compiler leaves out products with the padding, and counts normalisation and pooling.
    assert 0.95 * ours < analysis["flops"] < 1.05 * ours


def test_resnet12_by_hand():
    """One block of one channel each way on 16 pixels: three 3 x 3 kernels, one of 1 x 1, four normalisations."""
    cost = ResNet12Cost((1, 1, 1, 1))
    assert cost.parameters(1) == 4 * (3 * 9 + 1 + 4 * 2)
    pixels = 16**2 + 8**2 + 4**2 + 2**2
    assert cost.forward_operations(16, 1) == 2 * (3 * 9 + 1) * pixels


def test_the_flow_by_hand():
    cost = FlowCost(support=2, ways=3, features=5, steps=7, stages=1)
    assert cost.products() == 2 * 4 * 5 + 4 * 2 * 3 * 5
    assert cost.solve() == 7 * (2 * 4 * 3 + 10 * 2 * 3)
    assert cost.training_operations() == 3 * cost.products() + 4 * cost.solve()


def test_twice_the_tasks_are_twice_the_operations():
    shape = TaskShape(ways=5, shots=1, queries=15, image_size=28, channels=1)
    one, two = (meta_step_operations(Conv4Cost(32), shape, tasks, 10) for tasks in (1, 2))
    assert two == {name: 2 * value for name, value in one.items()}
