"""The cost model's counts: by hand, against the networks themselves, and against counts of the programs that run."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.interpreters.partial_eval import dce_jaxpr

from comln.backbones import Conv4, Normalisation, ResNet12
from comln.flow.head_flow import HeadFlow, HeadParameters
from comln.flow.step_rules import RODAS, TSITOURAS
from comln.losses import CrossEntropy
from comln.reproduce.cost_model import (
    STAGES,
    Conv4Cost,
    FlowCost,
    ResNet12Cost,
    TaskShape,
    adapting_operations,
    factorisation_operations,
    meta_step_operations,
    query_operations,
)

IN_SPAN, IN_ROWS = (100, 20, 640), (100, 20, 64)
"""Support examples, ways and features."""


def in_float32(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, tree)


def compiled(function, *arguments):
    """Return the compiled program of a function of pytrees, which may hold other things than arrays."""
    jitted: Any = eqx.filter_jit(function)
    return jitted.lower(*arguments).compile().compiled


def operations_of(program):
    analysis = program.cost_analysis()
    assert analysis is not None
    return analysis["flops"]


def parameters_of(network):
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(network) if isinstance(x, jax.ShapeDtypeStruct))


@pytest.mark.parametrize(("image_size", "channels", "filters"), [(28, 1, 32), (84, 3, 64)])
def test_parameters_and_features_are_those_of_conv4(image_size, channels, filters):
    network = eqx.filter_eval_shape(Conv4.init, image_size, channels, filters, jax.random.key(0))
    cost = Conv4Cost(filters)
    assert cost.parameters(channels) == parameters_of(network)
    assert cost.features(image_size) == network.embedding_size
    assert cost.normalisations() == len(network.norms)


def test_parameters_and_features_are_those_of_resnet12():
    network = eqx.filter_eval_shape(ResNet12.init, image_size=84, channels=3, key=jax.random.key(0))
    cost = ResNet12Cost()
    assert cost.parameters(3) == parameters_of(network)
    assert cost.features(84) == network.embedding_size
    assert cost.normalisations() == sum(len(block.norms) + 1 for block in network.blocks)


def test_operations_are_those_that_the_compiler_counts():
    network, images = in_float32(Conv4.init(84, 3, 64, jax.random.key(0))), jnp.zeros((2, 84, 84, 3), jnp.float32)
    statistics = in_float32(network.initial_statistics())

    def embed(network, images):
        return network(images, statistics, Normalisation.BATCH)[0]

    counted = operations_of(compiled(embed, network, images))
    # The compiler leaves out products with the padding, and counts normalisation and pooling.
    assert 0.95 * counted < 2 * Conv4Cost(64).forward_operations(84, 3) < 1.05 * counted


@pytest.mark.slow
def test_training_takes_the_gradients_of_the_weights_but_not_of_the_images():
    first, *rest = Conv4Cost(32).convolutions(28, 3)
    cost = Conv4Cost(32).training_operations(28, 3)
    assert cost == 2 * first.operations + 3 * sum(convolution.operations for convolution in rest)

    def convolve(images, kernel):
        """The compiler's own convolution: our own has a loop, whose rounds it does not count."""
        return jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    network = in_float32(Conv4.init(28, 3, 32, jax.random.key(0), convolve=convolve))
    images, statistics = jnp.zeros((4, 28, 28, 3), jnp.float32), in_float32(network.initial_statistics())

    def total(network):
        return jnp.sum(network(images, statistics, Normalisation.BATCH)[0])

    counted = operations_of(compiled(eqx.filter_grad(total), network))
    assert 0.9 * counted < 4 * cost < 1.1 * counted


@pytest.mark.slow
def test_memory_is_about_the_compilers():
    network = in_float32(Conv4.init(28, 1, 64, jax.random.key(0)))
    images, statistics = jnp.zeros((160, 28, 28, 1), jnp.float32), in_float32(network.initial_statistics())

    def total(network):
        return jnp.sum(network(images, statistics, Normalisation.BATCH)[0])

    analysis = compiled(eqx.filter_grad(total), network).memory_analysis()
    assert analysis is not None
    assert 0.8 < 160 * Conv4Cost(64).peak_bytes(28, 1) / analysis.temp_size_in_bytes < 1.2


