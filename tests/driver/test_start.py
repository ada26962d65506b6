"""A run whose pool has no label begins with a first selection, and trains when its labels are there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from alcore_random import RandomQuery

from alcore import Driver, Failed, TensorPool, UsageError
from alcore import config as c
from alcore.errors import Interrupted
from alcore.store.reading import Run
from alcore.strategies import BaseLabel, BaseMetrology

Make = Callable[..., Driver]


class Epochs:
    """A training loop that notes how it was called."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, float]] = []

    def __call__(self, model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int, **_: Any) -> None:
        self.calls.append((max_epochs, optimizer.param_groups[0]["lr"]))
        for _epoch in range(max_epochs):
            for inputs, targets in train_dataloader:
                optimizer.zero_grad()
                torch.nn.functional.binary_cross_entropy_with_logits(model(inputs)[:, 0], targets.float()).backward()
                optimizer.step()


@pytest.fixture
def make(build: Make, toys: Any) -> Make:
    def new(**settings: Any) -> Driver:
        parts = {
            "train_datapool": toys.pool(labeled=0),
            "start_strategy": RandomQuery(6),
            "train_loop_fn": Epochs(),
            "max_training_epochs": 3,
            "max_fine_tuning_epochs": 1,
            "fine_tuning_lr": 0.01,
        }
        return build(**(parts | settings))

    return new


def loop_of(driver: Driver) -> Any:
    assert driver.training_config is not None
    return driver.training_config.train_loop_fn


def test_the_first_step_selects_and_the_second_trains(make: Make) -> None:
    driver = make()
    driver.run()
    run = Run(driver.log_dir)
    assert [step["train_samples"] for step in run.steps()] == [0, 6, 9]
    assert {request["strategy"] for request in run.requests(0)} == {"random_query"}
    assert {request["strategy"] for request in run.requests(1)} == {"first_query"}
    assert [record["step"] for record in run.records()["count_metrology"]] == [1, 2]
    assert loop_of(driver).calls == [(3, 0.1), (1, 0.01)]  # as if training began at step 0


