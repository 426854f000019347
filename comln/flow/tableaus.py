"""Coefficients of explicit Runge-Kutta methods, as published."""

__all__ = ["DORMAND_PRINCE", "EULER", "TSITOURAS", "Tableau"]

from dataclasses import dataclass


@dataclass(frozen=True)
class Tableau:
    r"""An explicit Runge-Kutta method with an embedded error estimate; its last stage is the next step's first.

    Stages $k_i = f(y + h \sum_{j<i} a_{ij} k_j)$, new state $y + h \sum_i b_i k_i$, error estimate
    $h \sum_i e_i k_i$. The row of `stages` for the last stage equals $b$, so it is stored once, as its last entry.

    - `stages`: the rows of $a$ from the second stage on; the last row is $b$.
    - `error`: $e$, one more entry than the last row of `stages`; empty where there is no estimate and steps are fixed.
    - `stability`: length of the interval of the negative real axis on which the pair is stable.
    """

    stages: tuple[tuple[float, ...], ...]
    error: tuple[float, ...]
    stability: float


DORMAND_PRINCE = Tableau(
    stages=(
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    error=(71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    stability=3.307,
)
"""Dormand and Prince (1980), A family of embedded Runge-Kutta formulae, RK5(4)7M. The pair that the paper used."""

TSITOURAS = Tableau(
    stages=(
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
        (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774),
    ),
    error=(
        0.001780011052225777,
        0.0008164344596567469,
        -0.007880878010261995,
        0.1447110071732629,
        -0.5823571654525552,
        0.45808210592918697,
        -1 / 66,
    ),
    stability=3.5,
)
"""Tsitouras (2011), Runge-Kutta pairs of order 5(4) satisfying only the first column simplifying assumption."""

EULER = Tableau(stages=((1.0,),), error=(), stability=2.0)
"""Euler's explicit method: one gradient-descent step. It has no error estimate."""
