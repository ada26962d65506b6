"""The ignition delay of hydrogen in air, by Cantera: how long a hot mixture waits before it explodes.

A closed, adiabatic reactor of constant volume, with the mechanism ``h2o2.yaml`` that comes with Cantera: 10 species, 29
reactions. The delay is the time of the steepest rise of temperature. It spans almost seven decades, with a bend where
chain branching gives way to a slower path (the second explosion limit).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import cantera

LONGEST = 1.0  # s; what has not ignited by then counts as no ignition
RISE = 400.0  # K; less is no ignition


class NoIgnitionError(Exception):
    """The mixture does not ignite in time."""


@functools.cache
def mechanism() -> Any:
    """Return the gas, which is read from its file once a process."""
    return cantera.Solution("h2o2.yaml")


def log10_delay(point: Mapping[str, float]) -> float:
    """Return the decimal logarithm of the ignition delay in seconds.

    Parameters
    ----------
    point
        Temperature ``T`` (K), pressure ``p`` (Pa) and equivalence ratio ``phi``: 1 has just the oxygen that it needs.

    Raises
    ------
    NoIgnitionError
        For a mixture that does not ignite within a second.
    """
    gas = mechanism()
    gas.set_equivalence_ratio(point["phi"], "H2", "O2:1, N2:3.76")
    gas.TP = point["T"], point["p"]
    reactor = cantera.IdealGasReactor(gas, clone=False)
    network = cantera.ReactorNet([reactor])
    time, temperature, steepest, delay = 0.0, point["T"], 0.0, 0.0
    while time < LONGEST:
        network.step()
        slope = (reactor.T - temperature) / (network.time - time)
        time, temperature = network.time, reactor.T
        if slope > steepest:
            steepest, delay = slope, time
        if temperature > point["T"] + RISE and slope < 0.01 * steepest:
            return math.log10(delay)
    raise NoIgnitionError(f"no ignition in {LONGEST:g} s")
