r"""What one meta-step, and what adapting a head, costs: operations, bytes and solver steps, from shapes alone.

An operation is one multiplication or addition of floating-point numbers. A convolution of $k \times k$ on $h \times w$
pixels from $c$ to $c'$ channels takes $2 k^2 c c' h w$ of them for an example; its weights' gradient takes as many, and
so does the gradient of its input, unless that is the images. How many steps a solver takes depends on the numbers, so
that steps are an input here; `benchmarks/scaling.py` measures them.

In the flow, $M$ is the number of support examples, $N$ that of ways, $F$ that of features.
"""

__all__ = [
    "AbstractNetworkCost",
    "Conv4Cost",
    "ConvolutionShape",
    "FlowCost",
    "ResNet12Cost",
    "TaskShape",
    "adapting_operations",
    "factorisation_operations",
    "meta_step_operations",
    "query_operations",
]

import abc
from dataclasses import dataclass
from typing import NamedTuple

from comln.flow.head_solve import worth_switching
from comln.flow.lane_steps import ADAPTIVE_SLOTS, WORTH_SWITCHING

BYTES = 4
"""Of a number in single precision."""

STAGES = 6
"""Evaluations of the rate in a step of Tsit5 or Dopri5, and linear systems solved in a step of Rodas4."""

RATE_OPERATIONS, COMBINING_OPERATIONS = 16, 11
"""Of a stage besides its products, for each logit and for each number of the state: softmax, sums of stages."""


@dataclass(frozen=True)
class TaskShape:
    """Numbers of one task.

    - `ways`, `shots`, `queries`: classes, and examples of each.
    - `image_size`, `channels`: of the square images.
    """

    ways: int
    shots: int
    queries: int
    image_size: int
    channels: int

    @property
    def support(self) -> int:
        """Support examples, M."""
        return self.ways * self.shots

    @property
    def images(self) -> int:
        """Support and query examples."""
        return self.ways * (self.shots + self.queries)

    @property
    def input_bytes(self) -> int:
        """What a task moves to the device: one byte for each channel of each pixel.

        >>> TaskShape(ways=5, shots=1, queries=15, image_size=84, channels=3).input_bytes
        1693440
        """
        return self.images * self.image_size**2 * self.channels


class ConvolutionShape(NamedTuple):
    """One convolution: pixels a side, channels, pixels a side of its kernel, and whether its input is the images."""

    image_size: int
    channels_in: int
    channels_out: int
    kernel_size: int
    of_images: bool

    @property
    def operations(self) -> int:
        """Operations for one image, forwards."""
        return 2 * self.kernel_size**2 * self.channels_in * self.channels_out * self.image_size**2

    @property
    def output_bytes(self) -> int:
        """Bytes of its output for one image."""
        return BYTES * self.image_size**2 * self.channels_out


