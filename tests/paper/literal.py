r"""The equations of the COMLN paper, transcribed one by one: slow, in float64, to be read next to the paper.

Every sum of the paper is a loop here, every index keeps its letter, and every function is one displayed equation. The
fast forms of the package are compared with these, and these are compared with automatic differentiation. Part I is the
paper in NumPy; part II is the loss and the flow of $W$ in JAX, which know nothing of the decomposition.

The letters are the paper's:

| letter | shape | meaning |
|---|---|---|
| `W_0`, `W` | (N, d) | initial weights; weights at some time |
| `phi` | (M, d) | design matrix of the support embeddings, rows $\phi_m$ |
| `y`, `p` | (M, N) | labels $\mathbf y_m$ (each row sums to one); predictions $\mathbf p_m$ |
| `lam` | () | weight $\lambda$ of the proximal term |
| `A` | (M, N, N) | curvatures $\mathbf A_m$ of the loss, $1/M$ included |
| `s`, `B`, `z` | (M, N), (M, M, N, N), (M, M, M, N) | the state of the dynamical system |
| `V` | (N, d) | $\partial \mathcal L^{\text{test}} / \partial \mathbf W(T)$ |
| `C`, `D` | (M, N), (M, M) | the matrices of Propositions 5 and 6 |

Jacobians are matrices, as in the paper: $\mathrm{Vec}(\mathbf W)$ is row-major, entry $(k, x)$ of $\mathbf W$ is entry
$dk + x$. Where the paper errs, the function of the plain name is the corrected equation and the printed one ends in
`_as_printed`.
"""

import functools
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Term = TypeVar("Term", np.ndarray, np.float64)
Pytree = TypeVar("Pytree")
Real = Float[np.ndarray, "..."]
"""A NumPy array of float64, of any shape."""


# Notation of the paper


def total(terms: Iterable[Term]) -> Term:
    r"""$\sum$: add up the terms, one after the other."""
    return functools.reduce(lambda a, b: a + b, terms)


def indicator(condition: bool) -> float:
    r"""$\mathbb 1(\cdot)$: one if the condition holds, else zero."""
    return 1.0 if condition else 0.0


