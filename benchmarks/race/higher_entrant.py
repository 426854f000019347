"""MAML in PyTorch with the library higher (Grefenstette et al., 2019). For benchmarks/race/race.py."""

import contextlib
from importlib.metadata import version

import higher  # pyright: ignore[reportMissingImports]  # not a dependency: another interpreter runs this
import torch  # pyright: ignore[reportMissingImports]
from answering import serve  # pyright: ignore[reportMissingImports]  # beside this script
from torch.nn.functional import cross_entropy  # pyright: ignore[reportMissingImports]
from torch_entrant import prepared, save_gradient  # pyright: ignore[reportMissingImports]  # beside this script


def begin(work):
    """Return the meta-step of a description, and what to say of its result."""
    network, parameters, episodes = prepared(work)
    network = network.to(parameters["head.weight"].dtype)
    with torch.no_grad():
        for name, value in network.named_parameters():
            value.copy_(parameters[name])
    adapted = [value for name, value in network.named_parameters() if ".norms." not in name]
    optimiser = torch.optim.SGD(adapted, lr=work["step"])

    def call():
        network.zero_grad(set_to_none=True)
        losses, accuracies = [], []
        for support, labels, query, of_query in zip(*episodes, strict=True):
            with higher.innerloop_ctx(network, optimiser, copy_initial_weights=False) as (fast, inner):
                for _ in range(work["steps"]):
                    inner.step(cross_entropy(fast(support), labels))
                logits = fast(query)
                loss = cross_entropy(logits, of_query)
                # The gradients of the tasks add up in the network's parameters.
                (loss / len(episodes[0])).backward()
            losses.append(loss.item())
            accuracies.append((logits.argmax(-1) == of_query).float().mean().item())
        return losses, accuracies

    def report(result):
        losses, accuracies = result
        save_gradient(work, {name: value.grad for name, value in network.named_parameters()})
        return {"loss": sum(losses) / len(losses), "accuracies": accuracies}

    return call, report


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        serve(begin, {"torch": torch.__version__, "higher": version("higher")})
