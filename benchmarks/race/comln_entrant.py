"""MAML, ANIL and COMLN of this package. For benchmarks/race/race.py."""

import contextlib
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from answering import serve  # pyright: ignore[reportMissingImports]  # beside this script

from comln.backbones import Conv4, Normalisation
from comln.backbones.layers import convolve, convolve_by_patches
from comln.episode import Episode, Examples
from comln.episodic import meta_loss
from comln.learners import ANIL, COMLN, MAML
from comln.reproduce.measure import COMMIT


def learner_of(work, arrays):
    """Return the learner with the weights of the race."""
    size, channels = arrays["support"].shape[-2:]
    method, key = work["method"], jax.random.key(0)
    convolution = convolve_by_patches if method == "maml" else convolve
    network = Conv4.init(size, channels, work["filters"], key, convolve=convolution)
    network = eqx.tree_at(
        lambda n: [c.kernel for c in n.convolutions], network, [arrays[f"kernel{i}"] for i in range(4)]
    )
    ways = len(arrays["weights"])
    if method == "maml":
        learner = MAML.init(network, ways, key, step=work["step"], steps=work["steps"])
        return eqx.tree_at(lambda m: m.network.linear.weights, learner, arrays["weights"])
    if method == "anil":
        learner = ANIL.init(network, ways, key, step=work["step"], steps=work["steps"])
    else:
        learner = COMLN.init(network, ways, key, initial_horizon=work["step"] * work["steps"])
    return eqx.tree_at(lambda m: m.initial_weights, learner, arrays["weights"])


def begin(work):
    """Return the meta-step of a description, and what to say of its result."""
    jax.config.update("jax_enable_x64", work["double"])
    with np.load(work["file"]) as file:
        arrays = {name: jnp.asarray(file[name]) for name in file.files}
    ways = len(arrays["weights"])

    def examples(images, labels):
        return Examples(images, jnp.eye(ways)[labels], jnp.ones(labels.shape))

    episodes = Episode(examples(arrays["support"], arrays["labels"]), examples(arrays["query"], arrays["of_query"]))
    learner = learner_of(work, arrays)
    statistics = learner.backbone.initial_statistics()
    key = jax.random.key(0)

    @eqx.filter_jit
    def step(learner, episodes):
        @eqx.filter_value_and_grad(has_aux=True)
        def loss(learner):
            return meta_loss(learner, episodes, statistics, Normalisation.BATCH, key)

        return loss(learner)

    def report(result):
        (loss, (_, info)), slopes = result
        network = slopes.network.network if work["method"] == "maml" else slopes.backbone
        gradient = {"weights": slopes.network.linear.weights if work["method"] == "maml" else slopes.initial_weights}
        gradient |= {f"kernel{i}": layer.kernel for i, layer in enumerate(network.convolutions)}
        arrays_of_gradient: Any = {name: np.asarray(value) for name, value in gradient.items()}
        np.savez(work["gradient"], **arrays_of_gradient)
        return {"loss": float(loss), "accuracies": [float(info.accuracy)], "solver_steps": int(info.solver_steps)}

    return lambda: jax.block_until_ready(step(learner, episodes)), report


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        serve(begin, {"comln": COMMIT, "jax": jax.__version__})