def column(vector: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 1"]:
    r"""Read a vector as a matrix of one column, as $\otimes$ does in the paper."""
    return vector.reshape(-1, 1)


# Part I. Lemma 1: the loss, its gradient and its Hessian


def softmax(logits: Float[np.ndarray, " way"]) -> Float[np.ndarray, " way"]:
    r"""$\mathrm{softmax}(\eta)_n = e^{\eta_n} / \sum_k e^{\eta_k}$. Shapes: (N) to (N)."""
    return np.exp(logits) / total(np.exp(logits[k]) for k in range(len(logits)))


def probabilities(
    W: Float[np.ndarray, "way feature"], phi: Float[np.ndarray, "support feature"]
) -> Float[np.ndarray, "support way"]:
    r"""$\mathbf p_m = \mathrm{softmax}(\mathbf W \phi_m)$ (below eq. 9). Shape (M, N)."""
    M = len(phi)
    return np.stack([softmax(W @ phi[m]) for m in range(M)])


def curvatures(p: Float[np.ndarray, "support way"]) -> Float[np.ndarray, "support way way"]:
    r"""$\mathbf A_m = (\mathrm{diag}(\mathbf p_m) - \mathbf p_m \mathbf p_m^\top) / M$ (Lemma 1). Shape (M, N, N)."""
    M = len(p)
    return np.stack([(np.diag(p[m]) - np.outer(p[m], p[m])) / M for m in range(M)])


def cross_entropy_gradient(
    W: Float[np.ndarray, "way feature"],
    phi: Float[np.ndarray, "example feature"],
    y: Float[np.ndarray, "example way"],
) -> Float[np.ndarray, "way feature"]:
    r"""$\nabla\mathcal L = \frac1M \sum_m (\mathbf p_m - \mathbf y_m) \phi_m^\top$ (eq. 9). Shape (N, d).

    On the query examples, at $\mathbf W(T)$, this is the matrix $\mathbf V(T)$ of Propositions 5 and 6.
    """
    M = len(phi)
    p = probabilities(W, phi)
    return total(np.outer(p[m] - y[m], phi[m]) for m in range(M)) / M


def gradient(
    W: Float[np.ndarray, "way feature"],
    W_0: Float[np.ndarray, "way feature"],
    phi: Float[np.ndarray, "support feature"],
    y: Float[np.ndarray, "support way"],
    lam: float,
) -> Float[np.ndarray, "way feature"]:
    r"""Gradient of the regularised loss (Lemma 1). Shape (N, d).

    $$ \nabla\mathcal L = \frac1M \sum_{m=1}^M (\mathbf p_m - \mathbf y_m) \phi_m^\top
       + \lambda (\mathbf W - \mathbf W_0) $$
    """
    return cross_entropy_gradient(W, phi, y) + lam * (W - W_0)


def hessian(
    W: Float[np.ndarray, "way feature"], phi: Float[np.ndarray, "support feature"], lam: float
) -> Float[np.ndarray, "way*feature way*feature"]:
    r"""$\nabla^2\mathcal L = \sum_m \mathbf A_m \otimes \phi_m \phi_m^\top + \lambda \mathbf I$ (Lemma 1). (Nd, Nd)."""
    M = len(phi)
    A = curvatures(probabilities(W, phi))
    return total(np.kron(A[m], np.outer(phi[m], phi[m])) for m in range(M)) + lam * np.eye(W.size)


# The state, and Propositions 1, 2, 3: its rates, and what is rebuilt from it


class State(NamedTuple):
    r"""What Algorithm 2 integrates: $\mathbf s_m(t)$, $\mathbf B_t[i,j]$ and $\mathbf z_t[i,j,m]$."""

    s: Float[np.ndarray, "support way"]
    B: Float[np.ndarray, "support support way way"]
    z: Float[np.ndarray, "support support support way"]


def initial_state(M: int, N: int) -> State:
    r"""$\mathbf s_m(0) = \mathbf 0$, $\mathbf B_0[i,j] = \mathbf 0$, $\mathbf z_0[i,j,m] = \mathbf 0$."""
    return State(np.zeros((M, N)), np.zeros((M, M, N, N)), np.zeros((M, M, M, N)))


def weights(
    s: Float[np.ndarray, "support way"],
    W_0: Float[np.ndarray, "way feature"],
    phi: Float[np.ndarray, "support feature"],
) -> Float[np.ndarray, "way feature"]:
    r"""$\mathbf W(t) = \mathbf W_0 - \sum_m \mathbf s_m(t) \phi_m^\top$ (Proposition 1). Shape (N, d)."""
    M = len(phi)
    return W_0 - total(np.outer(s[m], phi[m]) for m in range(M))


def rate_of_s(
    s: Float[np.ndarray, "support way"],
    p: Float[np.ndarray, "support way"],
    y: Float[np.ndarray, "support way"],
    lam: float,
) -> Float[np.ndarray, "support way"]:
    r"""Proposition 1. Shape (M, N).

    $$ \frac{d\mathbf s_m}{dt} = \frac1M (\mathbf p_m(t) - \mathbf y_m) - \lambda\mathbf s_m(t) $$
    """
    M = len(s)
    return np.stack([(p[m] - y[m]) / M - lam * s[m] for m in range(M)])


def rate_of_B(
    B: Float[np.ndarray, "support support way way"],
    A: Float[np.ndarray, "support way way"],
    phi: Float[np.ndarray, "support feature"],
    lam: float,
) -> Float[np.ndarray, "support support way way"]:
    r"""Proposition 2; eq. 11 for $\lambda = 0$. Shape (M, M, N, N).

    $$ \frac{d\mathbf B_t[i,j]}{dt} = \mathbb 1(i = j) \mathbf A_i(t) - \lambda\mathbf B_t[i,j]
       - \mathbf A_i(t) \sum_{m=1}^M (\phi_i^\top\phi_m) \mathbf B_t[m,j] $$
    """
    M = len(phi)
    rate = np.zeros_like(B)
    for i in range(M):
        for j in range(M):
            pulled_back = total((phi[i] @ phi[m]) * B[m, j] for m in range(M))
            rate[i, j] = indicator(i == j) * A[i] - lam * B[i, j] - A[i] @ pulled_back
    return rate


def rate_of_z(
    z: Float[np.ndarray, "support support support way"],
    s: Float[np.ndarray, "support way"],
    A: Float[np.ndarray, "support way way"],
    phi: Float[np.ndarray, "support feature"],
    lam: float,
) -> Float[np.ndarray, "support support support way"]:
    r"""Proposition 3, corrected: the term in $\lambda$ stands outside $\mathbf A_i$. Shape (M, M, M, N).

    $$ \frac{d\mathbf z_t[i,j,m]}{dt} = -\mathbf A_i(t) \Bigl[ \mathbb 1(i = j) \mathbf s_m(t)
       + \mathbb 1(i = m) \mathbf s_j(t) + \sum_{k=1}^M (\phi_i^\top\phi_k) \mathbf z_t[k,j,m] \Bigr]
       - \lambda\mathbf z_t[i,j,m] $$

    In the proof, $-\nabla^2\mathcal L$ is applied to $-\sum_{ij} \mathbf z_t[i,j,m] \phi_j^\top \otimes \phi_i$; its
    part $-\lambda\mathbf I$ multiplies each $\mathbf z_t[i,j,m]$ by $\lambda$ alone.
    """
    M = len(phi)
    rate = np.zeros_like(z)
    for i in range(M):
        for j in range(M):
            for m in range(M):
                pulled_back = total((phi[i] @ phi[k]) * z[k, j, m] for k in range(M))
                bracket = indicator(i == j) * s[m] + indicator(i == m) * s[j] + pulled_back
                rate[i, j, m] = -A[i] @ bracket - lam * z[i, j, m]
    return rate


def rate_of_z_as_printed(
    z: Float[np.ndarray, "support support support way"],
    s: Float[np.ndarray, "support way"],
    A: Float[np.ndarray, "support way way"],
    phi: Float[np.ndarray, "support feature"],
    lam: float,
) -> Float[np.ndarray, "support support support way"]:
    r"""Proposition 3 as printed: right for $\lambda = 0$ only. Shape (M, M, M, N).

    $$ \frac{d\mathbf z_t[i,j,m]}{dt} = -\mathbf A_i(t) \Bigl[ \mathbb 1(i = j) \mathbf s_m(t)
       + \mathbb 1(i = m) \mathbf s_j(t) + \lambda\mathbf z_t[i,j,m]
       + \sum_{k=1}^M (\phi_i^\top\phi_k) \mathbf z_t[k,j,m] \Bigr] $$
    """
    M = len(phi)
    rate = np.zeros_like(z)
    for i in range(M):
        for j in range(M):
            for m in range(M):
                pulled_back = total((phi[i] @ phi[k]) * z[k, j, m] for k in range(M))
                bracket = indicator(i == j) * s[m] + indicator(i == m) * s[j] + lam * z[i, j, m] + pulled_back
                rate[i, j, m] = -A[i] @ bracket
    return rate


def jacobian_wrt_W_0(
    B: Float[np.ndarray, "support support way way"], phi: Float[np.ndarray, "support feature"]
) -> Float[np.ndarray, "way*feature way*feature"]:
    r"""Proposition 2, eq. 10. Shape (Nd, Nd).

    $$ \frac{d\mathbf W(t)}{d\mathbf W_0} = \mathbf I - \sum_{i=1}^M \sum_{j=1}^M \mathbf B_t[i,j] \otimes
       \phi_i \phi_j^\top $$
    """
    M, d = phi.shape
    N = B.shape[-1]
    return np.eye(N * d) - total(np.kron(B[i, j], np.outer(phi[i], phi[j])) for i in range(M) for j in range(M))


def jacobian_wrt_phi(
    m: int,
    state: State,
    W_0: Float[np.ndarray, "way feature"],
    phi: Float[np.ndarray, "support feature"],
) -> Float[np.ndarray, "way*feature feature"]:
    r"""Proposition 3, eq. 12. Shape (Nd, d), for one support example $m$.

    $$ \frac{d\mathbf W(t)}{d\phi_m} = -\Bigl[ \mathbf s_m(t) \otimes \mathbf I_d
       + \sum_{i=1}^M \mathbf B_t[i,m] \mathbf W_0 \otimes \phi_i
       + \sum_{i=1}^M \sum_{j=1}^M \mathbf z_t[i,j,m] \phi_j^\top \otimes \phi_i \Bigr] $$
    """
    s, B, z = state
    M, d = phi.shape
    first = np.kron(column(s[m]), np.eye(d))
    second = total(np.kron(B[i, m] @ W_0, column(phi[i])) for i in range(M))
    third = total(np.kron(np.outer(z[i, j, m], phi[j]), column(phi[i])) for i in range(M) for j in range(M))
    return -(first + second + third)


# Algorithms 2 and 6: the dynamical systems


def dynamics(
    state: State,
    W_0: Float[np.ndarray, "way feature"],
    phi: Float[np.ndarray, "support feature"],
    y: Float[np.ndarray, "support way"],
    lam: float,
    rate_of_z: Callable[..., Real] = rate_of_z,
) -> State:
    r"""Algorithm 2, with the terms in $\lambda$ of Propositions 1 to 3, which the paper's listing leaves out.

    Every rate depends on time only through $\mathbf p_m(t) = \mathrm{softmax}(\mathbf W(t) \phi_m)$ and the state.
    """
    s, B, z = state
    p = probabilities(weights(s, W_0, phi), phi)
    A = curvatures(p)
    return State(rate_of_s(s, p, y, lam), rate_of_B(B, A, phi, lam), rate_of_z(z, s, A, phi, lam))


def dynamics_for_adaptation(
    s: Float[np.ndarray, "support way"],
    W_0: Float[np.ndarray, "way feature"],
    phi: Float[np.ndarray, "support feature"],
    y: Float[np.ndarray, "support way"],
    lam: float,
) -> Float[np.ndarray, "support way"]:
    r"""Algorithm 6: the first of the three rates, which needs neither $\mathbf B$ nor $\mathbf z$. Shape (M, N)."""
    return rate_of_s(s, probabilities(weights(s, W_0, phi), phi), y, lam)


def rk4_step(rate: Callable[[Pytree], Pytree], state: Pytree, h: float | Float[Array, ""]) -> Pytree:
    r"""One step $h$ of the classical Runge-Kutta method for $\dot x = f(x)$.

    $$ k_1 = f(x), \quad k_2 = f(x + \tfrac h2 k_1), \quad k_3 = f(x + \tfrac h2 k_2), \quad k_4 = f(x + h k_3),
       \quad x \leftarrow x + \tfrac h6 (k_1 + 2 k_2 + 2 k_3 + k_4) $$

    The NumPy state of Algorithm 2 and the JAX weights of eq. 8 both take this very step. Then Propositions 1 to 3 hold
    to round-off, not only to the accuracy of the method: what they rebuild is affine in the state, and a Runge-Kutta
    step commutes with affine maps and with differentiation.
    """
    k_1 = rate(state)
    k_2 = rate(jax.tree.map(lambda x, k: x + h / 2 * k, state, k_1))
    k_3 = rate(jax.tree.map(lambda x, k: x + h / 2 * k, state, k_2))
    k_4 = rate(jax.tree.map(lambda x, k: x + h * k, state, k_3))
    return jax.tree.map(lambda x, a, b, c, d: x + h / 6 * (a + 2 * b + 2 * c + d), state, k_1, k_2, k_3, k_4)


def euler_step(rate: Callable[[Pytree], Pytree], state: Pytree, h: float | Float[Array, ""]) -> Pytree:
    r"""$x \leftarrow x + h f(x)$: one step of gradient descent with learning rate $h$ (eq. 6)."""
    return jax.tree.map(lambda x, k: x + h * k, state, rate(state))


def solve(
    W_0: Float[np.ndarray, "way feature"],
    phi: Float[np.ndarray, "support feature"],
    y: Float[np.ndarray, "support way"],
    lam: float,
    T: float,
    steps: int,
    step: Callable[..., State] = rk4_step,
    rate_of_z: Callable[..., Real] = rate_of_z,
) -> State:
    r"""The state at time $T$ (Algorithm 1).

    $$ \mathbf s(T), \mathbf B_T, \mathbf z_T \leftarrow
       \text{ODESolve}([\mathbf 0, \mathbf 0, \mathbf 0], \text{DYNAMICS}, 0, T) $$
    """
    state = initial_state(*y.shape)
    for _ in range(steps):
        state = step(lambda x: dynamics(x, W_0, phi, y, lam, rate_of_z), state, T / steps)
    return state


def solve_for_adaptation(
    W_0: Float[np.ndarray, "way feature"],
    phi: Float[np.ndarray, "support feature"],
    y: Float[np.ndarray, "support way"],
    lam: float,
    T: float,
    steps: int,
    step: Callable[..., Real] = rk4_step,
) -> Float[np.ndarray, "support way"]:
    r"""$\mathbf s(T) \leftarrow \text{ODESolve}(\mathbf 0, \text{DYNAMICS}, 0, T)$ (Algorithm 5). Shape (M, N)."""
    s = np.zeros(y.shape)
    for _ in range(steps):
        s = step(lambda x: dynamics_for_adaptation(x, W_0, phi, y, lam), s, T / steps)
    return s


# Proposition 4: the meta-gradient of the horizon


def meta_gradient_of_T(
    V: Float[np.ndarray, "way feature"], gradient_train: Float[np.ndarray, "way feature"]
) -> np.float64:
    r"""Proposition 4, eq. 13. A scalar.

    $$ \frac{d\mathcal L^{\text{test}}}{dT} = -\Bigl[\frac{\partial\mathcal L^{\text{test}}}{\partial\mathbf W(T)}
       \Bigr]^\top \frac{\partial\mathcal L^{\text{train}}}{\partial\mathbf W(T)} $$

    `gradient_train` is the gradient that the flow follows, with its term $\lambda(\mathbf W(T) - \mathbf W_0)$, see
    `gradient`; `V` is the plain `cross_entropy_gradient` of the query examples.
    """
    N, d = V.shape
    return -total(V[k, x] * gradient_train[k, x] for k in range(N) for x in range(d))


def meta_gradient_of_T_as_printed(
    V: Float[np.ndarray, "way feature"], gradient_train: Float[np.ndarray, "way feature"]
) -> np.float64:
    r"""Algorithm 1 as printed: Proposition 4 without its sign. A scalar.

    $$ \nabla_\tau T \leftarrow (\partial_{\mathbf W(T)} \mathcal L_\tau^{\text{test}})^\top
       (\partial_{\mathbf W(T)} \mathcal L_\tau^{\text{train}}) $$
    """
    N, d = V.shape
    return total(V[k, x] * gradient_train[k, x] for k in range(N) for x in range(d))


# Propositions 5 and 6, Algorithms 3 and 4: the other meta-gradients


def vector_jacobian_product(
    V: Float[np.ndarray, "way feature"], jacobian: Float[np.ndarray, "way*feature n"]
) -> Float[np.ndarray, " n"]:
    r"""$\mathrm{Vec}(\mathbf V)^\top \mathbf J$ (Appendix C): what the projections compute without $\mathbf J$."""
    return V.reshape(-1) @ jacobian


def matrix_C(
    V: Float[np.ndarray, "way feature"],
    B: Float[np.ndarray, "support support way way"],
    phi: Float[np.ndarray, "support feature"],
) -> Float[np.ndarray, "support way"]:
    r"""$\mathbf C_j = \sum_i \phi_i^\top \mathbf V(T)^\top \mathbf B_T[i,j]$ (Proposition 5). Shape (M, N)."""
    M = len(phi)
    return np.stack([total(phi[i] @ V.T @ B[i, j] for i in range(M)) for j in range(M)])


def matrix_D(
    V: Float[np.ndarray, "way feature"],
    z: Float[np.ndarray, "support support support way"],
    phi: Float[np.ndarray, "support feature"],
) -> Float[np.ndarray, "support support"]:
    r"""$\mathbf D_{m,j} = \sum_i \mathbf z_T[i,j,m]^\top \mathbf V(T) \phi_i$ (Proposition 6). Shape (M, M)."""
    M = len(phi)
    return np.array([[total(z[i, j, m] @ V @ phi[i] for i in range(M)) for j in range(M)] for m in range(M)])


def project_onto_W_0(
    V: Float[np.ndarray, "way feature"],
    B: Float[np.ndarray, "support support way way"],
    phi: Float[np.ndarray, "support feature"],
) -> Float[np.ndarray, "way feature"]:
    r"""$\mathbf V(T) - \mathbf C^\top\phi$ (Proposition 5, Algorithm 3): the meta-gradient of $\mathbf W_0$. (N, d)."""
    return V - matrix_C(V, B, phi).T @ phi


def project_onto_phi(
    m: int,
    V: Float[np.ndarray, "way feature"],
    state: State,
    W_0: Float[np.ndarray, "way feature"],
    phi: Float[np.ndarray, "support feature"],
) -> Float[np.ndarray, " feature"]:
    r"""Proposition 6, Algorithm 4: the meta-gradient of the support embedding $\phi_m$. Shape (d).

    $$ -\bigl[ \mathbf s_m(T)^\top \mathbf V(T) + \mathbf C_m \mathbf W_0 + \mathbf D_m\phi \bigr] $$

    It is complete. Algorithm 1 adds $\partial_{\phi_m} \mathcal L_\tau^{\text{test}}$, which vanishes: at given
    $\mathbf W(T)$ the outer loss does not depend on the support embeddings.
    """
    s, B, z = state
    return -(s[m] @ V + matrix_C(V, B, phi)[m] @ W_0 + matrix_D(V, z, phi)[m] @ phi)


def query_embedding_gradient(
    W: Float[np.ndarray, "way feature"],
    phi: Float[np.ndarray, "query feature"],
    y: Float[np.ndarray, "query way"],
) -> Float[np.ndarray, "query feature"]:
    r"""$\partial\mathcal L^{\text{test}} / \partial\phi_q = (\mathbf p_q - \mathbf y_q)^\top \mathbf W(T) / Q$. (Q, d).

    Not displayed in the paper: the direct term that Appendix C calls non-zero. It belongs to the query embeddings.
    """
    Q = len(phi)
    p = probabilities(W, phi)
    return np.stack([(p[q] - y[q]) @ W / Q for q in range(Q)])


# Part II. The loss and the flow in JAX, to be differentiated automatically


def cross_entropy(
    W: Float[Array, "way feature"], phi: Float[Array, "example feature"], y: Float[Array, "example way"]
) -> Float[Array, ""]:
    r"""$-\frac1M \sum_m \mathbf y_m^\top \log\mathbf p_m$ (eq. 14 with $\lambda = 0$): the outer loss. A scalar."""
    return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(phi @ W.T, axis=-1), axis=-1))


