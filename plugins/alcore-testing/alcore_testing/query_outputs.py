"""What a query strategy makes of a learner's outputs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from alcore.errors import QueryError, UsageError
from alcore_testing.drivers import ask, prepare
from alcore_testing.query_base import QueryBase, candidates_of
from alcore_testing.toys import CASES, Case, toy_loss

BALLAST = 2**22  # weights: the larger a learner, the fewer samples are in a chunk, here 32 of 200


class QueryOutputs(QueryBase):
    """What is claimed works, at any scale; what is not claimed is refused before anything is trained."""

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_outputs_are_taken_or_refused(self, tmp_path: Path, case: Case) -> None:
        """Outputs that are claimed give picks; others are a UsageError before step 0."""
        driver = self.build(tmp_path, case=case)
        if self.claims(case):
            asked = ask(prepare(driver))
            assert len(asked) == len(set(asked)) == 5
            return
        with pytest.raises(UsageError):
            driver.run(toy_loss)
        assert not driver.log_dir.exists(), "refused, but only after the run had begun"

    @pytest.mark.parametrize("scale", [1e-20, 1e12], ids=["tiny", "huge"])
    def test_extreme_values_give_picks(self, tmp_path: Path, scale: float) -> None:
        """Inputs, features and outputs may be tiny or huge, and probabilities exactly 0 and 1."""
        for case in filter(self.claims, CASES):
            driver = prepare(self.build(tmp_path, case=case, pool=self.pool(case, scale=scale)))
            asked = ask(driver)
            assert len(asked) == len(set(asked)) == 5, f"with {case}"
            scores = [one.score for one in driver.query_queue.asked if one.score is not None]
            assert all(score == score for score in scores), f"NaN among the scores with {case}: {scores}"

    def test_nan_outputs_are_refused_by_sample_id(self, tmp_path: Path) -> None:
        """A sample for which the learner returns NaN is named in a QueryError, unless outputs make no difference."""
        driver = prepare(self.build(tmp_path))
        probed = candidates_of(driver)[:2]
        asked = ask(driver)
        bad = next(one for one in asked if one not in probed)
        inputs = self.pool(self.case()).inputs(torch.arange(40))
        inputs[bad] = torch.nan
        broken = prepare(self.build(tmp_path, pool=self.pool(self.case(), inputs=inputs)))
        message, again = "", asked
        try:
            again = ask(broken)
        except QueryError as error:
            message = f"{error} "
        assert not message or re.search(rf"\b{bad}\b", message), f"sample {bad} isn't named: {message}"
        assert again == asked, f"sample {bad} has NaN outputs, and nobody is told"

    def test_picks_do_not_depend_on_chunks(self, tmp_path: Path) -> None:
        """Picks are the same whether the pool goes through the learner at once or in parts."""
        picks = []
        for ballast in (0, BALLAST):
            learner = self.learner(self.case())
            if isinstance(learner, torch.nn.Module):
                learner.register_parameter("ballast", torch.nn.Parameter(torch.zeros(ballast), requires_grad=False))
            picks.append(self.picks(tmp_path, 12, learner=learner, pool=self.pool(self.case(), samples=200)))
        assert picks[0] == picks[1]
