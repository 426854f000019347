"""Which devices a meta-batch is spread over: its tasks are shared out, everything else is on all of them.

Embedding runs under plain sharding, so that batch statistics are those of all tasks. Adapting runs device by device: a
solver under plain sharding would wait for the slowest device at each of its steps.
"""

__all__ = ["check_divides", "is_out_of_memory", "over_tasks", "replicate", "share_out", "task_mesh", "to_this_process"]

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

TASK = "task"


def task_mesh(devices: int) -> Mesh:
    """Return the first `devices` devices of each process, those of the first process first.

    **Raises:** `ValueError` where there are fewer.
    """
    # In this order, and no other, the tasks that a process makes lie on its own devices.
    by_process = [
        [device for device in jax.devices() if device.process_index == process]
        for process in range(jax.process_count())
    ]
    fewest = min(len(own) for own in by_process)
    if not 1 <= devices <= fewest:
        raise ValueError(
            f"--devices {devices} was asked for, but there {'is' if fewest == 1 else 'are'} {fewest} "
            f"({jax.devices()[0].platform}). Ask for 1 to {fewest}."
        )
    return Mesh(np.array([device for own in by_process for device in own[:devices]]), (TASK,))


def check_divides(tasks: int, devices: int) -> None:
    """Raise `ValueError` where `tasks` cannot be shared out evenly."""
    if tasks % devices:
        below, above = tasks - tasks % devices, tasks + -tasks % devices
        near = f"{above}" if below == 0 else f"{below} or {above}"
        raise ValueError(
            f"{tasks} tasks a step cannot be shared evenly by {devices} devices. Use --tasks-per-step {near}."
        )


def share_out(tree: Any, mesh: Mesh) -> Any:
    """Return the arrays of a tree with their first axis spread over the devices; each process passes its own part."""
    return _placed(tree, NamedSharding(mesh, PartitionSpec(TASK)))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Return a tree with its arrays on all devices; each process passes the same."""
    return _placed(tree, NamedSharding(mesh, PartitionSpec()))


def _placed(tree: Any, sharding: NamedSharding) -> Any:
    def place(x: Any) -> Any:
        is_array = isinstance(x, jax.Array | np.ndarray)
        return jax.make_array_from_process_local_data(sharding, np.asarray(x)) if is_array else x

    return jax.tree.map(place, tree)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is that a device has too little memory."""
    # On a CPU it may come wrapped, as an internal error; or as a `ValueError`, where an array is put on a device.
    signs = ("RESOURCE_EXHAUSTED", "Out of memory")
    return isinstance(error, jax.errors.JaxRuntimeError | ValueError) and any(sign in str(error) for sign in signs)


def to_this_process(tree: Any) -> Any:
    """Return a replicated tree with its arrays on the first device of this process alone."""
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x)) if isinstance(x, jax.Array) else x, tree)


def over_tasks(function: Callable[..., Any], mesh: Mesh | None) -> Callable[..., Any]:
    """Return `function(shared, one_of_each, ...)` applied to each task, device by device where there is a mesh."""

    def batched(shared: Any, *of_tasks: Any) -> Any:
        return jax.vmap(function, in_axes=(None, *(0 for _ in of_tasks)))(shared, *of_tasks)

    if mesh is None:
        return batched

    def on_devices(shared: Any, *of_tasks: Any) -> Any:
        specs = (PartitionSpec(), *(PartitionSpec(TASK) for _ in of_tasks))
        # With `check_vma` on, an inner `jax.grad` by what all devices share is summed over the devices, silently: each
        # task would descend along the gradients of other devices' tasks too.
        return jax.shard_map(batched, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(TASK), check_vma=False)(
            shared, *of_tasks
        )

    return on_devices
