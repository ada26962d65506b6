"""Query strategies that choose by score per expected cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from alcore_uq import ClassifierUQQuery

from alcore import Label, TensorPool
from alcore.errors import QueryError
from alcore.inference import Features
from alcore.strategies import BaseLabel, BaseQuery, PointwiseQuery, SetQuery

SCORES = torch.tensor([4.0, 3.0, 3.0, 1.0, 0.0])
COSTS = torch.tensor([8.0, 1.0, 2.0, 1.0, 0.0])


class ByInput(PointwiseQuery):
    """The outputs are the scores; an estimate must not be used, since it knows nothing of costs."""

    def score(self, outputs: Any) -> torch.Tensor:
        return outputs.flatten()

    def estimate(self, outputs: Any) -> tuple[torch.Tensor, float] | None:
        return outputs.flatten(), 0.0


class Together(SetQuery):
    needs_labeled = needs_features = False

    def choose(
        self, candidates: Features, labeled: Features, n: int, costs: torch.Tensor | None = None
    ) -> torch.Tensor:
        worth = candidates.outputs.flatten() if costs is None else candidates.outputs.flatten() / costs.clamp(min=0.1)
        return worth.argsort(descending=True, stable=True)[:n]


class Blind(BaseQuery):
    max_samples = 2

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        query_queue.put_many([0, 1])


class Nobody(BaseLabel):
    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        for request in queue_to_label.get_many(queue_to_label.qsize()):
            serialize_queue.put(Label(request, 0))


@pytest.fixture
def picks(build: Any) -> Any:
    """Return a function that runs one step on the five samples and returns what was asked for, and its scores."""

    def run(query: Any, per_cost: bool = True, **settings: Any) -> tuple[list[int], list[float]]:
        pool = TensorPool(SCORES[:, None], torch.zeros(5, dtype=torch.int64), labeled=[], costs=COSTS)
        parts = {
            "learner": torch.nn.Identity(), "train_datapool": pool, "query_strategies": [query],
            "label_strategy": Nobody(), "metrology_strategies": None, "skip_training": True,
            "max_active_learning_steps": 1, "per_cost": per_cost,
        }  # fmt: skip
        driver = build(**(parts | settings))
        driver()
        return [request.sample for request in driver.query_queue.asked], [
            request.score for request in driver.query_queue.asked
        ]

    return run


@pytest.mark.parametrize("query", [ByInput, Together])
def test_score_per_cost_decides_where_that_is_wanted(picks: Any, query: Any) -> None:
    assert picks(query(3), per_cost=False)[0] == [0, 1, 2]
    assert picks(query(3))[0] == [1, 2, 3]


def test_kept_score_is_that_per_cost_and_nothing_is_worth_nothing_even_for_free(picks: Any) -> None:
    assert picks(ByInput(5)) == ([1, 2, 3, 0, 4], [3.0, 1.5, 1.0, 0.5, 0.0])


def test_the_same_budget_buys_more_worth(picks: Any) -> None:
    asked = {per_cost: picks(ByInput(5), per_cost, budget=8.0)[0] for per_cost in (False, True)}
    worth = {per_cost: float(SCORES[samples].sum()) for per_cost, samples in asked.items()}
    assert worth[True] > worth[False]


def test_costs_are_those_of_the_label_strategy_first(picks: Any) -> None:
    lab = Nobody()
    lab.cost = lambda item: float(5 - item)  # type: ignore[attr-defined]
    assert picks(ByInput(3), label_strategy=lab)[0] == [2, 0, 1]


def test_negative_score_is_refused(picks: Any) -> None:
    class Negative(ByInput):
        def score(self, outputs: Any) -> torch.Tensor:
            return -outputs.flatten()

    with pytest.raises(QueryError, match="score of sample 0 is -4, and a negative score can't be divided by a cost"):
        picks(Negative(1))


def test_strategy_that_knows_no_costs_is_warned_of(picks: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert picks(Blind())[0] == [0, 1]
    assert "blind does not weigh scores by costs" in caplog.text
    picks(ByInput(1))
    assert "by_input" not in caplog.text


@pytest.mark.parametrize("measure", ["least_confidence", "margin", "entropy"])
def test_worth_of_an_uncertainty_is_the_same_by_one_column_and_by_two(build: Any, measure: Any, toys: Any) -> None:
    query = ClassifierUQQuery(1, measure)
    driver = build(query_strategies=[query], per_cost=True)
    logits = torch.linspace(-6, 6, 25, dtype=torch.float64)
    one, two = query.worth(logits[:, None]), query.worth(torch.stack([torch.zeros_like(logits), logits], dim=1))
    torch.testing.assert_close(one, two)
    assert float(one.min()) > 0
    order = query.score(logits[:, None]).argsort()
    assert bool((one[order].diff() >= 0).all())
    del driver
