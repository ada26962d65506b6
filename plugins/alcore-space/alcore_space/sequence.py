"""Points of the unit cube that are computed from their number: nothing is kept, and any of them comes first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from alcore.errors import UsageError
from alcore_space.variables import Array

MOST = 2**30
"""How many points a sequence has at most."""

_BITS = 30  # of the number of a point
_PLACES = 53  # bits of a coordinate, as many as a double has
_PART = 10  # bits of the number that are looked up at once


class Sobol:
    """A scrambled Sobol sequence of up to 2^30 points; any 2^k that follow a multiple of 2^k are spread evenly.

    Parameters
    ----------
    dimensions
        Of the cube, at most 21,201.
    seed
        Integers that the scrambling is drawn from; the same points on any machine.

    Notes
    -----
    Point n is the sum modulo 2 of the direction numbers of the bits of n (Sobol 1967, USSR Computational Mathematics
    and Mathematical Physics 7), in the order of n, without the Gray code. The direction numbers are those of Joe and
    Kuo (2008), SIAM Journal on Scientific Computing 30, as `torch.quasirandom.SobolEngine` has them. They are
    scrambled by a random lower triangular matrix over the bits and a random shift (Matousek 1998, Journal of Complexity
    14), to the 53 bits of a double, so that coordinates end in no pattern. Time is three table look-ups a coordinate.
    """

    def __init__(self, dimensions: int, seed: Sequence[int]) -> None:
        engine: Any = torch.quasirandom.SobolEngine
        if dimensions > engine.MAXDIM:
            raise UsageError(f"a space of {dimensions} variables; a Sobol sequence has at most {engine.MAXDIM}.")
        directions = engine(dimensions).sobolstate.numpy()  # (D, 30), bit 0 of n first
        source = np.random.PCG64(np.random.SeedSequence([word % 2**64 for word in seed]))
        raw = np.asarray(source.random_raw(dimensions * (_PLACES + 1)), dtype=np.uint64)
        bits = (directions[:, :, None] >> np.arange(_BITS - 1, -1, -1)) & 1  # (D, 30, 30), the highest bit first
        tables = np.zeros((dimensions, _BITS // _PART, 2**_PART), dtype=np.uint64)
        weights = np.uint64(1) << np.arange(_PLACES - 1, -1, -1, dtype=np.uint64)
        for dimension in range(dimensions):
            own = raw[dimension * (_PLACES + 1) : (dimension + 1) * (_PLACES + 1)]
            drawn = ((own[:_PLACES, None] >> np.arange(_BITS, dtype=np.uint64)) & np.uint64(1)).astype(np.int64)
            matrix = np.tril(drawn, -1) + np.eye(_PLACES, _BITS, dtype=np.int64)
            mixed = (bits[dimension] @ matrix.T) % 2  # (30, 53)
            numbers = (mixed.astype(np.uint64) * weights).sum(axis=1, dtype=np.uint64)
            for part in range(_BITS // _PART):
                table = tables[dimension, part]
                for place in range(_PART):
                    table[2**place : 2 ** (place + 1)] = table[: 2**place] ^ numbers[part * _PART + place]
            tables[dimension, 0] ^= own[_PLACES] >> np.uint64(64 - _PLACES)
        self._tables = tables
        self.dimensions = dimensions

    def __call__(self, ids: Array) -> Array:
        """Return points by number: float64, shape (n, dimensions), from 0 and below 1.

        Parameters
        ----------
        ids
            Int64, shape (n,), from 0 and below 2^30.
        """
        mask = 2**_PART - 1
        parts = [(ids >> (_PART * part)) & mask for part in range(_BITS // _PART)]
        values = np.empty((len(ids), self.dimensions))
        for dimension, tables in enumerate(self._tables):
            number = tables[0][parts[0]]
            for table, part in zip(tables[1:], parts[1:], strict=True):
                number ^= table[part]
            values[:, dimension] = number * 2.0**-_PLACES
        return values


class Grid:
    """All points of a finite space, each once, in an order in which neighbors are far apart.

    Parameters
    ----------
    counts
        How many values each variable has; their product is at most 2^30.
    seed
        Integers that the start of the order is drawn from.

    Notes
    -----
    Point n is the number ``(a n + b) mod P`` of the P points in lexicographic order, with a near P over the golden
    ratio and without a common divisor with P.
    """

    def __init__(self, counts: Sequence[int], seed: Sequence[int]) -> None:
        self._counts = list(counts)
        self.size = math.prod(self._counts)
        if self.size > MOST:
            raise UsageError(f"a grid of {self.size} points, more than {MOST}.")
        step = max(1, round(self.size * (math.sqrt(5) - 1) / 2))
        while math.gcd(step, self.size) > 1:
            step += 1
        source = np.random.PCG64(np.random.SeedSequence([word % 2**64 for word in seed]))
        self._step, self._first = step % self.size, int(source.random_raw()) % self.size
        self._back = pow(step, -1, self.size) if self.size > 1 else 0

    def __call__(self, ids: Array) -> Array:
        """Return points by number: float64, shape (n, variables), in the middle of the part of each value."""
        rest = (ids * self._step + self._first) % self.size
        values = np.empty((len(ids), len(self._counts)))
        for place in range(len(self._counts) - 1, -1, -1):
            count = self._counts[place]
            values[:, place] = (rest % count + 0.5) / count
            rest = rest // count
        return values

    def ids(self, unit: Array) -> Array:
        """Return the numbers of the points that places in the unit cube belong to: int64, shape (n,)."""
        number = np.zeros(len(unit), dtype=np.int64)
        for place, count in enumerate(self._counts):
            number = number * count + np.minimum((unit[:, place] * count).astype(np.int64), count - 1)
        return ((number - self._first) % self.size * self._back) % self.size