def regularised_loss(
    W: Float[Array, "way feature"],
    W_0: Float[Array, "way feature"],
    phi: Float[Array, "support feature"],
    y: Float[Array, "support way"],
    lam: float | Float[Array, ""],
) -> Float[Array, ""]:
    r"""The inner loss, eq. 14. A scalar.

    $$ \mathcal L(\mathbf W) = -\frac1M \sum_{m=1}^M \mathbf y_m^\top \log\mathbf p_m
       + \frac\lambda2 \lVert\mathbf W - \mathbf W_0\rVert_F^2 $$
    """
    return cross_entropy(W, phi, y) + lam / 2 * jnp.sum((W - W_0) ** 2)


def flow(
    W_0: Float[Array, "way feature"],
    phi: Float[Array, "support feature"],
    y: Float[Array, "support way"],
    lam: float | Float[Array, ""],
    T: float | Float[Array, ""],
    steps: int,
    step: Callable[..., Float[Array, "way feature"]] = rk4_step,
) -> Float[Array, "way feature"]:
    r"""$\mathbf W(T)$ from the gradient flow, eq. 8. Shape (N, d).

    $$ \frac{d\mathbf W}{dt} = -\nabla\mathcal L(\mathbf W(t)), \qquad \mathbf W(0) = \mathbf W_0 $$

    The gradient is JAX's own and the integrator moves $\mathbf W$ itself: nothing is decomposed.
    """

    def rate(W: Float[Array, "way feature"]) -> Float[Array, "way feature"]:
        return -jax.grad(regularised_loss)(W, W_0, phi, y, lam)

    # A scan, since a loop unrolled under automatic differentiation takes long to compile.
    return jax.lax.scan(lambda W, _: (step(rate, W, T / steps), None), jnp.asarray(W_0), length=steps)[0]
