"""Start designs: a few points that cover a space before anything is known of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal, get_args

import numpy as np

from alcore.errors import UsageError, check_choice
from alcore_space.design_space import Space
from alcore_space.sequence import Sobol
from alcore_space.variables import Array

Design = Literal["sobol", "latin-hypercube", "max-min"]
"""The names of designs."""

MOST_TRIED = 2**22
"""How many points are tried for some that satisfy the constraints, before a space counts as empty."""

_BLOCK = 2**14
_LARGEST_HYPERCUBE = 2**20
_MOST_COMPARED = 2**14  # points that max-min chooses from

Points = Callable[[Array], Array]


def allowed_points(space: Space, points: Points, most: int, tried: int = MOST_TRIED) -> Iterator[tuple[Array, Array]]:
    """Yield the numbers of the points of a sequence that satisfy the constraints, and these points, block by block.

    Parameters
    ----------
    space
        The space.
    points
        Gives points of the unit cube by number, such as `Sobol`.
    most
        How many numbers the sequence has.
    tried
        How many are tried at most.
    """
    for start in range(0, min(most, tried), _BLOCK):
        ids = np.arange(start, min(start + _BLOCK, most, tried))
        unit = points(ids)
        if space.constraints:
            keep = space.allowed(space.values(unit))
            ids, unit = ids[keep], unit[keep]
        if len(ids):
            yield ids, unit


def first_points(space: Space, points: Points, n: int, most: int) -> Array:
    """Return the first n points of a sequence that satisfy the constraints, or fewer: float64, shape (k, variables)."""
    parts: list[Array] = []
    for _, unit in allowed_points(space, points, most) if n else ():
        parts.append(unit)
        if sum(map(len, parts)) >= n:
            break
    return np.concatenate(parts)[:n] if parts else np.empty((0, len(space.variables)))


def design(space: Space, kind: Design, n: int, seed: int) -> Array:
    """Return the points of a start design: float64, shape (k, variables), in the unit cube.

    Parameters
    ----------
    space
        The space; all points satisfy its constraints.
    kind
        ``"sobol"``: the first points of a scrambled Sobol sequence. ``"latin-hypercube"``: each of n equal parts of
        each variable holds one point (McKay, Beckman and Conover 1979, Technometrics 21); with constraints, the points
        of a larger hypercube that satisfy them. ``"max-min"``: each point is the one that is farthest from those before
        it, of 16,384 points of a Sobol sequence at most (Kennard and Stone 1969, Technometrics 11); the first is in the
        middle.
    n
        How many; fewer come back where too few points are found that satisfy the constraints.
    seed
        What the scrambling and the hypercube are drawn from.
    """
    check_choice("design", "kind", kind, get_args(Design))
    sequence = Sobol(len(space.variables), (seed, 2))
    if kind == "sobol":
        return first_points(space, sequence, n, MOST_TRIED)
    if kind == "latin-hypercube":
        return _latin_hypercube(space, n, seed)
    pool = first_points(space, sequence, min(_MOST_COMPARED, max(1024, 32 * n)), MOST_TRIED)
    chosen: Array = pool[_max_min(space.scaled(pool).astype(np.float64), n)]
    return chosen


def _latin_hypercube(space: Space, n: int, seed: int) -> Array:
    rows = n
    while rows:
        unit = _hypercube(rows, len(space.variables), seed)
        keep = space.allowed(space.values(unit))
        if keep.sum() >= n or rows >= _LARGEST_HYPERCUBE:
            points: Array = unit[keep][:n]
            return points
        rows = min(_LARGEST_HYPERCUBE, math.ceil(1.2 * rows * n / max(int(keep.sum()), n / 16)))
    return np.empty((0, len(space.variables)))


def _hypercube(rows: int, dimensions: int, seed: int) -> Array:
    source = np.random.PCG64(np.random.SeedSequence([seed % 2**64, 3, rows]))
    drawn = np.asarray(source.random_raw(2 * rows * dimensions), dtype=np.uint64).reshape(2, rows, dimensions)
    order = np.argsort(drawn[0], axis=0, kind="stable")
    points: Array = (order + (drawn[1] >> np.uint64(11)) * 2.0**-53) / rows
    return points


def _max_min(inputs: Array, n: int) -> Array:
    """Return the places of n rows, each the farthest from those before it."""
    chosen: list[int] = []
    distances = -((inputs - 0.5) ** 2).sum(axis=1)  # the first is the one nearest to the middle
    for _ in range(min(n, len(inputs))):
        place = int(distances.argmax())
        apart = ((inputs - inputs[place]) ** 2).sum(axis=1)
        distances = apart if not chosen else np.minimum(distances, apart)
        chosen.append(place)
        distances[place] = -1.0
    return np.array(chosen, dtype=np.int64)


def refuse_empty(space: Space, points: Points, most: int) -> None:
    """Raise `UsageError` if no point of a sequence that is tried satisfies the constraints; say which of them fail.

    At most `MOST_TRIED` points are tried.
    """
    if not space.constraints or next(allowed_points(space, points, most), None) is not None:
        return
    ids = np.arange(min(most, 2**16))
    columns = space.values(points(ids))
    alone = [
        f"{constraint.text!r} alone by {_percent(constraint.satisfied(columns))}" for constraint in space.constraints
    ]
    raise UsageError(
        f"none of {min(most, MOST_TRIED):,} points of the space satisfies the constraints, so there is nothing to ask "
        f"for; {', '.join(alone)} of them is satisfied. Look for a wrong sign or unit, or widen the bounds. An "
        "equation between real numbers is never met, so solve it for one variable and leave that out."
    )


def _percent(satisfied: Array) -> str:
    share = float(satisfied.mean())
    return f"{share:.0%}" if share in (0, 1) or share > 0.01 else f"{share:.2%}"
