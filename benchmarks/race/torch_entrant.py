"""MAML and ANIL in PyTorch, as one would write them today: a module, `torch.func`, and `vmap` over tasks.

For benchmarks/race/race.py, which starts this with an interpreter that has PyTorch. Weights, episodes and arithmetic
are those of the others: blocks of convolution, batch normalisation by the statistics of the batch at hand, ReLU and
pooling; the embedding divided by the root of its size; scale and shift of the normalisation learned, not adapted.
"""

import contextlib
import itertools
import math

import numpy as np
import torch  # pyright: ignore[reportMissingImports]  # not a dependency: another interpreter runs this
from answering import serve  # pyright: ignore[reportMissingImports]  # beside this script
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.func import (  # pyright: ignore[reportMissingImports]
    functional_call,
    grad,
    grad_and_value,
    vmap,
)
from torch.nn.functional import cross_entropy  # pyright: ignore[reportMissingImports]


class Conv4(nn.Module):
    """Four blocks, then flattened with the channels last."""

    def __init__(self, channels, filters):
        super().__init__()
        sizes = [channels, filters, filters, filters, filters]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1, bias=False) for before, after in itertools.pairwise(sizes)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(filters, track_running_stats=False) for _ in range(4))

    def forward(self, images):
        """Return embeddings."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            images = torch.relu(nn.functional.max_pool2d(norm(convolution(images)), 2))
        flat = images.permute(0, 2, 3, 1).flatten(1)
        return flat / math.sqrt(flat.shape[1])


class Network(nn.Module):
    """A network and a linear layer on top of it."""

    def __init__(self, channels, filters, features, ways):
        super().__init__()
        self.embed = Conv4(channels, filters)
        self.head = nn.Linear(features, ways)

    def forward(self, images):
        """Return logits."""
        return self.head(self.embed(images))


def descend(loss, parameters, step, steps):
    """Return a dictionary of parameters after steps of gradient descent, through which gradients go."""
    for _ in range(steps):
        slopes = grad(loss)(parameters)
        parameters = {name: value - step * slopes[name] for name, value in parameters.items()}
    return parameters


def maml(work, episodes, network):
    """Return the meta-loss of MAML and the query logits, as a function of the parameters."""

    def of_task(parameters, support, labels, query, of_query):
        fixed = {name: value for name, value in parameters.items() if ".norms." in name}
        adapted = {name: value for name, value in parameters.items() if name not in fixed}

        def loss(adapted):
            return cross_entropy(functional_call(network, {**adapted, **fixed}, (support,)), labels)

        adapted = descend(loss, adapted, work["step"], work["steps"])
        logits = functional_call(network, {**adapted, **fixed}, (query,))
        return cross_entropy(logits, of_query), logits

    def objective(parameters):
        if work["tasks together"]:
            losses, logits = vmap(of_task, in_dims=(None, 0, 0, 0, 0))(parameters, *episodes)
        else:
            each = [of_task(parameters, *task) for task in zip(*episodes, strict=True)]
            losses, logits = (torch.stack(values) for values in zip(*each, strict=True))
        return losses.mean(), logits

    return objective


def anil(work, episodes, network):
    """Return the meta-loss of ANIL and the query logits, as a function of the parameters."""
    support, labels, query, of_query = episodes

    def of_task(weights, support, labels, query, of_query):
        start = {"weight": weights}
        loss = lambda head: cross_entropy(support @ head["weight"].T, labels)  # noqa: E731
        logits = query @ descend(loss, start, work["step"], work["steps"])["weight"].T
        return cross_entropy(logits, of_query), logits

    def objective(parameters):
        embedded = embed(parameters, support, query, network)
        losses, logits = vmap(of_task, in_dims=(None, 0, 0, 0, 0))(
            parameters["head.weight"], embedded[0], labels, embedded[1], of_query
        )
        return losses.mean(), logits

    return objective


def anil_by_hand(work, episodes, network):
    """Return the same, with the inner gradient, which is p - y times the embeddings, written down for all tasks."""
    support, labels, query, of_query = episodes
    targets = nn.functional.one_hot(labels)

    def objective(parameters):
        embedded, queries = embed(parameters, support, query, network)
        targets_here = targets.to(embedded.dtype)
        weights = parameters["head.weight"].expand(len(embedded), -1, -1)
        for _ in range(work["steps"]):
            wrong = torch.softmax(embedded @ weights.mT, -1) - targets_here
            weights = weights - work["step"] / embedded.shape[1] * wrong.mT @ embedded
        logits = queries @ weights.mT
        return cross_entropy(logits.flatten(0, 1), of_query.flatten()), logits

    return objective


def embed(parameters, support, query, network):
    """Return the embeddings of the support and the query images of all tasks, shape `(task, example, feature)`."""
    inside = {name.removeprefix("embed."): value for name, value in parameters.items() if name.startswith("embed.")}
    images = torch.cat([support, query], 1)
    embedded = functional_call(network.embed, inside, (images.flatten(0, 1),)).unflatten(0, images.shape[:2])
    return embedded[:, : support.shape[1]], embedded[:, support.shape[1] :]


def prepared(work):
    """Return the network, the parameters of the race by name, and the episodes with channels first."""
    torch.set_num_threads(work["threads"])
    with np.load(work["file"]) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    episodes = [arrays[name] for name in ("support", "labels", "query", "of_query")]
    for place in (0, 2):
        # They come with the channels last, and stay so in memory where that is wanted.
        episodes[place] = episodes[place].permute(0, 1, 4, 2, 3)
        if not work["channels last"]:
            episodes[place] = episodes[place].contiguous()
    network = Network(episodes[0].shape[2], work["filters"], arrays["weights"].shape[1], len(arrays["weights"]))
    parameters = {"head.weight": arrays["weights"], "head.bias": arrays["bias"]}
    for i in range(4):
        layout = torch.channels_last if work["channels last"] else torch.contiguous_format
        kernel = arrays[f"kernel{i}"].permute(3, 2, 0, 1).contiguous(memory_format=layout)
        parameters[f"embed.convolutions.{i}.weight"] = kernel
        parameters[f"embed.norms.{i}.weight"] = arrays[f"scale{i}"]
        parameters[f"embed.norms.{i}.bias"] = arrays[f"shift{i}"]
    return network, parameters, episodes


def save_gradient(work, slopes):
    """Write the gradient in the linear layer and the kernels, for the comparison with the others'."""
    gradient = {"weights": slopes["head.weight"]}
    for i in range(4):
        gradient[f"kernel{i}"] = slopes[f"embed.convolutions.{i}.weight"].permute(2, 3, 1, 0)
    np.savez(work["gradient"], **{name: value.detach().numpy() for name, value in gradient.items()})


def begin(work):
    """Return the meta-step of a description, and what to say of its result."""
    network, parameters, episodes = prepared(work)
    if work["method"] != "maml":
        del parameters["head.bias"]
    methods = {"maml": maml, "anil": anil, "anil by hand": anil_by_hand}
    objective = methods[work["method"]](work, episodes, network)
    step = grad_and_value(objective, has_aux=True)
    step = torch.compile(step) if work["compiled"] else step

    def report(result):
        slopes, (loss, logits) = result
        save_gradient(work, slopes)
        right = logits.argmax(-1) == episodes[3]
        return {"loss": loss.item(), "accuracies": right.float().mean(-1).tolist()}

    # Otherwise what `torch.func` does would be recorded once more.
    @torch.no_grad()
    def call():
        return step(parameters)

    return call, report


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        serve(begin, {"torch": torch.__version__})