class AbstractNetworkCost(abc.ABC):
    """The costs of an embedding network of four blocks, each halving the image; a normalisation for each convolution.

    Operations are those of convolutions: all else is small beside them. In time it is not: normalising, pooling and
    the rest move `output_bytes` a few times.
    """

    @abc.abstractmethod
    def convolutions(self, image_size: int, channels: int) -> list[ConvolutionShape]:
        """Return the network's convolutions on images of this size."""

    def forward_operations(self, image_size: int, channels: int) -> int:
        """Return the operations that embed one image."""
        return sum(convolution.operations for convolution in self.convolutions(image_size, channels))

    def training_operations(self, image_size: int, channels: int) -> int:
        """Return the operations that embed one image and differentiate that in the parameters."""
        return sum((2 if c.of_images else 3) * c.operations for c in self.convolutions(image_size, channels))

    def parameters(self, channels: int) -> int:
        """Return how many numbers are learned: kernels without bias, and scale and shift of the normalisation."""
        return sum(c.kernel_size**2 * c.channels_in * c.channels_out + 2 * c.channels_out for c in self._any(channels))

    def normalisations(self) -> int:
        """Return how many layers need means over the whole batch."""
        return len(self._any(1))

    def output_bytes(self, image_size: int, channels: int) -> int:
        """Return the bytes of the outputs of all convolutions for one image."""
        return sum(convolution.output_bytes for convolution in self.convolutions(image_size, channels))

    def activation_bytes(self, image_size: int, channels: int) -> int:
        """Return what a backward pass keeps of one image: the input and the output of every convolution."""
        inputs = sum(BYTES * c.image_size**2 * c.channels_in for c in self.convolutions(image_size, channels))
        return inputs + self.output_bytes(image_size, channels)

    def peak_bytes(self, image_size: int, channels: int) -> int:
        """Return the most memory that differentiating takes for one image: what is kept, and the largest cotangent."""
        largest = max(convolution.output_bytes for convolution in self.convolutions(image_size, channels))
        return self.activation_bytes(image_size, channels) + largest

    def features(self, image_size: int) -> int:
        """Return the size of an embedding, d."""
        return (image_size // 16) ** 2 * self._any(1)[-1].channels_out

    def _any(self, channels: int) -> list[ConvolutionShape]:
        return self.convolutions(16, channels)


@dataclass(frozen=True)
class Conv4Cost(AbstractNetworkCost):
    """Four blocks of one 3 x 3 convolution.

    >>> Conv4Cost(64).features(84), Conv4Cost(64).parameters(3)
    (1600, 112832)
    """

    filters: int

    def convolutions(self, image_size: int, channels: int) -> list[ConvolutionShape]:
        inputs = (channels, self.filters, self.filters, self.filters)
        return [
            ConvolutionShape(image_size // 2**block, size, self.filters, 3, block == 0)
            for block, size in enumerate(inputs)
        ]


@dataclass(frozen=True)
class ResNet12Cost(AbstractNetworkCost):
    """Four blocks of three 3 x 3 convolutions and a 1 x 1 shortcut.

    >>> ResNet12Cost().features(84)
    16000
    """

    widths: tuple[int, int, int, int] = (64, 160, 320, 640)

    def convolutions(self, image_size: int, channels: int) -> list[ConvolutionShape]:
        inputs, found = channels, []
        for block, width in enumerate(self.widths):
            size, first = image_size // 2**block, block == 0
            found += [
                ConvolutionShape(size, inputs, width, 3, first),
                ConvolutionShape(size, width, width, 3, False),
                ConvolutionShape(size, width, width, 3, False),
                ConvolutionShape(size, inputs, width, 1, first),
            ]
            inputs = width
        return found


def factorisation_operations(support: int, ways: int, features: int) -> int:
    r"""Return the operations that make the linear systems of an implicit step solvable (`comln.flow.resolvent`).

    For each way a Cholesky factor, $M^3/3$, a triangular system with $M$ right-hand sides, $M^3$, and the product of
    the result with itself, $2M^3$; then a factor and a triangular system for their sum. In the rows of the weights, the
    Gram matrix before all that.

    >>> factorisation_operations(support=3, ways=2, features=4)
    216
    """
    cube = support**3
    gram = 0 if support < features else 2 * support**2 * features
    return gram + ways * (10 * cube // 3) + 4 * cube // 3


@dataclass(frozen=True)
class FlowCost:
    r"""The costs of the gradient flow of one head by `SpanAdjoint`.

    With fewer examples than features its state is in the span of the embeddings, $MN$ numbers, and a rate takes one
    product with the Gram matrix; otherwise it is the rows of the weights, $FN$ numbers, and a rate takes two products
    with the embeddings. An explicit step evaluates six rates; an implicit one factorises, then solves six systems.
    Going back, every kept step is run once more and pulled back.

    - `support`, `ways`, `features`: M, N, F.
    - `steps`: attempted explicit steps.
    - `implicit_steps`: attempted implicit steps.
    """

    support: int
    ways: int
    features: int
    steps: int
    implicit_steps: int = 0

    @property
    def in_span(self) -> bool:
        """Whether the state is in the span of the embeddings."""
        return self.support < self.features

    @property
    def state_numbers(self) -> int:
        """Numbers of the state."""
        return min(self.support, self.features) * self.ways

    def products(self) -> int:
        """Return the operations with the embeddings: initial logits, and in the span Gram matrix and weights too."""
        logits = 2 * self.support * self.ways * self.features
        return 2 * self.support**2 * self.features + 2 * logits if self.in_span else logits

    def rate_products(self) -> int:
        """Return the operations of the products in a rate."""
        return 2 * self.support * self.state_numbers if self.in_span else 4 * self.support * self.state_numbers

    def explicit_products(self) -> int:
        """Return the operations of the products in an attempted explicit step: its rates, and a bound on the next."""
        return STAGES * self.rate_products() + self._logits() + self._bound()

    def explicit_step(self) -> int:
        """Return the operations of an attempted explicit step."""
        return self.explicit_products() + STAGES * self._elementwise()

    def explicit_step_back(self) -> int:
        """Return the operations that run an explicit step again and pull a cotangent back through it."""
        return 3 * STAGES * (self.rate_products() + self._elementwise())

    def implicit_step(self) -> int:
        """Return the operations of an attempted implicit step."""
        return self._implicit(rates=STAGES + 1) + self._logits() + self._bound()

    def implicit_step_back(self) -> int:
        """Return the operations that run an implicit step again and pull a cotangent back through it.

        Of every stage: the transposed system, a rate and a product with the matrix of the system, each pulled back.
        """
        back = STAGES * (self._solve() + 4 * self.rate_products() + self._combine_solutions())
        return self._implicit(rates=STAGES) + back + 2 * self._logits()

    def solve(self) -> int:
        """Return the operations of the solver, forwards."""
        return self.steps * self.explicit_step() + self.implicit_steps * self.implicit_step()

    def solve_back(self) -> int:
        """Return the operations of the solver, backwards."""
        return self.steps * self.explicit_step_back() + self.implicit_steps * self.implicit_step_back()

    def forward_operations(self) -> int:
        """Return the operations that adapt the head."""
        return self.products() + self.solve()

    def training_operations(self) -> int:
        """Return the operations that adapt the head and differentiate it."""
        return 3 * self.products() + self.solve() + self.solve_back()

    def kept_bytes(self) -> int:
        """Return the store of steps for the way back, whatever the horizon.

        A state, a time and two lengths for each attempt that there is room for at the default tolerance, and one more.

        >>> FlowCost(support=5, ways=5, features=1600, steps=20).kept_bytes()
        28784
        """
        rows = min(self.support, self.features)
        room = ADAPTIVE_SLOTS + worth_switching(self.support, rows, self.in_span) - WORTH_SWITCHING
        return BYTES * (room + 1) * (self.state_numbers + 3)

    def moved_bytes(self) -> int:
        """Return the bytes of what goes in and comes out: embeddings, labels, initial and adapted weights."""
        return BYTES * (self.support * (self.features + self.ways) + 2 * self.ways * self.features)

    def _logits(self) -> int:
        return 2 * self.support * self.state_numbers

    def _bound(self) -> int:
        """The bound on the fastest rate of decay: absolute values times one vector."""
        return 2 * self.support * (self.support if self.in_span else 2 * self.features)

    def _elementwise(self) -> int:
        """Of a stage: all but its products."""
        return RATE_OPERATIONS * self.support * self.ways + COMBINING_OPERATIONS * self.state_numbers

    def _solve(self) -> int:
        """One linear system, factorised: two products with the blocks of all ways, and what couples these."""
        return self.rate_products() + 8 * self.support**2 * self.ways + 4 * self.support**2

    def _combine_solutions(self) -> int:
        return 2 * 2 * STAGES * self.state_numbers

    def _implicit(self, rates: int) -> int:
        stages = STAGES * (self._solve() + self._combine_solutions()) + rates * self.rate_products()
        elementwise = rates * RATE_OPERATIONS * self.support * self.ways
        factorised = factorisation_operations(self.support, self.ways, self.features)
        return factorised + self._logits() + stages + elementwise


def query_operations(queries: int, ways: int, features: int) -> int:
    """Return the operations of the logits of `queries` examples, and of their gradients in weights and embeddings.

    >>> query_operations(queries=75, ways=5, features=1600)
    3600000
    """
    return 3 * 2 * queries * ways * features


def meta_step_operations(
    network: AbstractNetworkCost, shape: TaskShape, tasks: int, steps: int, implicit_steps: int = 0
) -> dict[str, int]:
    """Return the operations of one meta-step on `tasks` tasks, by part: network, flow, query.

    - `steps`, `implicit_steps`: attempted steps of the solver for each task.

    >>> shape = TaskShape(ways=5, shots=5, queries=15, image_size=84, channels=3)
    >>> parts = meta_step_operations(Conv4Cost(64), shape, tasks=8, steps=20)
    >>> parts["network"] // parts["flow"] > 1000
    True
    """
    features = network.features(shape.image_size)
    flow = FlowCost(shape.support, shape.ways, features, steps, implicit_steps)
    return {
        "network": tasks * shape.images * network.training_operations(shape.image_size, shape.channels),
        "flow": tasks * flow.training_operations(),
        "query": tasks * query_operations(shape.ways * shape.queries, shape.ways, features),
    }


def adapting_operations(support: int, ways: int, features: int, steps: int) -> tuple[int, int]:
    """Return the operations, and the bytes read and written, of adapting one head to embeddings.

    >>> adapting_operations(support=25, ways=5, features=640, steps=20)[1]
    90100
    """
    cost = FlowCost(support, ways, features, steps)
    return cost.forward_operations(), cost.moved_bytes()