def test_resnet12_by_hand():
    """One block of one channel each way on 16 pixels: three 3 x 3 kernels, one of 1 x 1, four normalisations."""
    cost = ResNet12Cost((1, 1, 1, 1))
    assert cost.parameters(1) == 4 * (3 * 9 + 1 + 4 * 2)
    pixels = 16**2 + 8**2 + 4**2 + 2**2
    assert cost.forward_operations(16, 1) == 2 * (3 * 9 + 1) * pixels
    assert cost.training_operations(16, 1) == 6 * (3 * 9 + 1) * pixels - 2 * (9 + 1) * 16**2
    assert cost.output_bytes(16, 1) == 4 * 4 * pixels
    assert cost.activation_bytes(16, 1) == 2 * 4 * 4 * pixels
    assert cost.peak_bytes(16, 1) == 2 * 4 * 4 * pixels + 4 * 16**2


def test_a_task_by_hand():
    shape = TaskShape(ways=5, shots=2, queries=3, image_size=4, channels=3)
    assert (shape.support, shape.images, shape.input_bytes) == (10, 25, 25 * 48)
    assert query_operations(shape.ways * shape.queries, shape.ways, features=7) == 3 * 2 * 15 * 5 * 7


def test_the_flow_in_the_span_by_hand():
    """Two examples, three ways, five features: G is 2 x 2, the state 2 x 3."""
    cost = FlowCost(support=2, ways=3, features=5, steps=7)
    assert cost.in_span and cost.state_numbers == 6
    assert cost.products() == 2 * 4 * 5 + 4 * 2 * 3 * 5
    assert cost.rate_products() == 2 * 4 * 3
    # Six rates, the logits at the new state, and |G| times a vector.
    assert cost.explicit_products() == 7 * 24 + 8
    assert cost.explicit_step() == 176 + 6 * (16 * 6 + 11 * 6)
    assert cost.explicit_step_back() == 3 * 6 * (24 + 16 * 6 + 11 * 6)
    assert cost.forward_operations() == cost.products() + 7 * cost.explicit_step()
    assert cost.training_operations() == 3 * cost.products() + 7 * (cost.explicit_step() + cost.explicit_step_back())
    assert cost.kept_bytes() == 4 * 257 * (6 + 3)
    assert cost.moved_bytes() == 4 * (10 + 6 + 15 + 15)


def test_the_flow_in_rows_by_hand():
    """Five examples, three ways, two features: the state is 2 x 3, a rate takes two products of 5 x 2 x 3."""
    cost = FlowCost(support=5, ways=3, features=2, steps=7)
    assert not cost.in_span and cost.state_numbers == 6
    assert cost.products() == 2 * 5 * 3 * 2
    assert cost.rate_products() == 2 * (2 * 5 * 2 * 3)
    assert cost.explicit_products() == 6 * 120 + 60 + 4 * 5 * 2
    assert cost.explicit_step() == 820 + 6 * (16 * 15 + 11 * 6)
    # 20 ways of 10 shots and 32 features: an implicit step is worth 2 * 200**2 / 32 explicit ones.
    assert FlowCost(support=200, ways=20, features=32, steps=7).kept_bytes() == 4 * (256 + 2400 + 1) * (640 + 3)


def test_implicit_steps_add_up():
    explicit, implicit = (FlowCost(6, 3, 9, steps=i, implicit_steps=j) for i, j in ((4, 0), (0, 2)))
    both = FlowCost(6, 3, 9, steps=4, implicit_steps=2)
    assert both.solve() == explicit.solve() + implicit.solve() == 4 * both.explicit_step() + 2 * both.implicit_step()
    assert both.solve_back() == 4 * both.explicit_step_back() + 2 * both.implicit_step_back()


