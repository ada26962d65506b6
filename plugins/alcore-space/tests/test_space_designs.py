"""Start designs: what each is known for, and constraints that leave little."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from alcore_space import Category, Real, Space
from alcore_space import designs as module
from alcore_space.designs import Design, design
from scipy.spatial.distance import pdist

from alcore import UsageError

SQUARE = Space([Real("x", 0, 1), Real("y", 0, 1)])
TRIANGLE = Space(SQUARE.variables, ["x + 2*y < 0.5"])
MIXED = Space([*SQUARE.variables, Category("c", ("a", "b", "d"))], ["c == 'a' or x < y"])


@pytest.mark.parametrize("kind", get_args(Design))
@pytest.mark.parametrize("space", [SQUARE, TRIANGLE, MIXED], ids=["square", "triangle", "mixed"])
@pytest.mark.parametrize("n", [0, 1, 7, 40])
def test_points_satisfy_the_constraints_and_differ(kind: Any, space: Space, n: int) -> None:
    points = design(space, kind, n, 0)
    assert points.shape == (n, len(space.variables))
    assert space.allowed(space.values(points)).all() if n else True
    assert len(np.unique(points, axis=0)) == n
    assert points.tolist() == design(space, kind, n, 0).tolist()
    assert not n or points.tolist() != design(space, kind, n, 1).tolist() or (kind, n) == ("max-min", 1)


@pytest.mark.parametrize("n", [2, 9, 30])
def test_a_hypercube_has_a_point_in_each_part_of_each_variable(n: int) -> None:
    points = design(SQUARE, "latin-hypercube", n, 3)
    for column in points.T:
        assert sorted((column * n).astype(int).tolist()) == list(range(n))


def test_max_min_points_are_farthest_apart() -> None:
    apart = {kind: pdist(design(SQUARE, kind, 20, 0)).min() for kind in get_args(Design)}
    assert apart["max-min"] > 2 * max(apart["sobol"], apart["latin-hypercube"])
    assert design(SQUARE, "max-min", 1, 0)[0] == pytest.approx([0.5, 0.5], abs=0.05)


@pytest.mark.parametrize("kind", get_args(Design))
def test_an_empty_space_gives_no_points_in_bounded_time(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_TRIED", 2**15)
    monkeypatch.setattr(module, "_LARGEST_HYPERCUBE", 2**15)
    assert len(design(Space(SQUARE.variables, ["x > 2"]), kind, 5, 0)) == 0


def test_an_unknown_design_is_refused() -> None:
    with pytest.raises(UsageError, match="latin-hypercube"):
        design(SQUARE, "lhs", 5, 0)  # type: ignore[arg-type]
