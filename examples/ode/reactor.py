"""A batch reactor in which A becomes B, and B becomes C; both reactions heat it.

The yield of B is what is wanted of it: too little heat or time leaves A, too much makes C. The equations have no
solution in closed form; SciPy integrates them in some milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy.integrate import solve_ivp

RATES = 2e6, 1e8  # 1/s, of A -> B and B -> C
BARRIERS = 5.5e4, 7.5e4  # J/mol
HEATS = 8.0, 5.0  # K for each mol/L that reacts
GAS_CONSTANT = 8.314462618  # J/(mol K)


def slopes(_time: float, state: np.ndarray) -> list[float]:
    """Return the derivatives of the concentrations of A and B (mol/L) and of the temperature (K)."""
    a, b, temperature = state
    first, second = (
        rate * math.exp(-barrier / (GAS_CONSTANT * temperature)) for rate, barrier in zip(RATES, BARRIERS, strict=True)
    )
    return [-first * a, first * a - second * b, HEATS[0] * first * a + HEATS[1] * second * b]


def yield_of_b(point: Mapping[str, float]) -> float:
    """Return the share of A that is B at the end.

    Parameters
    ----------
    point
        ``temperature`` at the start (K), ``time`` (s), and the ``concentration`` of A at the start (mol/L).
    """
    start = [point["concentration"], 0.0, point["temperature"]]
    solved = solve_ivp(slopes, (0.0, point["time"]), start, method="LSODA", rtol=1e-8, atol=1e-10)
    return float(solved.y[1, -1] / point["concentration"])
