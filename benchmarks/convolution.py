"""Conv-4 on 84 x 84 images against PyTorch, and a meta-step of COMLN against a supervised step on the same images.

Run:     python benchmarks/convolution.py TORCH_PYTHON      an interpreter that has PyTorch; three minutes on two cores
         python benchmarks/convolution.py                   without that comparison, as on an accelerator
         python benchmarks/convolution.py ... --short       a few calls of each, and nothing written
Writes:  benchmarks/results/convolution.json                (convolution-DEVICE.json on an accelerator)
"""

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from comln.backbones import Conv4, Normalisation
from comln.episode import Episode, Examples
from comln.episodic import meta_loss
from comln.learners import COMLN
from comln.losses import CrossEntropy
from comln.reproduce.measure import environment

IMAGES, PIXELS, FILTERS = 100, 84, 64
WAYS, SHOTS, QUERIES, HORIZON = 5, 5, 15, 100.0
TRAINING_CLASSES = 64
PAUSE_S = 0.05
"""Between two calls: another library's threads may go on waiting for work for a moment."""


def plain_convolution(images, kernel):
    """Return the compiler's own convolution, with its own gradients."""
    return jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def network(**settings):
    """Return the paper's Conv-4, untrained."""
    return Conv4.init(PIXELS, 3, FILTERS, jax.random.key(0), **settings)


def pictures():
    """Return the images of one task, class after class: a pattern for each class, and noise; in float32."""
    rng = np.random.default_rng(0)
    patterns = rng.random((WAYS, PIXELS, PIXELS, 3))
    noise = rng.normal(size=(WAYS, SHOTS + QUERIES, PIXELS, PIXELS, 3))
    return jnp.asarray(patterns[:, None] + 0.5 * noise, jnp.float32)


def timed(function, *arguments):
    """Return a call of `function`, compiled, that tells how many seconds it took."""
    compiled = eqx.filter_jit(function)
    jax.block_until_ready(compiled(*arguments))

    def call():
        began = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        return time.perf_counter() - began

    return call


def gradient_of_network(backbone, images):
    """Return the gradient of the sum of the squared embeddings in the weights."""

    def total(backbone):
        return jnp.sum(jnp.square(backbone(images, backbone.initial_statistics(), Normalisation.BATCH)[0]))

    return eqx.filter(eqx.filter_grad(total)(backbone), eqx.is_array)


