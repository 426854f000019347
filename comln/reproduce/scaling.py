r"""How long a meta-step and adapting heads take, by the cost model: on the machine at hand, and on many accelerators.

On the machine at hand every kind of work has one rate, measured at one size (`Rates`), and a time is the sum of what
there is to do over these rates. On accelerators the rates are assumptions (`Accelerator`), and nothing was measured.
"""

__all__ = [
    "ACCELERATOR",
    "NETWORKS",
    "Accelerator",
    "Heads",
    "MetaStep",
    "Rates",
    "Sampling",
    "accelerated_heads",
    "accelerated_meta_step",
    "head_seconds",
    "meta_step_seconds",
    "predict",
    "sampling_seconds",
    "step_seconds",
]

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from comln.reproduce.cost_model import (
    BYTES,
    STAGES,
    AbstractNetworkCost,
    Conv4Cost,
    FlowCost,
    ResNet12Cost,
    TaskShape,
    query_operations,
)

NETWORKS: Mapping[str, AbstractNetworkCost] = {
    "Conv-4, 32 filters": Conv4Cost(32),
    "Conv-4, 64 filters": Conv4Cost(64),
    "ResNet-12": ResNet12Cost(),
}
"""The networks of the paper, by name."""

PASSES_OF_UPDATE = 7
"""Arrays of the size of the parameters that Adam reads or writes."""


@dataclass(frozen=True)
class MetaStep:
    """One update of COMLN: `tasks` tasks of a shape, a network by its name in `NETWORKS`, the slowest task's steps."""

    network: str
    shape: TaskShape
    tasks: int
    steps: int


@dataclass(frozen=True)
class Heads:
    """Many heads adapted at once.

    - `support`, `ways`, `features`, `heads`, `horizon`: of each task, and how many.
    - `implicit`: whether by implicit steps; else by explicit ones.
    - `queries`: query examples of each head, if the gradient of their loss was taken too; else `None`.
    - `steps`: attempted steps of the slowest head.
    """

    support: int
    ways: int
    features: int
    heads: int
    horizon: float
    implicit: bool
    queries: int | None
    steps: int

    @property
    def cost(self) -> FlowCost:
        """The cost of one head, with the steps of the slowest: the others wait for it."""
        steps = (0, self.steps) if self.implicit else (self.steps, 0)
        return FlowCost(self.support, self.ways, self.features, *steps)


@dataclass(frozen=True)
class Sampling:
    """Tasks of a shape, drawn and gathered by one thread of the host."""

    shape: TaskShape
    tasks: int


@dataclass(frozen=True)
class Rates:
    """What a machine gets done in a second.

    - `convolutions`: operations of convolutions, differentiated.
    - `normalising`: bytes of convolutions' outputs, normalised, pooled and differentiated.
    - `moving`: bytes of embeddings, weights and parameters, read or written.
    - `products`: operations of products with embeddings.
    - `starting`: explicit steps of one head, however small it is.
    - `explicit`, `implicit`: operations of explicit and of implicit steps.
    - `drawing`: classes of a task, drawn by one thread.
    - `gathering`: bytes of images, gathered by one thread.
    """

    convolutions: float
    normalising: float
    moving: float
    products: float
    starting: float
    explicit: float
    implicit: float
    drawing: float
    gathering: float


def step_seconds(rates: Rates, cost: FlowCost) -> float:
    """Return the time of one explicit step of one of many heads."""
    return 1 / rates.starting + cost.explicit_step() / rates.explicit


def head_seconds(rates: Rates, cost: FlowCost, queries: int | None = None) -> float:
    """Return the time of one of many heads: adapted, or with the gradient of the loss of `queries` examples too.

    Going back, a step takes three times as long as forwards: it is run again, and its products have two gradients.
    Every array is moved once, and so is its gradient; the query's embeddings are moved only for the latter's sake.
    """
    moving, products = cost.moved_bytes() / rates.moving, cost.products() / rates.products
    explicit = cost.steps * step_seconds(rates, cost)
    implicit = cost.implicit_steps * cost.implicit_step() / rates.implicit
    if queries is None:
        return moving + products + explicit + implicit
    implicit_back = cost.implicit_steps * cost.implicit_step_back() / rates.implicit
    query = 2 * BYTES * queries * cost.features / rates.moving
    query += query_operations(queries, cost.ways, cost.features) / rates.products
    return 2 * moving + 3 * products + 4 * explicit + implicit + implicit_back + query


