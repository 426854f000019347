"""Learn for how long to adapt: the query loss as a function of the time T, and gradient descent on log T.

The embeddings are toy ones: five classes around random centres, one of the five support examples of each class wrongly
labelled. At T = 0 nothing is learned yet, and for large T the wrong labels are learned too; between them is a best time
to stop, and the exact gradient in T finds it.

Run:  python examples/learn_when_to_stop.py
"""

import jax
import jax.numpy as jnp

import comln

WAYS, SHOTS, QUERIES, SIZE = 5, 5, 20, 32


def draw_task(key):
    """Return support and query embeddings with one-hot labels, shapes (example, feature) and (example, way)."""
    centre_key, support_key, query_key = jax.random.split(key, 3)
    centres = jax.random.normal(centre_key, (WAYS, SIZE)) / jnp.sqrt(SIZE)

    def examples(key, per_class):
        labels = jnp.repeat(jnp.eye(WAYS), per_class, axis=0)
        noise = jax.random.normal(key, (WAYS * per_class, SIZE)) / jnp.sqrt(SIZE)
        return labels @ centres + noise, labels

    embeddings, labels = examples(support_key, SHOTS)
    wrong = jnp.roll(jnp.eye(WAYS), 1, axis=0)
    return (embeddings, labels.at[::SHOTS].set(wrong)), examples(query_key, QUERIES)


def query_loss(log_horizon, support, query):
    """Return the mean query loss of the weights that the flow reaches at T = exp(log_horizon), starting from zero."""
    embeddings, labels = support
    weights, _ = comln.gradient_flow(jnp.zeros((WAYS, SIZE)), embeddings, labels, jnp.exp(log_horizon))
    embeddings, labels = query
    return jnp.mean(comln.CrossEntropy().value(embeddings @ weights.T, labels))


@jax.jit
def mean_query_loss(log_horizon, tasks):
    """Return the query loss, averaged over a batch of tasks."""
    return jnp.mean(jax.vmap(query_loss, (None, 0, 0))(log_horizon, *tasks))


def learn_log_horizon(tasks, steps=60, step_size=4.0):
    """Return log T after gradient descent on the mean query loss, beginning at T = 1."""
    slope = jax.jit(jax.grad(mean_query_loss))
    log_horizon = jnp.zeros(())
    for _ in range(steps):
        log_horizon -= step_size * slope(log_horizon, tasks)
    return log_horizon


def main():
    """Print the mean query loss at several times, and at the time that was learned."""
    tasks = jax.vmap(draw_task)(jax.random.split(jax.random.key(0), 16))
    for horizon in (1.0, 10.0, 100.0, 1000.0):
        print(f"T = {horizon:6.1f}   query loss {mean_query_loss(jnp.log(jnp.asarray(horizon)), tasks):.4f}")
    learned = learn_log_horizon(tasks)
    print(f"T = {jnp.exp(learned):6.1f}   query loss {mean_query_loss(learned, tasks):.4f}   (learned)")


if __name__ == "__main__":
    main()