@contextmanager
def torch_network(python):
    """Start the same in PyTorch; give a call that tells its seconds, and what it says of itself."""
    script = Path(__file__).parent / "convolution_torch.py"
    command = [python, str(script), *map(str, (IMAGES, PIXELS, FILTERS))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        to_process, from_process = process.stdin, process.stdout

        def ask():
            to_process.write("\n")
            to_process.flush()
            answer = from_process.readline()
            if not answer:
                sys.exit(f"{python} {script} gave no answer. Does that interpreter have PyTorch?")
            return json.loads(answer)

        about = ask()
        yield (lambda: ask()["seconds"]), about
        to_process.close()


def step_of(loss, parameters):
    """Return a function of a model, that makes one step of SGD with momentum down a loss."""
    optimiser = optax.sgd(0.1, momentum=0.9, nesterov=True)
    memory = optimiser.init(eqx.filter(parameters, eqx.is_inexact_array))

    def step(model, memory, images):
        arrays, fixed = eqx.partition(model, eqx.is_inexact_array)
        slopes, statistics = jax.grad(lambda a: loss(eqx.combine(a, fixed), images), has_aux=True)(arrays)
        updates, memory = optimiser.update(slopes, memory, arrays)
        return eqx.apply_updates(arrays, updates), memory, statistics

    return step, memory


def supervised_loss(model, images):
    """Return the cross-entropy of all images in as many classes as miniImageNet has for training."""
    backbone, weights = model
    flat = images.reshape(-1, *images.shape[2:])
    embeddings, statistics = backbone(flat, backbone.initial_statistics(), Normalisation.BATCH)
    labels = jnp.eye(TRAINING_CLASSES, dtype=flat.dtype)[jnp.arange(len(flat)) % TRAINING_CLASSES]
    return jnp.mean(CrossEntropy().value(embeddings @ weights.T, labels)), statistics


def meta_learning_loss(learner, images):
    """Return COMLN's loss on the task that the images make up, its statistics and how many steps the solver took."""

    def examples(chosen):
        labels = jnp.repeat(jnp.eye(WAYS, dtype=chosen.dtype), chosen.shape[1], axis=0)
        flat = chosen.reshape(-1, *chosen.shape[2:])
        return jax.tree.map(lambda x: x[None], Examples(flat, labels, jnp.ones(len(flat), flat.dtype)))

    episodes = Episode(examples(images[:, :SHOTS]), examples(images[:, SHOTS:]))
    statistics = learner.backbone.initial_statistics()
    loss, (statistics, info) = meta_loss(learner, episodes, statistics, Normalisation.BATCH, jax.random.key(0))
    return loss, (statistics, info.solver_steps)


def take_turns(calls, rounds):
    """Return the times of the calls, in seconds, made in turns so that their ratio is not that of two moments."""
    times = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(PAUSE_S)
            times[name].append(call())
    return times


def summary(times, against):
    """Return medians and quartiles in milliseconds, and each median over that of `against`."""
    rows = {}
    for name, spent in times.items():
        lower, middle, upper = (round(1e3 * float(np.percentile(spent, p)), 2) for p in (25, 50, 75))
        rows[name] = {"median_ms": middle, "quartiles_ms": [lower, upper], "calls": len(spent)}
    for row in rows.values():
        row[f"over {against}"] = round(row["median_ms"] / rows[against]["median_ms"], 4)
    print(json.dumps(rows, indent=1), flush=True)
    return rows


def compare_networks(python, rounds):
    """Return the times of forward and backward passes, and what PyTorch says of itself."""
    images = pictures().reshape(IMAGES, PIXELS, PIXELS, 3)
    calls = {
        "comln": timed(gradient_of_network, network(), images),
        "the compiler's convolutions": timed(gradient_of_network, network(convolve=plain_convolution), images),
    }
    if python is None:
        return summary(take_turns(calls, rounds), "the compiler's convolutions"), None
    with torch_network(python) as (call, about):
        return summary(take_turns({**calls, "PyTorch": call}, rounds), "PyTorch"), about


def compare_steps(rounds):
    """Return the times of the two kinds of steps, and how many steps the solver took."""
    images, key = pictures(), jax.random.key(1)
    learner = COMLN.init(network(), WAYS, key, initial_horizon=HORIZON)
    classifier = (network(), jax.random.normal(key, (TRAINING_CLASSES, learner.backbone.embedding_size)) / 40)
    calls, solver_steps = {}, 0
    for name, loss, model in (
        ("supervised step", supervised_loss, classifier),
        ("COMLN meta-step", meta_learning_loss, learner),
    ):
        step, memory = step_of(loss, model)
        calls[name] = timed(step, model, memory, images)
        if name == "COMLN meta-step":
            solver_steps = int(eqx.filter_jit(step)(model, memory, images)[2][1])
    return summary(take_turns(calls, rounds), "supervised step"), solver_steps


def main():
    """Measure, write the JSON."""
    words = [word for word in sys.argv[1:] if word != "--short"]
    rounds = 3 if "--short" in sys.argv[1:] else 30
    networks, torch = compare_networks(words[0] if words else None, rounds)
    steps, solver_steps = compare_steps(rounds)
    result = {
        "dtype": "float32",
        "environment": environment(),
        "PyTorch": torch,
        f"Conv-4, forward and backward, {IMAGES} images of {PIXELS} x {PIXELS}, {FILTERS} filters": networks,
        f"one step, {WAYS} ways, {SHOTS} shots, {QUERIES} queries, T = {HORIZON:g}": steps,
        "solver steps": solver_steps,
    }
    device = jax.devices()[0]
    suffix = "" if device.platform == "cpu" else f"-{device.device_kind.replace(' ', '-')}"
    path = Path(__file__).parent / "results" / f"convolution{suffix}.json"
    if "--short" in sys.argv[1:]:
        return
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
