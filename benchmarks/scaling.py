"""What a meta-step and adapting many heads cost: rates of this machine, and predictions from them against measurement.

Run:     python benchmarks/scaling.py            all; some ten minutes on two cores
         python benchmarks/scaling.py PART ...   rates, meta-steps, heads or sampling, and the others as they were
         python benchmarks/scaling.py predict    nothing measured, all predicted again
Writes:  benchmarks/results/scaling.json         (scaling-DEVICE.json on an accelerator)

Each kind of work has one rate, measured at one size; every prediction is for another size.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from meta_gradients import Size, mean_loss, one_hot, tasks

from comln import COMLN, Integrator, gradient_flow
from comln.backbones import Conv4, Normalisation, ResNet12
from comln.backbones.layers import BatchNorm, convolve, norm_and_pool
from comln.data.batches import TaskBatch, make_batch
from comln.data.sampling import EpisodeShape, Sampler
from comln.data.source import Split
from comln.flow.integrator import Rodas4
from comln.meta_train import start_training, update
from comln.optimiser import Adam
from comln.reproduce.cost_model import BYTES, FlowCost, TaskShape
from comln.reproduce.measure import environment, interleaved, temporary_bytes
from comln.reproduce.scaling import Heads, MetaStep, predict

HEADS, FEW_HEADS = 512, 64
LONG, USUAL = 1e4, 100.0
QUERIES = 15
"""Of each way, in `meta_gradients.task`."""

SIZES = (Size(5, 5, 1600), Size(25, 5, 1600), Size(100, 20, 1600))
BUILDERS = {
    "Conv-4, 32 filters": lambda size, channels, key: Conv4.init(size, channels, 32, key),
    "Conv-4, 64 filters": lambda size, channels, key: Conv4.init(size, channels, 64, key),
    "ResNet-12": lambda size, channels, key: ResNet12.init(size, channels, key),
}
META_STEPS = (
    ("Conv-4, 32 filters", TaskShape(5, 1, 15, 28, 1), 8),
    ("Conv-4, 32 filters", TaskShape(20, 1, 15, 28, 1), 8),
    ("Conv-4, 64 filters", TaskShape(5, 1, 15, 84, 3), 1),
    ("Conv-4, 64 filters", TaskShape(5, 5, 15, 84, 3), 2),
    ("ResNet-12", TaskShape(5, 1, 15, 28, 1), 1),
    ("ResNet-12", TaskShape(5, 1, 3, 84, 3), 1),
)


def spread(times):
    """Return the median and quartiles of times in seconds."""
    lower, middle, upper = (round(1e3 * float(np.percentile(times, p)), 4) for p in (25, 50, 75))
    return {"median_ms": middle, "quartiles_ms": [lower, upper], "calls": len(times)}


def repeated(call, seconds=4.0, least=5):
    """Return the spread of the times of a call, made twice before that."""
    times = []
    for _ in range(2):
        call()
    while len(times) < least or sum(times) < seconds:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return spread(times)


def measured(function, *arguments):
    """Return the spread of the times of a function, compiled."""
    compiled = jax.jit(function).lower(*arguments).compile()
    return repeated(lambda: jax.block_until_ready(compiled(*arguments)))


def show(row):
    """Print a row, return it."""
    print(json.dumps(row), flush=True)
    return row


def adapt(integrator=Integrator(), differentiated=False):
    """Return the function that adapts heads, and counts the steps of each."""

    def loss(weights, support, query, horizon):
        adapted, info = gradient_flow(weights, support, one_hot(support, len(weights)), horizon, integrator=integrator)
        return mean_loss(adapted, query), (adapted, info.steps)

    def one(weights, support, query, horizon):
        if not differentiated:
            return loss(weights, support, query, horizon)[1]
        slopes, (_, steps) = jax.grad(loss, argnums=(0, 1, 2, 3), has_aux=True)(weights, support, query, horizon)
        return slopes, steps

    return jax.vmap(one, in_axes=(0, 0, 0, None))


def time_of_steps(size, heads, horizon, integrator=Integrator()):
    """Return the seconds of one step of one head, with the spread of the whole, and that of no steps at all."""
    arrays, function = tasks(size, heads), jax.jit(adapt(integrator))
    horizons = {"none": jnp.float32(0.0), "all": jnp.float32(horizon)}
    found = interleaved({name: (function, (*arrays, time)) for name, time in horizons.items()}, seconds=4.0)
    steps = int(jnp.max(function(*arrays, horizons["all"])[1]))
    each = (found["all"].median_ms - found["none"].median_ms) / 1e3 / steps / heads
    rows = {}
    for name, row in found.items():
        rows[name] = {"median_ms": row.median_ms, "quartiles_ms": list(row.quartiles_ms), "calls": row.calls}
    return each, rows["all"], rows["none"]


def rate(kind, value, unit, where, row):
    """Return the row of a rate."""
    return show({"kind": kind, "rate": float(f"{value:.4g}"), "unit": unit, "where": where, **row})


def rates_of_networks():
    """Measure a convolution in the middle of the channels that networks have, and a normalisation with its pooling."""
    key, images, size, channels = jax.random.key(0), 20, 42, 160
    inputs = jax.random.normal(key, (images, size, size, channels), jnp.float32)
    kernel = jax.random.normal(key, (3, 3, channels, channels), jnp.float32)

    def differentiate(inputs, kernel):
        outputs, pull_back = jax.vjp(convolve, inputs, kernel)
        return pull_back(outputs)

    row = measured(differentiate, inputs, kernel)
    count = 3 * 2 * 9 * channels**2 * size**2 * images
    where = f"one 3 x 3, {channels} to {channels} channels, {images} images of {size} x {size}"
    yield rate("convolutions", 1e3 * count / row["median_ms"], "operations", where, row)

    images, channels = 80, 64
    inputs = jax.random.normal(key, (images, size, size, channels), jnp.float32)
    norm = BatchNorm.init(channels)
    statistics = norm.initial_statistics()

    def normalise(inputs):
        def forward(inputs):
            return jax.nn.relu(norm_and_pool(norm, inputs, statistics, Normalisation.BATCH)[0])

        outputs, pull_back = jax.vjp(forward, inputs)
        return pull_back(outputs)

    row = measured(normalise, inputs)
    where = f"{channels} channels, {images} images of {size} x {size}"
    yield rate("normalising", 1e3 * BYTES * inputs.size / row["median_ms"], "bytes", where, row)


def rates_of_flows():
    """Measure heads without steps, with much to move and with large products; then steps, of small heads and larger."""

    def where(size, heads=HEADS):
        return f"{heads} heads, {size}"

    wide, large, small, medium = Size(10, 5, 4000), Size(200, 5, 640), Size(6, 3, 64), Size(50, 10, 640)
    _, _, row = time_of_steps(wide, HEADS, 1.0)
    byte = row["median_ms"] / 1e3 / HEADS / FlowCost(*wide, 0).moved_bytes()
    yield rate("moving", 1 / byte, "bytes", f"{where(wide)}, T = 0", row)

    _, _, row = time_of_steps(large, HEADS, 1.0)
    cost = FlowCost(*large, 0)
    operation = (row["median_ms"] / 1e3 / HEADS - byte * cost.moved_bytes()) / cost.products()
    yield rate("products", 1 / operation, "operations", f"{where(large)}, T = 0", row)

    start, row, _ = time_of_steps(small, HEADS, LONG)
    yield rate("starting", 1 / start, "steps", f"{where(small)}, T = {LONG:g}", row)

    each, row, _ = time_of_steps(medium, HEADS, LONG)
    count = FlowCost(*medium, 1).explicit_step()
    yield rate("explicit", count / (each - start), "operations", f"{where(medium)}, T = {LONG:g}", row)

    each, row, _ = time_of_steps(medium, FEW_HEADS, USUAL, Integrator(method=Rodas4()))
    count = FlowCost(*medium, 0, 1).implicit_step()
    yield rate("implicit", count / each, "operations", f"{where(medium, FEW_HEADS)}, T = {USUAL:g}", row)


def split_of(image_size, channels, classes=64, each=600):
    """Return a split as large as the training classes of miniImageNet, of images without content."""
    examples = np.random.default_rng(0).integers(0, 256, (classes * each, image_size, image_size, channels), np.uint8)
    numbers = np.arange(classes * each)
    return Split(tuple(f"class {c}" for c in range(classes)), examples, numbers // each, numbers, "none")


def rates_of_sampling():
    """Measure drawing tasks, and gathering their images."""
    shape = TaskShape(5, 1, 15, 84, 3)
    split = split_of(shape.image_size, shape.channels)
    sampler = Sampler(split, EpisodeShape(shape.ways, shape.shots, shape.queries))
    episodes, count = [sampler.draw(0, i) for i in range(200)], iter(range(10**9))

    def draw():
        for _ in range(100):
            sampler.draw(1, next(count))

    row = repeated(draw)
    where = f"{shape.ways}-way {shape.shots}-shot {shape.queries}-query, of 600 images a class"
    yield rate("drawing", 1e3 * 100 * shape.ways / row["median_ms"], "classes", f"100 tasks, {where}", row)

    def gather():
        for episode in episodes:
            for positions in (episode.support, episode.query):
                _ = split.examples[positions]

    row = repeated(gather)
    where = f"{len(episodes)} tasks of {shape.images} images of {shape.image_size} x {shape.image_size}"
    yield rate("gathering", 1e3 * len(episodes) * shape.input_bytes / row["median_ms"], "bytes", where, row)


def measure_rates():
    """Return the rate of each kind of work."""
    return [*rates_of_networks(), *rates_of_flows(), *rates_of_sampling()]


def measure_meta_steps():
    """Return the time and memory of an update of COMLN, from bytes to new parameters."""
    rows = []
    for name, shape, count in META_STEPS:
        key = jax.random.key(0)
        backbone = BUILDERS[name](shape.image_size, shape.channels, key)
        learner = COMLN.init(backbone, shape.ways, key, initial_horizon=USUAL)
        optimiser = Adam().build(learner, 100)
        state, batch = start_training(learner, optimiser), images_of(shape, count)
        jitted: Any = update
        program = jitted.lower(state, batch, key, optimiser, None).compile()

        def call(program=program, state=state, batch=batch, key=key, optimiser=optimiser):
            return jax.block_until_ready(program(state, batch, key, optimiser, None))

        case = MetaStep(name, shape, count, int(call()[1]["solver_steps"]))
        memory = temporary_bytes(program.compiled)
        rows.append(show({**dataclasses.asdict(case), "horizon": USUAL, **repeated(call), "temporary_bytes": memory}))
    return rows


def images_of(shape, count):
    """Return tasks of images: a pattern for each class, and noise."""
    rng, pixels = np.random.default_rng(0), (shape.image_size, shape.image_size, shape.channels)
    patterns = rng.integers(0, 128, (count, shape.ways, 1, *pixels))

    def examples(each):
        return (patterns + rng.integers(0, 128, (count, shape.ways, each, *pixels))).astype(np.uint8)

    return TaskBatch(examples(shape.shots), examples(shape.queries), np.arange(count, dtype=np.uint32))


def measure_heads():
    """Return the time of adapting many heads, without and with the gradient, by explicit and by implicit steps."""
    cases = [(size, HEADS, horizon, False, None) for size in SIZES for horizon in (1.0, USUAL, LONG)]
    cases += [(size, HEADS, USUAL, False, QUERIES * size.ways) for size in SIZES]
    cases += [(size, FEW_HEADS, USUAL, True, None) for size in SIZES[1:]]
    rows = []
    for size, heads, horizon, implicit, queries in cases:
        arrays = (*tasks(size, heads), jnp.float32(horizon))
        integrator = Integrator(method=Rodas4()) if implicit else Integrator()
        function = jax.jit(adapt(integrator, queries is not None)).lower(*arrays).compile()

        def call(function=function, arrays=arrays):
            return jax.block_until_ready(function(*arrays))

        steps = int(jnp.max(call()[1]))
        case = Heads(*size, heads, horizon, implicit, queries, steps)
        rows.append(show({**dataclasses.asdict(case), **repeated(call, seconds=2.0)}))
    return rows


def measure_steps():
    """Return how many steps heads need, on the average and at most."""
    rows = []
    for size in SIZES:
        arrays, function = tasks(size, HEADS), jax.jit(adapt())
        for horizon in (1.0, USUAL, LONG):
            steps = np.asarray(function(*arrays, jnp.float32(horizon))[1])
            row = {**size._asdict(), "horizon": horizon, "heads": HEADS}
            rows.append(show({**row, "mean": float(f"{steps.mean():.4g}"), "slowest": int(steps.max())}))
    return rows


def measure_sampling():
    """Return the time of making batches of tasks from images in memory, by one thread."""
    rows = []
    for shape, count in ((TaskShape(5, 5, 15, 84, 3), 16), (TaskShape(20, 1, 15, 28, 1), 16)):
        sampler = Sampler(
            split_of(shape.image_size, shape.channels), EpisodeShape(shape.ways, shape.shots, shape.queries)
        )
        starts = iter(range(0, 10**9, count))

        def call(sampler=sampler, starts=starts, count=count):
            start = next(starts)
            make_batch(sampler, 0, range(start, start + count))

        case = {"shape": dataclasses.asdict(shape), "tasks": count, "input_bytes": shape.input_bytes}
        rows.append(show({**case, **repeated(call)}))
    return rows


PARTS = {
    "rates": {"rates": measure_rates},
    "meta-steps": {"meta_steps": measure_meta_steps},
    "heads": {"steps": measure_steps, "heads": measure_heads},
    "sampling": {"sampling": measure_sampling},
}


def main():
    """Measure the parts that the command line names, predict, write the JSON."""
    words = sys.argv[1:] or list(PARTS)
    unknown = set(words) - {*PARTS, "predict"}
    if unknown:
        sys.exit(f"No such part: {', '.join(sorted(unknown))}. Choose from {', '.join(PARTS)} and predict.")
    device = jax.devices()[0]
    suffix = "" if device.platform == "cpu" else f"-{device.device_kind.replace(' ', '-')}"
    path = Path(__file__).parent / "results" / f"scaling{suffix}.json"
    result = {"dtype": "float32", "environment": {}, "measured": {}}
    if path.exists():
        result = json.loads(path.read_text())
    for word in words:
        for name, measure in PARTS.get(word, {}).items():
            result["environment"][name] = environment()
            result["measured"][name] = measure()
    if {name for part in PARTS.values() for name in part} <= result["measured"].keys():
        result["predicted"] = predict(result["measured"])
        for name in ("meta_steps", "heads", "sampling"):
            print(name, *(row["ratio"] for row in result["predicted"][name]))
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
