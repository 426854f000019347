r"""Appendix D of the COMLN paper, transcribed as `tests.paper.literal` transcribes the rest: slow, in float64.

The letters are those of `tests.paper.literal`; $g$ is the vector field $-\nabla\mathcal L$, $\theta$ what it depends on
besides $\mathbf W$ ($\mathbf W_0$ or the embeddings), and `S` the sensitivity $\mathcal S = d\mathbf W / d\theta$, a
matrix of shape (Nd, n). The paper's $\mathbf W(T)$ in (18) and Proposition 10 is read as $\mathbf W(t)$.

With a proximal term $\mathbf W_0$ has two parts to play: the start $\mathbf W(0)$, and the anchor in $\theta$. Lyapunov
stability moves the start and leaves $\theta$ alone; a derivative in $\mathbf W_0$ moves both.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tests.paper.literal import (
    Pytree,
    column,
    curvatures,
    gradient,
    hessian,
    probabilities,
    regularised_loss,
    rk4_step,
    total,
)


def trajectory(rate: Callable[[Pytree], Pytree], start: Pytree, T: float, steps: int) -> list[Pytree]:
    r"""$\mathbf x(t)$ at $t = 0, h, 2h, \dots, T$, from $\dot{\mathbf x} = f(\mathbf x)$."""
    states = [start]
    for _ in range(steps):
        states.append(rk4_step(rate, states[-1], T / steps))
    return states


# Propositions 7, 8 and 10: two solutions of one equation


def rate_of_W(
    W: Float[np.ndarray, "way feature"],
    anchor: Float[np.ndarray, "way feature"],
    phi: Float[np.ndarray, "support feature"],
    y: Float[np.ndarray, "support way"],
    lam: float,
) -> Float[np.ndarray, "way feature"]:
    r"""$g(\mathbf W, \theta) = -\nabla\mathcal L(\mathbf W, \theta)$ (18). Shape (N, d)."""
    return -gradient(W, anchor, phi, y, lam)


def mean_hessian(
    W_1: Float[np.ndarray, "way feature"],
    W_2: Float[np.ndarray, "way feature"],
    phi: Float[np.ndarray, "support feature"],
    lam: float,
    nodes: int = 12,
) -> Float[np.ndarray, "way*feature way*feature"]:
    r"""$\int_0^1 \nabla^2\mathcal L(\mathbf W_1 + s\mathbf h)\,ds$ with $\mathbf h = \mathbf W_2 - \mathbf W_1$ (15).

    Shape (Nd, Nd). By Gauss-Legendre quadrature, which is as good as exact for so smooth a function.
    """
    x, weight = np.polynomial.legendre.leggauss(nodes)
    return total(weight[i] / 2 * hessian(W_1 + (1 + x[i]) / 2 * (W_2 - W_1), phi, lam) for i in range(nodes))


def force_on_S_of_phi(
    m: int,
    W: Float[np.ndarray, "way feature"],
    phi: Float[np.ndarray, "support feature"],
    y: Float[np.ndarray, "support way"],
) -> Float[np.ndarray, "way*feature feature"]:
    r"""$\partial g / \partial\phi_m = -\mathbf A_m \mathbf W \otimes \phi_m
    - \frac1M (\mathbf p_m - \mathbf y_m) \otimes \mathbf I_d$ (proof of Proposition 3). Shape (Nd, d)."""
    M, d = phi.shape
    p = probabilities(W, phi)
    return -np.kron(curvatures(p)[m] @ W, column(phi[m])) - np.kron(column(p[m] - y[m]), np.eye(d)) / M


def force_on_S_of_W_0(W: Float[np.ndarray, "way feature"], lam: float) -> Float[np.ndarray, "way*feature way*feature"]:
    r"""$\partial g / \partial\mathbf W_0 = \lambda\mathbf I$ (proof of Proposition 2). Shape (Nd, Nd)."""
    return lam * np.eye(W.size)


def rate_of_S(
    S: Float[np.ndarray, "way*feature n"],
    W: Float[np.ndarray, "way feature"],
    force: Float[np.ndarray, "way*feature n"],
    phi: Float[np.ndarray, "support feature"],
    lam: float,
) -> Float[np.ndarray, "way*feature n"]:
    r"""$\frac{d\mathcal S}{dt} = -\nabla^2\mathcal L(\mathbf W(t), \theta)\,\mathcal S(t)
    + \frac{\partial g}{\partial\theta}$ (18). Shape (Nd, n)."""
    return -hessian(W, phi, lam) @ S + force


# Proposition 9 and Corollary 1: weights and sensitivity together, in JAX


class Joint(NamedTuple):
    r"""$[\mathbf W(t), \mathcal S(t)]$, what (17) integrates."""

    W: Float[Array, "way feature"]
    S: Float[Array, "way*feature n"]


VectorField = Callable[[Float[Array, "way feature"], Float[Array, "..."]], Float[Array, "way feature"]]
r"""$g(\mathbf W, \theta)$."""


def field_of_W_0(phi: Float[Array, "support feature"], y: Float[Array, "support way"], lam: float) -> VectorField:
    r"""$g(\mathbf W, \theta)$ for $\theta = \mathbf W_0$."""
    return lambda W, W_0: -jax.grad(regularised_loss)(W, W_0, phi, y, lam)


def field_of_phi(W_0: Float[Array, "way feature"], y: Float[Array, "support way"], lam: float) -> VectorField:
    r"""$g(\mathbf W, \theta)$ for $\theta = \phi$, all embeddings together."""
    return lambda W, phi: -jax.grad(regularised_loss)(W, W_0, phi, y, lam)


def joint_rate(state: Joint, theta: Float[Array, "..."], g: VectorField) -> Joint:
    r"""The right-hand side of (17).

    $$ \frac{d\mathbf W}{dt} = g(\mathbf W, \theta), \qquad
       \frac{d\mathcal S}{dt} = \frac{\partial g}{\partial\mathbf W} \mathcal S + \frac{\partial g}{\partial\theta} $$
    """
    W, S = state
    wrt_W, wrt_theta = jax.jacfwd(g, argnums=(0, 1))(W, theta)
    return Joint(g(W, theta), wrt_W.reshape(W.size, W.size) @ S + wrt_theta.reshape(W.size, theta.size))


def joint_jacobian(
    state: Joint, theta: Float[Array, "..."], g: VectorField
) -> Float[Array, "way*feature*(1+n) way*feature*(1+n)"]:
    r"""Jacobian of the right-hand side of (17) in $[\mathrm{Vec}(\mathbf W), \mathrm{Vec}(\mathcal S)]$.

    Propositions 7 and 8 would have to find it negative semi-definite for Corollary 1 to follow. With $\mathbf H =
    \nabla^2\mathcal L$ it is

    $$ \begin{pmatrix} -\mathbf H & \mathbf 0 \\
       \partial(-\mathbf H\mathcal S + \partial g / \partial\theta) / \partial\mathbf W &
       -\mathbf H \otimes \mathbf I_n \end{pmatrix} $$
    """

    def rate(flat: Float[Array, " size"]) -> Float[Array, " size"]:
        W, S = flat[: state.W.size].reshape(state.W.shape), flat[state.W.size :].reshape(state.S.shape)
        return jnp.concatenate([part.reshape(-1) for part in joint_rate(Joint(W, S), theta, g)])

    return jax.jacfwd(rate)(jnp.concatenate([part.reshape(-1) for part in state]))


def joint_flow(start: Joint, theta: Float[Array, "..."], g: VectorField, T: float, steps: int) -> Joint:
    r"""$[\mathbf W(T), \mathcal S(T)]$ from (17)."""

    def step(state: Joint, _: None) -> tuple[Joint, None]:
        return rk4_step(lambda x: joint_rate(x, theta, g), state, T / steps), None

    return jax.lax.scan(step, start, length=steps)[0]


# Proposition 11 and erratum E13: how far the weights go


def farthest_displacement(loss_at_start: float, lam: float) -> float:
    r"""$\sqrt{2 \mathcal L^{\text{CE}}(\mathbf W_0) / \lambda} \ge \lVert\mathbf W(t) - \mathbf W_0\rVert$ at any time.

    Not in the paper. The flow descends and the cross-entropy is not negative:

    $$ \frac\lambda2 \lVert\mathbf W(t) - \mathbf W_0\rVert^2 \le \mathcal L(\mathbf W(t)) \le \mathcal L(\mathbf W_0)
       = \mathcal L^{\text{CE}}(\mathbf W_0) $$
    """
    return np.sqrt(2 * loss_at_start / lam)


def margin_multipliers(
    phi: Float[Array, "support feature"], y: Float[Array, "support way"]
) -> Float[Array, "support way"]:
    r"""Rows $\mathbf c_m$ with $\sum_k (\phi_m^\top\phi_k) \mathbf c_k = \mathbf y_m - \mathbf 1 / N$. Shape (M, N)."""
    N = y.shape[1]
    return jnp.linalg.solve(phi @ phi.T, y - 1 / N)


def max_margin_weights(
    phi: Float[Array, "support feature"], y: Float[Array, "support way"]
) -> Float[Array, "way feature"]:
    r"""$\hat{\mathbf W} = \sum_m \mathbf c_m \phi_m^\top$, the direction of $\mathbf W(t) \sim \hat{\mathbf W} \log t$.

    Not in the paper: Soudry et al. (2018), The Implicit Bias of Gradient Descent on Separable Data. The limit is

    $$ \hat{\mathbf W} = \arg\min \lVert\mathbf W\rVert^2 \quad\text{such that}\quad
       \hat{\mathbf w}_{n(m)}^\top\phi_m - \hat{\mathbf w}_k^\top\phi_m \ge 1 \quad\text{for all } k \ne n(m) $$

    with $n(m)$ the class of example $m$. This closed form lets every constraint hold with equality, which is optimal if
    and only if all multipliers, $-c_{mk}$ for $k \ne n(m)$, are non-negative. Shape (N, d).
    """
    c = margin_multipliers(phi, y)
    return sum((jnp.outer(c[m], phi[m]) for m in range(len(phi))), start=jnp.zeros((c.shape[1], phi.shape[1])))


def time_to_reach(w: float) -> float:
    r"""$T = w + (e^{2w} - 1) / 2$: two points at $\pm 1$ have $\mathbf W(T) = (w, -w)$, from $\mathbf W_0 = \mathbf 0$.

    Not in the paper: by symmetry $\dot w = 1 / (1 + e^{2w})$.
    """
    return w + (np.exp(2 * w) - 1) / 2
