"""The base classes of strategies: what they give a strategy, and what they refuse before a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.inference import Net

from alcore import Driver, Failed, TensorPool, UsageError
from alcore.errors import QueryError
from alcore.hookspecs import runhook
from alcore.inference import Features
from alcore.strategies import (
    BaseLabel,
    BaseMetrology,
    BaseQuery,
    BaseStrategy,
    BaseTracker,
    PointwiseQuery,
    SetQuery,
    Tracked,
)

Build = Callable[..., Driver]

# -- all strategies ----------------------------------------------------------------------------------------------------


def test_strategy_without_a_driver_says_how_to_get_one() -> None:
    strategy = BaseStrategy()
    assert not strategy.is_attached
    with pytest.raises(UsageError, match=r"BaseStrategy has no driver yet; .* attach\(driver\)"):
        strategy.driver  # noqa: B018
    context: Any = object()
    strategy.attach(context)
    assert strategy.is_attached
    assert strategy.driver is context


def test_folder_of_a_strategy_has_its_name_and_is_made_when_asked_for(tmp_path: Path) -> None:
    strategy = BaseStrategy()
    context: Any = SimpleNamespace(log_dir=tmp_path, strategy_name=lambda part: {strategy: "mine-2"}[part])
    strategy.attach(context)
    assert list(tmp_path.iterdir()) == []
    assert strategy.strategy_dir == strategy.strategy_dir == tmp_path / "strategies" / "mine-2"
    assert strategy.strategy_dir.is_dir()


def test_generator_is_derived_from_the_name_and_the_purpose() -> None:
    strategy = BaseStrategy()
    asked: list[tuple[str, ...]] = []
    context: Any = SimpleNamespace(strategy_name=lambda part: "mine", generator=lambda *key: asked.append(key))
    strategy.attach(context)
    strategy.generator()
    strategy.generator("masks")
    assert asked == [("mine", ""), ("mine", "masks")]


def test_state_that_nobody_takes_back_is_refused() -> None:
    strategy = BaseStrategy()
    assert strategy.state_dict() == {}
    strategy.load_state_dict({})
    with pytest.raises(UsageError, match="BaseStrategy was saved with state, and has no load_state_dict"):
        strategy.load_state_dict({"n": 1})


def test_negative_number_of_samples_is_refused() -> None:
    assert PointwiseQuery(0).max_samples == 0
    for make in (PointwiseQuery, SetQuery):
        with pytest.raises(UsageError, match=f"{make.__name__}: max_samples is -1; it must not be negative"):
            make(-1)


def test_wanted_is_the_share_of_the_run() -> None:
    query = BaseQuery()
    query.set_max_samples(7)
    context: Any = SimpleNamespace(wanted=lambda most: most - 4)
    query.attach(context)
    assert query.wanted == 3


def test_records_have_step_and_training_samples_and_are_written_where_asked(tmp_path: Path) -> None:
    metrology = BaseMetrology()
    context: Any = SimpleNamespace(active_learning_step_idx=2, train_datapool=range(9))
    metrology.attach(context)
    metrology.append_record(f1=0.5)
    expected = [{"step": 2, "train_samples": 9, "f1": 0.5}]
    assert metrology.records == expected
    metrology.serialize_records()
    metrology.serialize_records(tmp_path / "records.json")
    assert [path.name for path in tmp_path.iterdir()] == ["records.json"]
    assert json.loads((tmp_path / "records.json").read_text()) == expected


def test_method_that_must_be_written_is_named() -> None:
    with pytest.raises(NotImplementedError, match="PointwiseQuery must implement score"):
        PointwiseQuery().score(None)
    none: Any = None
    with pytest.raises(NotImplementedError, match="SetQuery must implement choose"):
        SetQuery().choose(none, none, 1)


# -- classes whose `__init__` or hook doesn't call that of the base ----------------------------------------------------


def test_tracker_with_a_start_of_its_own_reports_what_it_can_not_write(
    build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    class Unwritable(BaseTracker):
        @runhook
        def alcore_run_start(self, driver: Any) -> None: ...

        def write(self, tracked: Tracked) -> None:
            raise OSError("the disk is full")

    build(plugins=[Unwritable()]).run()
    raised = [record.getMessage() for record in caplog.records if "raised in" in record.getMessage()]
    assert len(raised) == 1, "reported once, not with each step"
    assert raised[0].endswith("OSError: the disk is full")


def test_pointwise_query_with_an_init_of_its_own_asks_for_the_default_number(build: Build, toys: Any) -> None:
    class Own(PointwiseQuery):
        def __init__(self, scale: float) -> None:
            self.scale = scale

        def score(self, outputs: Any) -> torch.Tensor:
            return self.scale * outputs[:, 0]

    driver = build(train_datapool=toys.pool(40, labeled=8), query_strategies=[Own(2.0)], max_active_learning_steps=1)
    driver.run()
    assert len(driver.train_datapool) == 8 + PointwiseQuery().max_samples == 18


def test_set_query_with_an_init_of_its_own_has_the_defaults(build: Build, toys: Any) -> None:
    class Own(SetQuery):
        def __init__(self, first: int) -> None:
            self.first = first

        def choose(self, candidates: Features, labeled: Features, n: int) -> torch.Tensor:
            return torch.arange(self.first, self.first + n)

    own, default = Own(1), SetQuery()
    assert (own.max_samples, own.candidates, own.layer) == (default.max_samples, default.candidates, default.layer)
    driver = build(train_datapool=toys.pool(40, labeled=8), query_strategies=[own], max_active_learning_steps=1)
    driver.run()
    assert len(driver.train_datapool) == 18


def test_query_without_a_number_of_samples_says_how_to_set_it() -> None:
    query = BaseQuery()
    context: Any = SimpleNamespace(wanted=lambda most: most)
    query.attach(context)
    with pytest.raises(UsageError, match=r"BaseQuery has no max_samples; call self\.set_max_samples\(n\)"):
        query.wanted  # noqa: B018


# -- pointwise ---------------------------------------------------------------------------------------------------------


def test_pointwise_scores_of_a_wrong_shape_are_refused_before_training(build: Any) -> None:
    class Wrong(PointwiseQuery):
        def score(self, outputs: Any) -> torch.Tensor:
            return outputs.sum()

    driver = build(query_strategies=[Wrong()])
    with pytest.raises(UsageError, match=r"wrong can't be used here: score"):
        driver.run()
    assert not driver.log_dir.exists()


def test_a_score_that_cannot_take_the_outputs_is_told_with_the_strategy(build: Any) -> None:
    class TopTwo(PointwiseQuery):
        def score(self, outputs: Any) -> torch.Tensor:
            return outputs.topk(2, dim=1).values[:, 0]

    with pytest.raises(UsageError, match=r"top_two can't be used here: its score\(\) .* of shape \(2, 1\)"):
        build(query_strategies=[TopTwo()]).run()


def test_a_score_is_tried_on_what_the_strategy_infers(build: Any) -> None:
    class Several(PointwiseQuery):
        def infer(self, inputs: Any) -> Any:
            return torch.stack([self.driver.infer(inputs), self.driver.infer(-inputs)])

        def score(self, outputs: Any) -> torch.Tensor:
            assert outputs.dim() == 3
            return outputs[:, :, 0].std(dim=0)

    driver = build(query_strategies=[Several(3)], max_active_learning_steps=1, skip_training=True)
    before = len(driver.train_datapool)
    driver.run()
    assert len(driver.train_datapool) == before + 3


# -- sets --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("candidates", [0, -3, 0.0, 1.5, float("nan")])
def test_number_of_candidates_that_is_neither_count_nor_fraction_is_refused(candidates: float) -> None:
    with pytest.raises(
        UsageError, match=r"SetQuery: candidates is .*; it must be a count of at least 1, or a fraction"
    ):
        SetQuery(candidates=candidates)


@pytest.mark.parametrize("scored", [False, True])
def test_positions_become_sample_ids_in_the_order_of_the_choice(build: Build, toys: Any, scored: bool) -> None:
    class Backwards(SetQuery):
        def choose(self, candidates: Features, labeled: Features, n: int) -> Any:
            positions = torch.arange(len(candidates.ids)).flip(0)[:n]
            return (positions, positions / 2.0) if scored else positions

    query = Backwards(3, layer="inputs")
    build(train_datapool=toys.pool(20, labeled=8), query_strategies=[query])
    asked: list[Any] = []
    queue: Any = SimpleNamespace(put_many=lambda ids, scores: asked.append((ids, scores)))
    query.sample(queue)
    assert asked == [([19, 18, 17], [5.5, 5.0, 4.5] if scored else None)]


@pytest.mark.parametrize("needed", [True, False])
def test_outputs_are_computed_only_where_the_strategy_needs_them(build: Build, toys: Any, needed: bool) -> None:
    class Looks(SetQuery):
        needs_outputs = needed

        def choose(
            self, candidates: Features, labeled: Features, n: int, pending: Features | None = None
        ) -> torch.Tensor:
            assert pending is not None
            self.given = candidates, labeled, pending
            return torch.arange(n)

    query, net = Looks(2, layer="inputs"), Net()
    driver = build(train_datapool=toys.pool(20, labeled=8), learner=net, query_strategies=[query])
    driver.query_queue.begin(0, 10.0)
    driver.query_queue.put(10)
    query.sample(driver.query_queue)
    pool = driver.train_datapool
    for given, ids in zip(query.given, ([8, 9, *range(11, 20)], list(range(8)), [10]), strict=True):
        assert given.ids.tolist() == ids
        assert torch.equal(given.features, pool.inputs(torch.tensor(ids)))
        assert given.outputs.shape == (len(ids), 1 if needed else 0)
    assert query.given[1].targets is not None
    assert (net.calls > 0) == needed


def test_with_nothing_labeled_a_strategy_is_given_none_of_as_many_features(build: Build, toys: Any) -> None:
    class Looks(SetQuery):
        def choose(self, candidates: Features, labeled: Features, n: int) -> torch.Tensor:
            self.shapes = candidates.features.shape, labeled.features.shape, labeled.outputs.shape
            return torch.arange(n)

    query = Looks(2)
    driver = build(train_datapool=toys.pool(6, labeled=0), learner=Net(), query_strategies=[query])
    query.sample(driver.query_queue)
    assert query.shapes == ((6, 5), (0, 5), (0, 1))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("own_pool", [True, False])
def test_labeled_features_that_are_no_numbers_are_refused(build: Build, toys: Any, bad: float, own_pool: bool) -> None:
    class Looks(SetQuery):
        def choose(self, candidates: Features, labeled: Features, n: int) -> torch.Tensor:
            return torch.arange(n)

    pool = toys.pool(20, labeled=0)
    inputs = pool.inputs(torch.arange(20))
    inputs[13, 1] = bad
    train = TensorPool(inputs, torch.arange(20) % 2, labeled=[4, 13, 7])
    query = Looks(2, layer="inputs")
    choice = {"unlabeled_datapool": pool} if own_pool else {}
    driver = build(train_datapool=train, learner=Net(), query_strategies=[query], **choice)
    which = "the labeled sample at position 1" if own_pool else "sample 13"
    with pytest.raises(QueryError, match=f"the features of {which} are NaN or infinite"):
        query.sample(driver.query_queue)
    query.needs_labeled = False
    query.sample(driver.query_queue)


# -- pending samples ---------------------------------------------------------------------------------------------------


class Watching(SetQuery):
    """Notes what it is given as pending, and asks for the first candidates."""

    def __init__(self, max_samples: int = 2) -> None:
        super().__init__(max_samples, layer="inputs")
        self.seen: list[Features] = []

    def choose(self, candidates: Features, labeled: Features, n: int, pending: Features | None = None) -> Any:
        assert pending is not None
        self.seen.append(pending)
        return torch.arange(n)


class WithoutPending(SetQuery):
    """Has no argument for pending samples."""

    def choose(self, candidates: Features, labeled: Features, n: int) -> Any:
        return torch.arange(n)


class SomeStepsLate(BaseLabel):
    """Answers requests that are so many steps old, and gives up those of odd samples."""

    labels_by_id = True

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        for request in queue_to_label.get_many(queue_to_label.qsize()):
            if request.step + self.steps > self.driver.active_learning_step_idx:
                queue_to_label.give_back(request)
            else:
                serialize_queue.put(Failed(request, "odd") if request.item % 2 else request.item)


def test_pending_samples_are_those_without_an_answer(build: Build, toys: Any) -> None:
    query = Watching()
    label = SomeStepsLate(2)
    build(
        train_datapool=toys.pool(20, labeled=8),
        query_strategies=[WithoutPending(1), query],
        label_strategy=label,
        max_active_learning_steps=4,
        skip_training=True,
    ).run()
    # 8, 9 and 10 are asked for in step 0, and so on; answers to step 0 are there, or it was given up, before step 3
    assert [features.ids.tolist() for features in query.seen] == [
        [8], [8, 9, 10, 11], [*range(8, 15)], [*range(11, 18)],
    ]  # fmt: skip
    assert all(
        features.features.shape == (len(features.ids), 2) and features.targets is None for features in query.seen
    )
    assert query.takes_pending
    assert not WithoutPending().takes_pending


def test_nothing_pending_has_as_many_features_as_candidates(build: Build, toys: Any) -> None:
    query = Watching()
    driver = build(train_datapool=toys.pool(20, labeled=8), query_strategies=[query])
    driver.prepare()
    driver.choose()
    assert query.seen[0].features.shape == (0, 2)
    assert driver.pending().tolist() == [8, 9]
    driver.train_datapool.append(8)
    assert driver.pending().tolist() == [9]


def test_only_what_was_not_answered_is_pending_when_the_run_has_ended(build: Build, toys: Any) -> None:
    class Some(toys.EchoLabel):
        """Answers the first request of a step, gives the second up, and leaves the third."""

        def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
            first, second, *_ = queue_to_label.get_many(3)
            serialize_queue.put_many([first.item, Failed(second, "no such shape", "infeasible", cost=0.5)])

    query = Watching(3)
    driver = build(
        train_datapool=toys.pool(20, labeled=8), query_strategies=[query], label_strategy=Some(),
        max_active_learning_steps=2, skip_training=True,
    )  # fmt: skip
    driver.run()
    assert driver.pending().tolist() == [10, 13]
    assert driver.spent() == (2, 3.0)
    query.seen.clear()
    assert [request.sample for request in driver.choose()] == [14, 15, 16]
    assert [request.sample for request in driver.choose()] == [17, 18, 19]
    assert [features.ids.tolist() for features in query.seen] == [[10, 13], [10, 13, 14, 15, 16]]


def test_pending_samples_of_a_pool_of_its_own_are_known(build: Build, toys: Any) -> None:
    query = Watching()
    build(
        train_datapool=toys.pool(20, labeled=8),
        unlabeled_datapool=toys.pool(20, labeled=0),
        query_strategies=[query],
        label_strategy=SomeStepsLate(1),
        max_active_learning_steps=3,
        skip_training=True,
    ).run()
    assert [features.ids.tolist() for features in query.seen] == [[], [0, 1], [2, 3]]


def test_pending_samples_without_numbers_are_refused_by_id(build: Build, toys: Any) -> None:
    pool = toys.pool(20, labeled=8)
    pool._inputs[9] = torch.nan
    driver = build(train_datapool=pool, query_strategies=[AsksFor(9), Watching()])
    driver.prepare()
    with pytest.raises(QueryError, match="features of sample 9 are NaN"):
        driver.choose()


class AsksFor(BaseQuery):
    """Asks for one sample."""

    def __init__(self, sample: int) -> None:
        self.set_max_samples(1)
        self.one = sample

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        query_queue.put(self.one)


def test_phases_called_by_hand_count_what_they_asked_for(build: Build, toys: Any) -> None:
    query = Watching()
    driver = build(train_datapool=toys.pool(20, labeled=8), query_strategies=[query], label_strategy=SomeStepsLate(1))
    with driver.session():
        driver._query_phase()
        driver._query_phase()
    assert [features.ids.tolist() for features in query.seen] == [[], [8, 9]]
