"""The start design in a run, and the refinement of what another strategy chose."""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from alcore_space import DesignQuery, RefinedQuery, space

from alcore import BaseLabel, Driver, Failed, Label, UsageError
from alcore import config as c
from alcore.errors import Interrupted
from alcore.inference import evaluate
from alcore.plugins import installed, load_factory
from alcore.pools import TensorPool
from alcore.store import Run

TABLES: dict[str, Any] = {
    "x": {"low": 0, "high": 1},
    "y": {"low": 0, "high": 1},
    "z": {"low": 0, "high": 1},
    "k": {"type": "integer", "low": 1, "high": 5},
    "c": {"type": "category", "choices": ["a", "b"]},
}
RULES = ("x + y < 1.5", "c == 'a' or k > 2")


class Solve(BaseLabel):
    """Computes the label of the values that a labeler is given."""

    idempotent = True

    def __init__(self, fails: Any = lambda point: False) -> None:
        self.fails, self.solved = fails, []

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        pool = self.driver.choice_pool
        while not queue_to_label.empty():
            request = queue_to_label.get_request()
            point = request.item
            if isinstance(point, int):
                point = {name: column[0] for name, column in pool.shown([point]).items()}
            assert pool.space.fault(point) is None
            self.solved.append(point)
            if self.fails(point):
                serialize_queue.put(Failed(request, "no solution", "infeasible"))
            else:
                value = point["x"] ** 2 + point["y"] * point["k"] + (point["c"] == "a")
                serialize_queue.put(Label(request, float(value)))


class ToCorner:
    """A strategy that scores candidates by their inputs alone: those near the far corner first."""

    def __init__(self, max_samples: int = 10) -> None:
        self.max_samples = max_samples

    def attach(self, driver: Any) -> None:
        self.driver = driver

    def sample(self, query_queue: Any) -> None:
        ids = torch.cat(list(self.driver.candidates()))
        scores = self.driver.choice_pool.inputs(ids)[:, :3].sum(dim=1)
        best = scores.topk(min(self.driver.wanted(self.max_samples), len(ids)))
        query_queue.put_many(ids[best.indices].tolist(), best.values.tolist())


@pytest.fixture
def build(tmp_path: Path) -> Any:
    def make(query: Any, label: Any = None, folder: str = "runs", given: Any = (), **settings: Any) -> Driver:
        data = space(TABLES, **{"constraints": RULES, "candidates_per_step": 2000, "initial": 8, **dict(given)})
        with torch.random.fork_rng():
            torch.manual_seed(0)
            learner = torch.nn.Sequential(
                torch.nn.Linear(data.info.features, 8), torch.nn.SiLU(), torch.nn.Linear(8, 1)
            )
        settings = {"max_active_learning_steps": 4, "run_id": "r", "seed": 0, **settings}
        return Driver(
            c.DriverConfig(8, root_log_dir=str(tmp_path / folder), device="cpu", **settings),
            learner,
            c.StrategiesConfig([query], queue.Queue, label or Solve(), None, start_strategy=DesignQuery()),
            c.TrainingConfig(data.train, max_training_epochs=2, val_datapool=data.val),
        )

    return make


def asked(driver: Driver) -> list[list[Any]]:
    steps: list[list[Any]] = [[] for _ in range(4)]
    for request in Run(driver.log_dir).requests():
        steps[request["step"]].append(request)
    return steps