def meta_step_seconds(rates: Rates, step: MetaStep) -> dict[str, float]:
    """Return the time of one update, by part: convolutions, normalising, flow, update."""
    network, shape = NETWORKS[step.network], step.shape
    images, features = step.tasks * shape.images, network.features(shape.image_size)
    flow = FlowCost(shape.support, shape.ways, features, step.steps)
    parameters = network.parameters(shape.channels) + shape.ways * features
    return {
        "convolutions": images * network.training_operations(shape.image_size, shape.channels) / rates.convolutions,
        "normalising": images * network.output_bytes(shape.image_size, shape.channels) / rates.normalising,
        "flow": step.tasks * head_seconds(rates, flow, shape.ways * shape.queries),
        "update": PASSES_OF_UPDATE * BYTES * parameters / rates.moving,
    }


def sampling_seconds(rates: Rates, sampling: Sampling) -> float:
    """Return the time that one thread takes to make tasks: to draw their classes and to gather their images."""
    shape = sampling.shape
    return sampling.tasks * (shape.ways / rates.drawing + shape.input_bytes / rates.gathering)


@dataclass(frozen=True)
class Accelerator:
    """An accelerator and the machines that it stands in. Numbers of the data sheet, and guesses; none was measured.

    - `matrix_operations`, `operations`: a second, at their peak: products of matrices in bfloat16, anything in float32.
    - `memory`, `memory_bytes`: its size, and bytes a second.
    - `devices`: in one machine.
    - `link_bytes`, `network_bytes`, `host_bytes`: a second and a direction, of each device: to others in its machine,
      to other machines, and to the host.
    - `matrix_share`, `small_share`, `memory_share`: guessed: how much of their peaks convolutions, the small products
      of the flow, and reading and writing reach.
    - `kernel_s`: guessed: the least that one operation on arrays takes, however small.
    - `kernels_a_stage`, `kernels_a_step`: guessed: such operations in a stage (product, maximum, sum, the rest), and in
      a step besides its stages.
    - `message_s`: guessed: time for one message between devices, however short.
    """

    name: str
    source: str
    matrix_operations: float
    operations: float
    memory: float
    memory_bytes: float
    devices: int
    link_bytes: float
    network_bytes: float
    host_bytes: float
    matrix_share: float = 0.3
    small_share: float = 0.05
    memory_share: float = 0.7
    kernel_s: float = 5e-6
    kernels_a_stage: int = 4
    kernels_a_step: int = 12
    message_s: float = 5e-6

    def all_reduce_seconds(self, count: int, devices: int) -> float:
        """Return the time that `devices` devices take to sum `count` bytes: in rings, first inside each machine.

        A ring of n moves 2 (n - 1)/n of the bytes past each member; then the shares of a machine's devices are summed
        over machines. A message goes up and down a binary tree.
        """
        inside = min(devices, self.devices)
        machines = -(-devices // self.devices)
        rings = 2 * (inside - 1) / inside * count / self.link_bytes
        rings += 2 * (machines - 1) / machines * count / inside / self.network_bytes
        return rings + 2 * math.ceil(math.log2(devices)) * self.message_s

    def flow_seconds(self, cost: FlowCost, heads: int, differentiated: bool) -> dict[str, float]:
        """Return the time of adapting `heads` heads on one device: what it waits, and what it works."""
        kernels = cost.steps * (STAGES * self.kernels_a_stage + self.kernels_a_step)
        operations = cost.training_operations() if differentiated else cost.forward_operations()
        moved = (2 if differentiated else 1) * cost.moved_bytes() / (self.memory_share * self.memory_bytes)
        return {
            "waiting": (4 if differentiated else 1) * kernels * self.kernel_s,
            "working": heads * (operations / (self.small_share * self.operations) + moved),
        }


ACCELERATOR = Accelerator(
    name="NVIDIA H100 SXM",
    source="NVIDIA H100 Tensor Core GPU data sheet (dense bfloat16: half of the figure with sparsity; links: half of "
    "the figure for both directions) and DGX H100 data sheet (eight of them, a 400 Gb/s adapter each)",
    matrix_operations=989e12,
    operations=67e12,
    memory=80e9,
    memory_bytes=3.35e12,
    devices=8,
    link_bytes=450e9,
    network_bytes=50e9,
    host_bytes=64e9,
)
"""What the predictions are for."""


def accelerated_meta_step(accelerator: Accelerator, rates: Rates, step: MetaStep, devices: int) -> dict[str, float]:
    """Return the time of one update spread over `devices` devices, in seconds, by part, and the memory of a device.

    - `embedding`, `waiting`, `working`: embedding in bfloat16, and the flow's two parts; for the tasks of one device.
    - `statistics`: the means of normalisations over the batch of all devices, forwards and backwards.
    - `gradients`: their sum over the devices.
    - `device`: all of the above, one after the other.
    - `drawing`, `gathering`: what one thread of each machine does for its devices, at this machine's rates.
    - `input`: moving the images to a device.
    - `memory`: bytes.
    """
    network, shape = NETWORKS[step.network], step.shape
    tasks, size, features = step.tasks / devices, shape.image_size, network.features(shape.image_size)
    images = tasks * shape.images
    parameters = network.parameters(shape.channels) + shape.ways * features
    flow = FlowCost(shape.support, shape.ways, features, step.steps)
    matrix = accelerator.matrix_share * accelerator.matrix_operations
    # In half precision; each output is written, and read by what follows, forwards, backwards, and as a cotangent.
    traffic = 6 * network.output_bytes(size, shape.channels) / 2
    each_image = network.training_operations(size, shape.channels) / matrix
    each_image += traffic / (accelerator.memory_share * accelerator.memory_bytes)
    parts = {"embedding": images * each_image, **accelerator.flow_seconds(flow, int(tasks), differentiated=True)}
    parts["statistics"] = 2 * network.normalisations() * accelerator.all_reduce_seconds(0, devices)
    parts["gradients"] = accelerator.all_reduce_seconds(BYTES * parameters, devices)
    parts["device"] = sum(parts.values())
    each_host = tasks * min(devices, accelerator.devices)
    parts["drawing"] = each_host * shape.ways / rates.drawing
    parts["gathering"] = each_host * shape.input_bytes / rates.gathering
    parts["input"] = tasks * shape.input_bytes / accelerator.host_bytes
    kept = shape.images * network.peak_bytes(size, shape.channels) / 2 + 2 * flow.moved_bytes() + flow.kept_bytes()
    return {**parts, "memory": tasks * kept + 4 * BYTES * parameters}


def accelerated_heads(
    accelerator: Accelerator, heads: float, cost: FlowCost, image_operations: int, devices: int
) -> dict[str, float]:
    """Return what adapting `heads` heads on `devices` devices takes, in seconds and bytes.

    - `image_operations`: operations that embed one support image.
    - `flow`: following the flows, as many heads at once as half of the memory holds.
    - `embedding`: making their embeddings, should there be none yet.
    - `link`: moving embeddings in and weights out, between host and device.
    - `embeddings`, `weights`, `coefficients`: bytes of what goes in; of what comes out; and of what is enough to make
      that again from the embeddings, the numbers of the state.
    - `at_once`: heads on a device at the same time.
    """
    coefficients = BYTES * cost.state_numbers
    own = cost.moved_bytes() + BYTES * cost.support**2
    at_once = int(accelerator.memory / 2 / own)
    parts = accelerator.flow_seconds(cost, at_once, differentiated=False)
    chunks = heads / devices / at_once
    matrix = accelerator.matrix_share * accelerator.matrix_operations
    embeddings, weights = BYTES * cost.support * cost.features, BYTES * cost.ways * cost.features
    return {
        "flow": chunks * sum(parts.values()),
        "embedding": heads * cost.support * image_operations / matrix / devices,
        "link": heads * max(embeddings, weights) / accelerator.host_bytes / devices,
        "embeddings": heads * embeddings,
        "weights": heads * weights,
        "coefficients": heads * coefficients,
        "at_once": at_once,
    }


PICTURES = (
    ("Conv-4, 32 filters", 28, 1),
    ("Conv-4, 64 filters", 28, 1),
    ("Conv-4, 32 filters", 84, 3),
    ("Conv-4, 64 filters", 84, 3),
    ("ResNet-12", 28, 1),
    ("ResNet-12", 84, 3),
)
"""Networks by name, with pixels a side and channels of their images."""

TRAINING_SHAPE = TaskShape(ways=5, shots=5, queries=15, image_size=84, channels=3)
DEVICES = (8, 64, 512)
ALL_TASKS, EACH_TASKS = 512, 16
"""Tasks of an update: in all, where the update stays the same; of each device, where it grows with the devices."""

MANY_HEADS = 1e9
MANY_CASES = (
    ("5-way 1-shot, Conv-4", "Conv-4, 64 filters", 5, 5),
    ("5-way 5-shot, ResNet-12", "ResNet-12", 25, 5),
    ("20-way 5-shot, Conv-4", "Conv-4, 64 filters", 100, 20),
)
"""A name, the network, support examples and ways."""

AT_HORIZON = 100.0
"""The horizon whose measured steps the predictions for many heads use."""


def predict(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return all predictions from what was measured, both as they stand in `benchmarks/results/scaling.json`.

    Updates on accelerators take as many solver steps as the slowest that was measured here.

    - `measured`: under `rates`, `meta_steps`, `heads`, `sampling` and `steps` a list of rows each.
    """
    rates = Rates(**{row["kind"]: row["rate"] for row in measured["rates"]})
    steps = {(row["support"], row["ways"]): row["slowest"] for row in measured["steps"] if row["horizon"] == AT_HORIZON}
    return {
        "meta_steps": [_check_meta_step(rates, row) for row in measured["meta_steps"]],
        "heads": [_check_heads(rates, row) for row in measured["heads"]],
        "sampling": [_check_sampling(rates, row) for row in measured["sampling"]],
        "networks": [_count_network(*picture) for picture in PICTURES],
        "steps": [_count_steps(row) for row in measured["steps"]],
        "accelerator": asdict(ACCELERATOR),
        "updates": _predict_updates(rates, max(row["steps"] for row in measured["meta_steps"])),
        "many_heads": _predict_many_heads(rates, steps),
    }


def _count_network(name: str, size: int, channels: int) -> dict[str, Any]:
    network = NETWORKS[name]
    return {
        "network": name,
        "image_size": size,
        "channels": channels,
        "features": network.features(size),
        "parameters": network.parameters(channels),
        "forward_operations": network.forward_operations(size, channels),
        "training_operations": network.training_operations(size, channels),
        "activation_bytes": network.activation_bytes(size, channels),
        "peak_bytes": network.peak_bytes(size, channels),
        "gradient_bytes": BYTES * network.parameters(channels),
    }


def _count_steps(row: Mapping[str, Any]) -> dict[str, int]:
    cost = FlowCost(row["support"], row["ways"], row["features"], row["slowest"])
    return {
        "products": cost.products(),
        "explicit_step": cost.explicit_step(),
        "explicit_step_back": cost.explicit_step_back(),
        "implicit_step": cost.implicit_step(),
        "implicit_step_back": cost.implicit_step_back(),
        "kept_bytes": cost.kept_bytes(),
        "moved_bytes": cost.moved_bytes(),
    }


def _against(seconds: float, row: Mapping[str, Any]) -> dict[str, float]:
    return {"predicted_ms": round(1e3 * seconds, 4), "ratio": round(1e3 * seconds / row["median_ms"], 3)}


def _check_meta_step(rates: Rates, row: Mapping[str, Any]) -> dict[str, Any]:
    shape = TaskShape(**row["shape"])
    step = MetaStep(row["network"], shape, row["tasks"], row["steps"])
    parts = meta_step_seconds(rates, step)
    images = row["tasks"] * shape.images
    peak = images * NETWORKS[step.network].peak_bytes(shape.image_size, shape.channels)
    return {
        "parts_ms": {name: round(1e3 * seconds, 3) for name, seconds in parts.items()},
        **_against(sum(parts.values()), row),
        "predicted_bytes": peak,
        "bytes_ratio": round(peak / row["temporary_bytes"], 3),
    }


def _check_heads(rates: Rates, row: Mapping[str, Any]) -> dict[str, float]:
    heads = Heads(**{name: row[name] for name in Heads.__dataclass_fields__})
    return _against(heads.heads * head_seconds(rates, heads.cost, heads.queries), row)


def _check_sampling(rates: Rates, row: Mapping[str, Any]) -> dict[str, float]:
    return _against(sampling_seconds(rates, Sampling(TaskShape(**row["shape"]), row["tasks"])), row)


def _predict_updates(rates: Rates, steps: int) -> list[dict[str, Any]]:
    rows = []
    for network in ("Conv-4, 64 filters", "ResNet-12"):
        for grows in (False, True):
            for devices in DEVICES:
                tasks = EACH_TASKS * devices if grows else ALL_TASKS
                step = MetaStep(network, TRAINING_SHAPE, tasks, steps)
                parts = accelerated_meta_step(ACCELERATOR, rates, step, devices)
                case = {"network": network, "grows": grows, "devices": devices, "tasks": tasks, "steps": steps}
                rows.append({**case, **parts})
    return rows


def _predict_many_heads(rates: Rates, steps: Mapping[tuple[int, int], int]) -> list[dict[str, Any]]:
    rows = []
    for name, network_name, support, ways in MANY_CASES:
        network = NETWORKS[network_name]
        cost = FlowCost(support, ways, network.features(TRAINING_SHAPE.image_size), steps[support, ways])
        operations = network.forward_operations(TRAINING_SHAPE.image_size, TRAINING_SHAPE.channels)
        here = MANY_HEADS * head_seconds(rates, cost)
        for devices in DEVICES:
            parts = accelerated_heads(ACCELERATOR, MANY_HEADS, cost, operations, devices)
            rows.append({"name": name, "devices": devices, "here": here, **parts})
    return rows
