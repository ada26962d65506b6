"""Whether the picks of a query strategy are those of its definition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from alcore import Phase
from alcore_testing.contract import requires
from alcore_testing.drivers import ToyDriver, prepare
from alcore_testing.query_base import QueryBase, ask_for, candidates_of, next_step
from alcore_testing.rows import rows_at_once
from alcore_testing.toys import CASES, DTYPES, Case

_SAMPLES, _PICKS = 40, 4


class QueryOracle(QueryBase):
    """Each pick is compared with what the definition gives, computed in the plainest way."""

    oracle: ClassVar[Any] = None
    """``oracle(driver, candidates, asked)``, see `test_picks_are_those_of_the_oracle`; None leaves it out."""

    @requires("oracle")
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_picks_are_those_of_the_oracle(self, tmp_path: Path, dtype: torch.dtype) -> None:
        """In three steps, in single and in double precision, the picks are what the contract's ``oracle`` says.

        The labels of the first step are outstanding in the others.

        It is called as ``oracle(driver, candidates, asked)``: a driver of fresh parts that stands where the strategy
        chose, so that nothing the strategy did to what it was given can be found there; the ids it chose from; and what
        it asked for, a list of `AskedRequest`. It returns the expected ids, best first; or it compares by itself, for
        instance with `assert_best_first`, and returns None.
        """
        for case in filter(self.claims, CASES):
            driver, twin = (self._driver_in(tmp_path, case, dtype) for _ in range(2))
            with rows_at_once(16):
                for place in range(3):
                    asked = driver.choose()
                    twin.position.phase = Phase.QUERY
                    expected = self.oracle(twin, candidates_of(twin), asked)
                    twin.position.phase = None
                    chosen = [int(one.request.item) for one in asked]
                    assert len(set(chosen)) == _PICKS, f"with {case} it asked for {chosen}"
                    if expected is not None:
                        assert chosen == list(expected), f"with {case} it asked for {chosen}, not for {expected}"
                    ask_for(twin, chosen)
                    for one in (driver, twin):
                        next_step(one, chosen, label=place != 0)

    def _driver_in(self, folder: Path, case: Case, dtype: torch.dtype) -> ToyDriver:
        strategy, pool = self.make(max_samples=_PICKS), self.pool_in(case, dtype, samples=_SAMPLES)
        return prepare(self.build(folder, strategy, case=case, pool=pool, dtype=dtype))


def assert_best_first(
    asked: Sequence[Any], scores: Mapping[int, float], *, rtol: float = 1e-9, atol: float = 1e-12
) -> None:
    """Raise AssertionError unless these are the samples with the highest scores, best first.

    Parameters
    ----------
    asked
        Requests, as ``Driver.choose`` returns them. Scores that they hold are compared too.
    scores
        The score of each candidate, by id, computed in the plainest way.
    rtol, atol
        Scores that differ by less, in proportion to the larger and absolutely, count as equal.
    """
    best = sorted(scores.values(), reverse=True)
    for place, one in enumerate(asked):
        score = scores[one.sample]
        assert score == pytest.approx(best[place], rel=rtol, abs=atol), (
            f"pick {place} is sample {one.sample}, whose score is {score}; the best one left has {best[place]}"
        )
        if one.score is not None:
            assert one.score == pytest.approx(score, rel=rtol, abs=atol), f"of sample {one.sample}"