def test_without_a_start_an_empty_pool_is_measured_and_chosen_for_by_the_learner_as_it_comes(
    make: Make, toys: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Weight(BaseMetrology):
        def compute(self, *args: Any, **kwargs: Any) -> None:
            self.append_record(weight=self.driver.learner.weight.tolist())

    pretrained = toys.learner(7).weight.tolist()
    driver = make(start_strategy=None, learner=toys.learner(7), metrology_strategies=[Weight()])
    driver.run()
    run = Run(driver.log_dir)
    assert [step["train_samples"] for step in run.steps()] == [0, 3, 6]
    assert {request["strategy"] for request in run.requests(0)} == {"first_query"}
    weights = [record["weight"] for record in run.records()["weight"]]
    assert weights[0] == pretrained
    assert weights[1] != pretrained
    assert loop_of(driver).calls == [(3, 0.1), (1, 0.01)]  # as if training began at step 0
    assert len([text for text in caplog.messages if text.startswith("nothing is labeled, so the learner is not")]) == 1


def test_one_object_may_make_the_first_selection_and_the_others(make: Make, toys: Any) -> None:
    class Counting(RandomQuery):
        attached, chosen = 0, 0

        def attach(self, driver: Any) -> None:
            super().attach(driver)
            self.attached += 1

        def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
            self.chosen += 1
            super().sample(query_queue, *args, **kwargs)

        def state_dict(self) -> dict[str, Any]:
            return {"chosen": self.chosen}

        def load_state_dict(self, state: Any) -> None:
            self.chosen = state["chosen"]

    def new(steps: int) -> Driver:
        both = Counting(4)
        return make(
            start_strategy=both, query_strategies=[both], run_id="both", max_active_learning_steps=steps,
            learner=toys.learner(),
        )  # fmt: skip

    new(2).run()
    driver = new(3)
    driver.restore()
    driver.run()
    strategy = driver.start_strategy
    assert (strategy.attached, strategy.chosen) == (1, 3)
    requests = Run(driver.log_dir).requests()
    assert [request["strategy"] for request in requests] == ["counting"] * 12
    assert len({request["sample"] for request in requests}) == 12


@pytest.mark.parametrize("end_after", [1, 2, 4, 7])
def test_a_resumed_run_without_a_start_equals_an_uninterrupted_one(make: Make, toys: Any, end_after: int) -> None:
    class Ending(toys.EchoLabel):  # type: ignore[misc]
        idempotent = True
        answers = 0

        def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
            while not queue_to_label.empty():
                self.answers += 1
                if self.answers == end_after:
                    self.driver.interrupt()
                serialize_queue.put(queue_to_label.get())

    def again(run_id: str, label: Any) -> Driver:
        return make(start_strategy=None, run_id=run_id, label_strategy=label, learner=toys.learner())

    whole = again("whole", toys.EchoLabel())
    whole.run()
    with pytest.raises(Interrupted):
        again("cut", Ending()).run()
    rest = again("cut", toys.EchoLabel())
    rest.restore()
    rest.run()
    assert torch.equal(rest.learner.weight, whole.learner.weight)
    assert rest.train_datapool.labeled_ids.tolist() == whole.train_datapool.labeled_ids.tolist()
    assert Run(rest.log_dir).records() == Run(whole.log_dir).records()


def test_a_pool_with_labels_needs_no_start(make: Make, toys: Any) -> None:
    driver = make(train_datapool=toys.pool(labeled=8))
    driver.run()
    assert {request["strategy"] for request in Run(driver.log_dir).requests()} == {"first_query"}
    assert loop_of(driver).calls == [(3, 0.1), (1, 0.01), (1, 0.01)]


@pytest.mark.parametrize("end_after", range(1, 12))
def test_resumed_equals_uninterrupted(make: Make, toys: Any, end_after: int) -> None:
    class Ending(toys.EchoLabel):  # type: ignore[misc]
        idempotent = True
        answers = 0

        def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
            while not queue_to_label.empty():
                self.answers += 1
                if self.answers == end_after:
                    self.driver.interrupt()
                serialize_queue.put(queue_to_label.get())

    def again(run_id: str, label: Any) -> Driver:
        return make(run_id=run_id, label_strategy=label, learner=toys.learner())

    whole = again("whole", toys.EchoLabel())
    whole.run()
    with pytest.raises(Interrupted):
        again("cut", Ending()).run()
    rest = again("cut", toys.EchoLabel())
    rest.restore()
    rest.run()
    assert torch.equal(rest.learner.weight, whole.learner.weight)
    assert rest.train_datapool.labeled_ids.tolist() == whole.train_datapool.labeled_ids.tolist()
    calls = [*loop_of(rest).calls]
    assert calls == loop_of(whole).calls[len(loop_of(whole).calls) - len(calls) :]


def test_labels_that_come_late_are_waited_for(make: Make) -> None:
    class Never(BaseLabel):
        def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
            return

    driver = make(label_strategy=Never())
    driver.run()
    assert driver.stop_reason == "nothing is labeled yet, and the requests of the start are open"
    assert len(Run(driver.log_dir).requests()) == 6


def test_where_all_of_the_start_failed_it_is_asked_again(make: Make, toys: Any) -> None:
    class Once(toys.EchoLabel):  # type: ignore[misc]
        def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
            while not queue_to_label.empty():
                request = queue_to_label.get_request()
                serialize_queue.put(Failed(request, "no") if request.step == 0 else request.item)

    driver = make(label_strategy=Once(), max_failure_rate=1.0)
    driver.run()
    run = Run(driver.log_dir)
    assert [step["train_samples"] for step in run.steps()] == [0, 0, 6]
    assert loop_of(driver).calls == [(3, 0.1)]


def test_samples_of_a_step_are_shared_out(make: Make, toys: Any) -> None:
    strategies = [RandomQuery(1), toys.FirstQuery(9), RandomQuery(99)]
    driver = make(
        train_datapool=toys.pool(), query_strategies=strategies, samples_per_step=8, max_active_learning_steps=1
    )
    driver.run()
    asked = [request["strategy"] for request in Run(driver.log_dir).requests(0)]
    assert asked == ["random_query"] * 3 + ["first_query"] * 3 + ["random_query-2"] * 2
    assert len({request["sample"] for request in Run(driver.log_dir).requests(0)}) == 8


def test_what_one_strategy_leaves_goes_to_the_next(make: Make, toys: Any) -> None:
    strategies = [toys.FirstQuery(1), RandomQuery(99)]
    driver = make(
        train_datapool=toys.pool(), query_strategies=strategies, samples_per_step=8, max_active_learning_steps=1
    )
    driver.run()
    asked = [request["strategy"] for request in Run(driver.log_dir).requests(0)]
    assert asked == ["first_query"] + ["random_query"] * 7


@pytest.mark.parametrize("costs", [torch.arange(40) / 10, lambda sample: sample / 10])
def test_samples_cost_what_the_pool_says_and_the_budget_is_kept(make: Make, toys: Any, costs: Any) -> None:
    pool = toys.pool(costs=costs)
    driver = make(train_datapool=pool, query_strategies=[toys.FirstQuery(4)], budget=3.0)
    driver.run()
    run = Run(driver.log_dir)
    assert [request["cost"] for request in run.requests()] == pytest.approx(
        [0.8, 0.9, 1.0]
    )  # 8, 9, 10, and 11 was too much
    assert driver.stop_reason == "the budget of 3 is spent"


def test_costs_must_be_one_a_sample(toys: Any) -> None:
    with pytest.raises(UsageError, match="40 inputs but 3 costs"):
        toys.pool(costs=[1, 2, 3])


def test_a_pool_that_grows_during_a_run_is_chosen_from_as_it_is(make: Make, toys: Any) -> None:
    class Growing(TensorPool):
        """Every answer brings a new unlabeled sample."""

        def append(self, item: Any) -> None:
            super().append(item)
            self._inputs = torch.cat([torch.as_tensor(self._inputs), torch.ones(1, 2)])
            self._mask = torch.cat([self._mask, torch.zeros(1, dtype=torch.bool)])
            self._targets = torch.cat([self._targets, torch.ones(1, dtype=torch.int64)])  # type: ignore[list-item]

    class Last(toys.FirstQuery):  # type: ignore[misc]
        def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
            ids = torch.cat(list(self.driver.candidates()))
            query_queue.put_many(ids[-self.max_samples :].tolist())

    plain = toys.pool(n=12, labeled=4)
    pool = Growing(plain.inputs(torch.arange(12)), torch.arange(12) % 2, labeled=range(4))
    driver = make(train_datapool=pool, query_strategies=[Last(2)])
    driver.run()
    assert [request["sample"] for request in Run(driver.log_dir).requests()] == [10, 11, 12, 13, 14, 15]
    assert driver.config.seed == 0
    assert isinstance(driver.training_config, c.TrainingConfig)
