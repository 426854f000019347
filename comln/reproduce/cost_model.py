r"""What one meta-step, and what adapting a head, costs: operations, bytes and solver steps, from shapes alone.

An operation is one multiplication or addition of floating-point numbers. A convolution of 3 x 3 on $h \times w$ pixels
from $c$ to $c'$ channels takes $2 \cdot 9 c c' h w$ of them for an example, its backward pass twice as many. All else
in a network is small beside its convolutions, and is left out.
"""

__all__ = [
    "AbstractNetworkCost",
    "Conv4Cost",
    "FlowCost",
    "ResNet12Cost",
    "TaskShape",
    "adapting_operations",
    "meta_step_operations",
]

import abc
from dataclasses import dataclass

BYTES = 4
"""Of a number in single precision."""


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


class AbstractNetworkCost(abc.ABC):
    """The costs of an embedding network: those of its convolutions, four blocks of them, each halving the image."""

    @abc.abstractmethod
    def convolutions(self, image_size: int, channels: int) -> list[tuple[int, int, int, int]]:
        """Return the image size, the channels in and out, and the kernel size of each convolution."""

    def forward_operations(self, image_size: int, channels: int) -> int:
        """Return the operations that embed one image."""
        return sum(2 * kernel**2 * a * b * size**2 for size, a, b, kernel in self.convolutions(image_size, channels))

    def parameters(self, channels: int) -> int:
        """Return how many numbers are learned: kernels without bias, and scale and shift of the normalisation."""
        return sum(kernel**2 * a * b + 2 * b for _, a, b, kernel in self.convolutions(16, channels))

    def activation_bytes(self, image_size: int, channels: int) -> int:
        """Return what a backward pass keeps of one image: the input and the output of every convolution."""
        return BYTES * sum(size**2 * (a + b) for size, a, b, _ in self.convolutions(image_size, channels))

    def features(self, image_size: int) -> int:
        """Return the size of an embedding, d."""
        return (image_size // 16) ** 2 * self.convolutions(image_size, 1)[-1][2]


@dataclass(frozen=True)
class Conv4Cost(AbstractNetworkCost):
    """Four blocks of one 3 x 3 convolution.

    >>> Conv4Cost(64).features(84), Conv4Cost(64).parameters(3)
    (1600, 112832)
    """

    filters: int

    def convolutions(self, image_size: int, channels: int) -> list[tuple[int, int, int, int]]:
        inputs = (channels, self.filters, self.filters, self.filters)
        return [(image_size // 2**block, size, self.filters, 3) for block, size in enumerate(inputs)]


@dataclass(frozen=True)
class ResNet12Cost(AbstractNetworkCost):
    """Four blocks of three 3 x 3 convolutions and a 1 x 1 shortcut.

    >>> ResNet12Cost().features(84)
    16000
    """

    widths: tuple[int, int, int, int] = (64, 160, 320, 640)

    def convolutions(self, image_size: int, channels: int) -> list[tuple[int, int, int, int]]:
        inputs, found = channels, []
        for block, width in enumerate(self.widths):
            size = image_size // 2**block
            found += [(size, inputs, width, 3), (size, width, width, 3), (size, width, width, 3)]
            found.append((size, inputs, width, 1))
            inputs = width
        return found


@dataclass(frozen=True)
class FlowCost:
    r"""The costs of the gradient flow of one head, in span coordinates.

    Its coordinates are $MN$ numbers. A stage of a step multiplies them by the Gram matrix, $2 M^2 N$ operations, and
    takes a softmax, of order $MN$; an attempted step has `stages` of them. Going back, every accepted step is run once
    more and pulled back, at about three times the cost of going forward.

    - `support`, `ways`, `features`: M, N, d.
    - `steps`: attempted steps of the solver.
    """

    support: int
    ways: int
    features: int
    steps: int
    stages: int = 6

    def products(self) -> int:
        """Return the operations with the embeddings: the Gram matrix, initial logits, and the weights at the end."""
        return 2 * self.support**2 * self.features + 4 * self.support * self.ways * self.features

    def solve(self) -> int:
        """Return the operations of the solver, forwards."""
        stage = 2 * self.support**2 * self.ways + 10 * self.support * self.ways
        return self.steps * self.stages * stage

    def forward_operations(self) -> int:
        """Return the operations that adapt the head."""
        return self.products() + self.solve()

    def training_operations(self) -> int:
        """Return the operations that adapt the head and differentiate it."""
        return 3 * self.products() + 4 * self.solve()

    def kept_bytes(self, states: int = 256) -> int:
        """Return what going back keeps, whatever the horizon: a bounded number of states."""
        return BYTES * states * self.support * self.ways


def meta_step_operations(network: AbstractNetworkCost, shape: TaskShape, tasks: int, steps: int) -> dict[str, int]:
    """Return the operations of one meta-step on `tasks` tasks, by part: network, flow, query.

    - `steps`: attempted steps of the solver for each task.

    >>> shape = TaskShape(ways=5, shots=5, queries=15, image_size=84, channels=3)
    >>> parts = meta_step_operations(Conv4Cost(64), shape, tasks=8, steps=20)
    >>> parts["network"] // parts["flow"] > 1000
    True
    """
    features = network.features(shape.image_size)
    flow = FlowCost(shape.support, shape.ways, features, steps)
    return {
        "network": 3 * tasks * shape.images * network.forward_operations(shape.image_size, shape.channels),
        "flow": tasks * flow.training_operations(),
        "query": 3 * tasks * 2 * shape.ways * shape.queries * shape.ways * features,
    }


def adapting_operations(support: int, ways: int, features: int, steps: int) -> tuple[int, int]:
    """Return the operations, and the bytes read and written, of adapting one head to embeddings.

    >>> adapting_operations(support=25, ways=5, features=640, steps=20)[1]
    77300
    """
    cost = FlowCost(support, ways, features, steps)
    return cost.forward_operations(), BYTES * (support * (features + ways) + ways * features)