def step_and_its_pull_back(size, rule):
    """Return a step of the flow and the pull-back of one, as functions of arrays, and these, in float32."""
    support, ways, features = size
    flow = HeadFlow(CrossEntropy(), in_span=support < features)
    columns = support if flow.in_span else features
    random = np.random.default_rng(0)
    factor, logits, state = (
        jnp.asarray(random.normal(size=shape), jnp.float32)
        for shape in ((support, columns), (support, ways), (columns, ways))
    )
    parameters = HeadParameters(factor, logits, jnp.zeros((), jnp.float32))
    constants = (jnp.ones_like(logits) / ways, jnp.ones(support, jnp.float32) / support)
    length = jnp.asarray(0.1, jnp.float32)

    def take(state, first, parameters):
        return rule.take(flow.rate, flow.resolvent, state, first, length, parameters, constants)

    def pull_back(state, cotangent, parameters):
        def reached(state, parameters):
            return take(state, flow.rate(state, parameters, constants), parameters)[0]

        return jax.vjp(reached, state, parameters)[1](cotangent)

    return take, pull_back, (state, state, parameters)


def products(jaxpr, times=1):
    """Count what a program's products, Cholesky factors and triangular systems take, loop by loop."""
    total = 0
    for equation in jaxpr.eqns:
        shapes: list[Any] = [getattr(x.aval, "shape", ()) for x in equation.invars]
        parameters, name, result = equation.params, equation.primitive.name, equation.outvars[0].aval
        if name == "dot_general":
            summed = [shapes[0][axis] for axis in parameters["dimension_numbers"][0][0]]
            total += times * 2 * int(np.prod(summed)) * result.size
        elif name == "cholesky":
            total += times * result.size * shapes[0][-1] // 3
        elif name == "triangular_solve":
            total += times * shapes[0][-1] * int(np.prod(shapes[1]))
        inner = times * parameters.get("length", 1) if name == "scan" else times
        if name == "custom_linear_solve":
            total += products(parameters["jaxprs"].solve.jaxpr, inner)
            continue
        for value in parameters.values():
            body = getattr(value, "jaxpr", value)
            total += products(body, inner) if hasattr(body, "eqns") else 0
    return total


@pytest.mark.parametrize("size", [IN_SPAN, IN_ROWS], ids=["span", "rows"])
def test_explicit_steps_are_those_that_the_compiler_counts(size):
    take, pull_back, arguments = step_and_its_pull_back(size, TSITOURAS)
    cost = FlowCost(*size, steps=1)
    # The bound on the next step's length, and its logits, are not part of taking one.
    taken = cost.explicit_step() - cost.explicit_products() + STAGES * cost.rate_products()
    assert products(jax.make_jaxpr(take)(*arguments).jaxpr) == STAGES * cost.rate_products()
    assert taken == pytest.approx(operations_of(compiled(take, *arguments)), rel=0.1)
    assert cost.explicit_step_back() == pytest.approx(operations_of(compiled(pull_back, *arguments)), rel=0.12)


@pytest.mark.parametrize("size", [IN_SPAN, IN_ROWS], ids=["span", "rows"])
def test_implicit_steps_are_those_that_the_program_has(size):
    """The compiler does not look into LAPACK's factors, nor count a loop's rounds: the program's own text does."""
    take, pull_back, arguments = step_and_its_pull_back(size, RODAS)
    cost, (support, ways, _) = FlowCost(*size, steps=0, implicit_steps=1), size
    elementwise = 16 * support * ways
    bound = cost.explicit_products() - STAGES * cost.rate_products()
    taken = cost.implicit_step() - bound - (STAGES + 1) * elementwise
    assert taken == pytest.approx(products(jax.make_jaxpr(take)(*arguments).jaxpr), rel=1e-6)
    program = jax.make_jaxpr(pull_back)(*arguments).jaxpr
    needed, _ = dce_jaxpr(program, [True] * len(program.outvars))
    assert cost.implicit_step_back() - STAGES * elementwise == pytest.approx(products(needed), rel=1e-6)


def test_factorisation_by_hand():
    assert factorisation_operations(3, 2, 4) == 2 * (9 + 27 + 54) + 9 + 27
    assert factorisation_operations(3, 2, 3) == 216 + 2 * 9 * 3


def test_twice_the_tasks_are_twice_the_operations():
    shape = TaskShape(ways=5, shots=1, queries=15, image_size=28, channels=1)
    one, two = (meta_step_operations(Conv4Cost(32), shape, tasks, 10) for tasks in (1, 2))
    assert two == {name: 2 * value for name, value in one.items()}


def test_adapting_is_the_flow_forwards():
    assert adapting_operations(4, 2, 8, 3)[0] == FlowCost(4, 2, 8, 3).forward_operations()