def test_a_run_begins_with_points_to_measure_on_and_the_design(build: Any) -> None:
    driver = build(ToCorner(5), given={"validation": 6})
    driver.run()
    assert driver.stop_reason == "all 4 steps are done"
    steps = asked(driver)
    assert [request["sample"] for request in steps[0]] == driver.train_datapool.start_ids
    assert [len(step) for step in steps] == [14, 5, 5, 5]
    assert (len(driver.train_datapool), len(driver.val_datapool)) == (8 + 15, 6)
    parts = [{request["sample"] // 2000 for request in step} for step in steps[1:]]
    assert parts == [{1}, {2}, {3}], "each step looks at candidates of its own"


@pytest.mark.usefixtures("corner")
def test_a_run_that_was_interrupted_and_resumed_is_the_same(build: Any) -> None:
    whole = build(RefinedQuery("random", max_samples=3, neighbors=5), folder="whole")
    whole.run()
    cut = build(RefinedQuery("random", max_samples=3, neighbors=5), folder="cut")
    cut.label_strategy.fails = lambda point: cut.interrupt() if len(cut.label_strategy.solved) == 15 else False
    with pytest.raises(Interrupted):
        cut.run()
    resumed = build(RefinedQuery("random", max_samples=3, neighbors=5), folder="cut")
    resumed.restore()
    resumed.run()
    assert asked(resumed) == asked(whole)
    assert resumed.train_datapool.digest() == whole.train_datapool.digest()


def test_points_of_the_start_that_have_no_solution_are_left_out(build: Any) -> None:
    driver = build(ToCorner(2), Solve(lambda point: point["z"] > 0.5))
    driver.run()
    assert 0 < len(driver.train_datapool) < 8


def test_a_run_goes_on_where_no_point_to_measure_on_has_a_solution(build: Any) -> None:
    label = Solve(lambda point: len(label.solved) <= 4)
    driver = build(ToCorner(2), label, given={"validation": 4})
    driver.run()
    assert driver.stop_reason == "all 4 steps are done"
    assert (len(driver.val_datapool), len(driver.train_datapool)) == (0, 14)
    on, batches = evaluate(driver)
    assert on == "train"
    assert sum(len(targets) for _, targets in batches) == 14


def test_a_start_without_any_label_ends_the_run(build: Any) -> None:
    driver = build(ToCorner(2), Solve(lambda point: True), max_failure_rate=1.0)
    driver.run()
    assert "nothing is labeled yet" in str(driver.stop_reason)
    assert len(driver.label_strategy.solved) == 8


def test_a_start_that_a_step_has_no_room_for_is_refused(build: Any) -> None:
    driver = build(ToCorner(2), samples_per_step=5, given={"validation": 4})
    with pytest.raises(UsageError, match=r"are 12 together, and driver\.samples_per_step allows 5"):
        driver.run()


def test_a_design_needs_a_space(build: Any) -> None:
    driver = build(ToCorner(2))
    strategy = DesignQuery()
    strategy.driver = type("Other", (), {"choice_pool": TensorPool(torch.zeros(3, 2), torch.zeros(3))})()
    with pytest.raises(UsageError, match="TensorPool has no start design; it is for --data space"):
        strategy.check()
    assert driver.start_strategy.check() is None


# -- refinement ------------------------------------------------------------------------------------------------


@pytest.fixture
def corner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alcore_space.refinement.load_factory", lambda offer: ToCorner)


@pytest.mark.usefixtures("corner")
def test_refined_points_score_higher_and_keep_the_constraints(build: Any) -> None:
    plain, refined = build(ToCorner(6), folder="a"), build(RefinedQuery("random", max_samples=6), folder="b")
    for driver in (plain, refined):
        driver.run()
    for before, after in zip(asked(plain)[1:], asked(refined)[1:], strict=True):
        assert len(after) == 6
        assert min(request["score"] for request in after) > max(request["score"] for request in before)
    generated = [request for step in asked(refined)[1:] for request in step if request["sample"] is None]
    assert len(generated) > 12
    points = refined.label_strategy.solved[8:]
    assert all(point["x"] + point["y"] < 1.5 for point in points)
    assert max(point["x"] + point["y"] for point in points) > 1.49
    assert {type(point["k"]) for point in points} == {int}
    assert len({(point["x"], point["y"]) for point in points}) == len(points)
    inputs = refined.train_datapool.batch(torch.arange(len(refined.train_datapool)))[0]
    assert np.allclose(inputs[:, 0], [point["x"] for point in refined.label_strategy.solved], atol=1e-6)


@pytest.mark.usefixtures("corner")
def test_a_point_that_many_neighbors_reach_is_asked_for_once(build: Any) -> None:
    driver = build(RefinedQuery("random", max_samples=6), given={"constraints": ()}, max_active_learning_steps=3)
    driver.run()
    points = [tuple(point.values()) for point in driver.label_strategy.solved[8:]]
    assert (1.0, 1.0, 1.0) in {point[:3] for point in points}
    assert len(set(points)) == len(points) == 12


def test_a_strategy_that_chooses_sets_is_refined_by_its_own_rule(build: Any) -> None:
    given = {"candidates_per_step": 100}
    plain, refined = (
        build(query, folder=folder, given=given, max_active_learning_steps=2)
        for folder, query in (
            ("a", load_factory(installed().offer("query", "gsx"))(4)),
            ("b", RefinedQuery("gsx", None, 4)),
        )
    )
    for driver in (plain, refined):
        driver.run()
    scores = [[request["score"] for request in asked(driver)[1]] for driver in (plain, refined)]
    assert min(scores[1]) > 1.02 * min(scores[0]), "the nearest labeled point is farther away"


@pytest.mark.usefixtures("corner")
def test_refined_points_have_the_cost_and_the_fidelity_of_their_values(build: Any) -> None:
    given = {"cost": "2**k + x", "fidelity": "k", "constraints": ()}
    driver = build(RefinedQuery("random", max_samples=4), given=given, budget=1000.0)
    driver.run()
    rows = Run(driver.log_dir).read("SELECT sample, cost, fidelity FROM requests ORDER BY step, ordinal")
    assert sum(row["sample"] is None for row in rows) > 6
    for row, point in zip(rows, driver.label_strategy.solved, strict=True):
        assert row["cost"] == pytest.approx(2 ** point["k"] + point["x"])
        assert row["fidelity"] == str(point["k"])
    assert driver.spent().cost == pytest.approx(sum(row["cost"] for row in rows))


@pytest.mark.usefixtures("corner")
def test_refined_points_are_looked_for_where_a_solution_is_likely(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = build(RefinedQuery("random", max_samples=5), Solve(lambda point: point["z"] > 0.6), feasibility="exclude")
    forget, points, likely = driver.feasibility.forget, [], []

    def spy() -> None:
        """Count the points that were asked for, and those that are likely to have a solution."""
        items = [request.request.item for request in driver.query_queue.asked if request.sample is None]
        inputs = torch.stack([driver.choice_pool.as_input(item) for item in items]) if items else torch.empty(0)
        estimate = driver.feasibility.over(TensorPool(inputs, torch.zeros(len(items))))
        points.append(len(items))
        likely.append(len(estimate.kept(torch.arange(len(items)))))
        forget()

    monkeypatch.setattr(driver.feasibility, "forget", spy)
    driver.run()
    assert sum(points) > 5
    assert likely == points


def test_points_to_measure_on_count_where_there_is_a_solution(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    driver, feasible = build(ToCorner(5), Solve(lambda point: point["z"] > 0.5), given={"validation": 6},
                             feasibility="weight"), []  # fmt: skip
    learn = driver.feasibility.learn

    def spy(pool: Any, labeled: Any, *args: Any) -> Any:
        parts = list(labeled)
        feasible.append(sum(map(len, parts)))
        return learn(pool, parts, *args)

    monkeypatch.setattr(driver.feasibility, "learn", spy)
    driver.run()
    assert len(driver.val_datapool) > 0
    steps = [sum(request["state"] == "labeled" for request in step) for step in asked(driver)]
    assert feasible == [sum(steps[:step]) for step in range(1, 4)]


def test_a_finite_space_is_left_as_it_is(build: Any) -> None:
    tables = {name: TABLES[name] for name in ("k", "c")} | {"n": {"type": "integer", "low": 0, "high": 50}}
    data = space(tables)
    driver = build(RefinedQuery("random", max_samples=3))
    strategy, put = driver.query_strategies[0], []
    strategy.driver = type(
        "Other", (), {"choice_pool": data.train, "generator": driver.generator, "strategy_name": driver.strategy_name}
    )()
    strategy._inner.sample = lambda queue: queue.put_many([3, 4, 4], [2.0, 1.0, 0.5])
    strategy.sample(type("Queue", (), {"put_many": lambda self, items, scores: put.append((items, scores))})())
    assert put == [([3, 4], [2.0, 1.0])]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"strategy": "module:Code"}, "it must be a name that a plugin offers"),
        ({"strategy": "gsxx"}, "no plugin offers the query 'gsxx': did you mean 'gsx'"),
        ({"strategy": "gsx", "parameters": {"layr": "inputs"}}, "query.refined.parameters has no parameter 'layr'"),
        ({"strategy": "gsx", "rounds": 0}, "rounds is 0"),
        ({"strategy": "gsx", "radius": 0.0}, "radius is 0"),
        ({"strategy": "gsx", "max_samples": -1}, "max_samples is -1"),
    ],
)
def test_what_can_t_be_refined_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RefinedQuery(**given)
