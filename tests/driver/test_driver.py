"""The Driver: its four phases, what ends a run, and every setting that the specification names."""

from __future__ import annotations

import json
import logging
import multiprocessing
import queue
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import alcore
from alcore import Failed, Label, TensorPool, UsageError
from alcore import config as c
from alcore.errors import QueryError, RunExistsError
from alcore.pools import DataInfo
from alcore.protocols import RunContext, Spent
from alcore.store.reading import Run
from alcore.strategies import BaseLabel, BaseQuery, PointwiseQuery


def checkpoints(driver: Any) -> list[str]:
    return [checkpoint["file"] for checkpoint in Run(driver.log_dir).checkpoints()]


class Spy:
    """A training loop that keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(self, model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int, **kwargs: Any) -> None:
        lrs = [group["lr"] for group in optimizer.param_groups]
        self.calls.append(
            {"epochs": max_epochs, "lrs": lrs, "batches": list(train_dataloader), "model": model, **kwargs}
        )
        kwargs["on_epoch_end"](0, {"loss": 1.0})


# -- the loop -----------------------------------------------------------------------------------------


def test_phases_run_in_their_order_and_metrology_precedes_query(build: Any) -> None:
    seen: list[str] = []

    class Watch:
        @alcore.runhook
        def alcore_phase_start(self, driver: Any, phase: Any) -> None:
            seen.append(f"{driver.active_learning_step_idx} {phase}")

    build(max_active_learning_steps=2, plugins=[Watch()]).run()
    assert seen == [f"{step} {phase}" for step in (0, 1) for phase in ("training", "metrology", "query", "labeling")]


def test_calling_the_driver_is_run(build: Any) -> None:
    driver = build()
    driver()
    assert driver.stop_reason == "all 3 steps are done"
    assert driver.active_learning_step_idx == 3
    assert len(driver.train_datapool) == 8 + 3 * 3


def test_arguments_are_passed_on_to_the_strategies(build: Any, toys: Any) -> None:
    seen: list[Any] = []

    class Query(toys.FirstQuery):
        def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
            seen.append(("query", args, kwargs))
            super().sample(query_queue)

    class Label_(toys.EchoLabel):
        def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
            seen.append(("label", args, kwargs))
            super().label(queue_to_label, serialize_queue)

    class Metrology(toys.CountMetrology):
        def compute(self, *args: Any, **kwargs: Any) -> None:
            seen.append(("metrology", args, kwargs))

        def serialize_records(self, *args: Any, **kwargs: Any) -> None:
            seen.append(("serialize", args, kwargs))

    driver = build(
        max_active_learning_steps=1,
        query_strategies=[Query()],
        label_strategy=Label_(),
        metrology_strategies=[Metrology()],
    )
    driver(None, None, 7, temperature=2)
    assert [name for name, *_ in seen] == ["metrology", "serialize", "query", "label"]
    assert all(rest == [(7,), {"temperature": 2}] for _, *rest in seen)


def test_init_touches_no_disk_and_knows_the_run_directory(build: Any, tmp_path: Path) -> None:
    driver = build()
    assert driver.log_dir == tmp_path / "runs" / driver.run_id
    assert not (tmp_path / "runs").exists()
    assert len(driver.run_id) == 8
    int(driver.run_id, 16)


def test_steps_can_be_called_one_by_one(build: Any) -> None:
    driver = build(max_active_learning_steps=None)
    with driver.session():
        driver.active_learning_step()
        driver.active_learning_step()
    assert driver.active_learning_step_idx == 2
    assert Run(driver.log_dir).meta()["status"] == "done"


def test_phases_can_be_called_by_hand_and_again(build: Any) -> None:
    driver = build()
    with driver.session():
        driver._training_phase()
        for _ in range(2):
            driver._metrology_phase()
            driver._query_phase()
            driver._labeling_phase()
    run = Run(driver.log_dir)
    assert [(request["ordinal"], request["sample"], request["state"]) for request in run.requests()] == [
        (ordinal, 8 + ordinal, "labeled") for ordinal in range(6)
    ]
    assert [record["labelled"] for record in run.records()["count_metrology"]] == [8.0, 11.0]


def test_a_driver_runs_once(build: Any) -> None:
    driver = build()
    driver.run()
    with pytest.raises(UsageError, match="has ended"):
        driver.run()


def test_same_seed_same_bytes(build: Any) -> None:
    runs = [build(), build()]
    for driver in runs:
        driver.run()
    first, second = ((driver.log_dir / "ckpt" / checkpoints(driver)[-1]).read_bytes() for driver in runs)
    assert first == second


# -- what ends a run ----------------------------------------------------------------------------------


def test_a_dry_pool_ends_the_run_after_everything_was_trained_on(build: Any, toys: Any) -> None:
    driver = build(train_datapool=toys.pool(n=12), max_active_learning_steps=None)
    driver.run()
    assert driver.stop_reason == "the pool has no unlabeled sample left"
    assert [step["train_samples"] for step in Run(driver.log_dir).steps()] == [8, 11, 12]


def test_a_budget_is_never_exceeded_and_its_last_labels_are_trained_on(build: Any) -> None:
    driver = build(budget=4, max_active_learning_steps=None)
    driver.run()
    assert driver.stop_reason == "the budget of 4 is spent"
    assert [step["labeled"] for step in Run(driver.log_dir).steps()] == [3, 1, 0]
    assert [step["train_samples"] for step in Run(driver.log_dir).steps()] == [8, 11, 12]


def test_the_label_strategy_prices_its_labels(build: Any, toys: Any) -> None:
    class Dear(toys.EchoLabel):
        def cost(self, item: int) -> float:
            return 10.0 if item == 9 else 1.0

    driver = build(budget=5, label_strategy=Dear(), max_active_learning_steps=1)
    driver.run()
    assert [request["sample"] for request in Run(driver.log_dir).requests()] == [8, 10]


def test_a_stop_criterion_ends_the_run_before_labels_are_bought(build: Any) -> None:
    class Enough:
        @alcore.runhook
        def alcore_should_stop(self, driver: Any) -> str | None:
            return "good enough" if driver.active_learning_step_idx == 1 else None

    driver = build(plugins=[Enough()])
    driver.run()
    assert driver.stop_reason == "good enough"
    assert [step["requested"] for step in Run(driver.log_dir).steps()] == [3, 0]


def test_the_error_of_a_stop_criterion_ends_the_run(build: Any) -> None:
    class Broken:
        @alcore.runhook
        def alcore_should_stop(self) -> str | None:
            raise ZeroDivisionError("no")

    driver = build(plugins=[Broken()])
    with pytest.raises(ZeroDivisionError):
        driver.run()
    assert Run(driver.log_dir).meta()["status"] == "failed"


def test_a_strategy_that_asks_for_nothing_may_wait_for_its_turn(build: Any, toys: Any) -> None:
    class EverySecond(toys.FirstQuery):
        def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
            if self.driver.active_learning_step_idx % 2:
                super().sample(query_queue)

    driver = build(query_strategies=[EverySecond()], max_active_learning_steps=4)
    driver.run()
    assert [step["requested"] for step in Run(driver.log_dir).steps()] == [0, 3, 0, 3]


def test_no_steps_at_all(build: Any) -> None:
    with pytest.raises(UsageError, match="max_active_learning_steps"):
        build(max_active_learning_steps=-1)


# -- settings -----------------------------------------------------------------------------------------


def test_skip_training(build: Any) -> None:
    spy = Spy()
    driver = build(skip_training=True, train_loop_fn=spy)
    before = driver.learner.weight.detach().clone()
    driver.run()
    assert not spy.calls
    assert torch.equal(driver.learner.weight, before)
    assert len(driver.train_datapool) == 17


def test_skip_training_needs_no_training_config(build: Any, toys: Any) -> None:
    pool = toys.pool()
    driver = build(skip_training=True, training_config=None, unlabeled_datapool=pool, metrology_strategies=None)
    driver.run()
    assert [request["sample"] for request in Run(driver.log_dir).requests()] == list(range(8, 17))


def test_skip_metrology(build: Any, toys: Any) -> None:
    metrology = toys.CountMetrology()
    driver = build(skip_metrology=True, metrology_strategies=[metrology])
    driver.run()
    assert metrology.records == []
    assert not (driver.log_dir / "count_metrology.json").exists()


def test_skip_labeling_leaves_requests_open_and_asks_for_none_twice(build: Any) -> None:
    driver = build(skip_labeling=True)
    driver.run()
    requests = Run(driver.log_dir).requests()
    assert [request["sample"] for request in requests] == list(range(8, 17))
    assert {request["state"] for request in requests} == {"open"}
    assert len(driver.train_datapool) == 8
    assert driver.query_queue.qsize() == 9


def test_no_label_strategy_leaves_requests_open(build: Any) -> None:
    driver = build(label_strategy=None, max_active_learning_steps=1)
    driver.run()
    assert [request["state"] for request in Run(driver.log_dir).requests()] == ["open"] * 3


@pytest.mark.parametrize(("interval", "steps"), [(0, []), (1, [0, 1, 2, 3, 4]), (2, [1, 3, 4]), (5, [4]), (100, [4])])
def test_checkpoint_interval(build: Any, interval: int, steps: list[int]) -> None:
    driver = build(checkpoint_interval=interval, max_active_learning_steps=5)
    driver.run()
    assert checkpoints(driver) == [
        "initial.safetensors",
        *(f"{step:06d}-labeling-000000.safetensors" for step in steps),
    ]


def test_model_checkpoint_frequency_saves_inside_training(build: Any) -> None:
    driver = build(model_checkpoint_frequency=2, max_training_epochs=5, max_active_learning_steps=1)
    driver.run()
    assert checkpoints(driver)[1:] == [
        "000000-training-000002.safetensors",
        "000000-training-000004.safetensors",
        "000000-labeling-000000.safetensors",
    ]


def test_a_checkpoint_holds_the_weights_it_claims(build: Any) -> None:
    driver = build()
    driver.run()
    with safe_open(driver.log_dir / "ckpt" / checkpoints(driver)[-1], framework="pt") as file:
        assert torch.equal(file.get_tensor("model.weight"), driver.learner.weight)
        assert list(file.metadata()) == ["alcore"]
        assert {name.split(".")[0] for name in file.keys()} == {"model", "rng"}  # noqa: SIM118 - SGD has no tensors


def test_epochs_and_learning_rate_change_after_step_0(build: Any) -> None:
    spy = Spy()
    build(train_loop_fn=spy, max_training_epochs=4, max_fine_tuning_epochs=2, fine_tuning_lr=0.01).run()
    assert [call["epochs"] for call in spy.calls] == [4, 2, 2]
    assert [call["lrs"] for call in spy.calls] == [[0.1], [0.01], [0.01]]


def test_fine_tuning_epochs_default_to_training_epochs(build: Any) -> None:
    spy = Spy()
    build(train_loop_fn=spy, max_training_epochs=4).run()
    assert [call["epochs"] for call in spy.calls] == [4, 4, 4]
    assert [call["lrs"] for call in spy.calls] == [[0.1]] * 3


def test_reset_learner_starts_each_step_from_the_initial_weights(build: Any) -> None:
    starts: list[torch.Tensor] = []

    def loop(model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int, **kwargs: Any) -> None:
        starts.append(model.weight.detach().clone())
        with torch.no_grad():
            model.weight += 1

    build(train_loop_fn=loop, reset_learner=True).run()
    assert torch.equal(starts[0], starts[1])
    assert torch.equal(starts[1], starts[2])
    starts.clear()
    build(train_loop_fn=loop).run()
    assert torch.equal(starts[0] + 1, starts[1])


@pytest.mark.parametrize("reset", [True, False])
def test_reset_optim_states(build: Any, reset: bool) -> None:
    ages: list[int] = []

    def loop(
        model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int, train_step_fn: Any, **kwargs: Any
    ) -> None:
        state = optimizer.state.get(model.weight, {})
        ages.append(int(state.get("step", 0)))
        for batch in train_dataloader:
            optimizer.zero_grad()
            train_step_fn(model, batch).backward()
            optimizer.step()

    adam = c.OptimizerConfig(torch.optim.Adam, {"lr": 0.01})
    build(train_loop_fn=loop, optimizer_config=adam, reset_optim_states=reset, max_active_learning_steps=2).run()
    assert ages == ([0, 0] if reset else [0, 2])


def test_validation_pool_and_step(build: Any, toys: Any) -> None:
    seen: list[tuple[bool, bool, int]] = []

    def validate(model: Any, batch: Any) -> float:
        seen.append((model.training, torch.is_grad_enabled(), len(batch[1])))
        return 2.5

    validation = toys.pool(n=10, labeled=6)
    driver = build(val_datapool=validation, max_active_learning_steps=1, max_training_epochs=1)
    driver.run(validate_step_fn=validate)
    assert seen == [(False, False, 4), (False, False, 2)]
    assert Run(driver.log_dir).steps()[0]["losses"]["validation_loss"] == 2.5


def test_training_step_given_wins_over_the_learners_own(build: Any) -> None:
    class Learner(torch.nn.Linear):
        calls = 0

        def training_step(self, batch: Any) -> torch.Tensor:
            type(self).calls += 1
            return self(batch[0]).square().mean()

    driver = build(learner=Learner(2, 1), max_active_learning_steps=1)
    driver.run(train_step_fn=lambda model, batch: model(batch[0]).abs().mean())
    assert Learner.calls == 0


def test_no_training_step_names_the_three_ways_to_give_one(build: Any) -> None:
    class Plain:
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            return torch.zeros(2), torch.zeros(1)

        def append(self, item: Any) -> None: ...

    driver = build(train_datapool=Plain(), query_strategies=[], label_strategy=None)
    with pytest.raises(UsageError, match=r"train_step_fn.*training_step.*info"):
        driver.run()
    assert not driver.log_dir.exists()


def test_regression_gets_squared_error(build: Any) -> None:
    inputs = torch.linspace(-1, 1, 20)[:, None].repeat(1, 2)
    pool = TensorPool(inputs, 3 * inputs[:, 0], labeled=range(10), info=DataInfo("regression", features=2))
    driver = build(train_datapool=pool, max_training_epochs=60)
    driver.run()
    assert Run(driver.log_dir).steps()[-1]["losses"]["loss"] < 0.1


def test_dtype_and_device_reach_learner_batches_and_inference(build: Any) -> None:
    spy = Spy()
    driver = build(train_loop_fn=spy, dtype=torch.float64, device="cpu", max_active_learning_steps=1)
    driver.run()
    (call,) = spy.calls
    assert call["dtype"] == torch.float64
    assert call["device"] == torch.device("cpu")
    assert call["batches"][0][0].dtype == torch.float64
    assert call["batches"][0][1].dtype == torch.int64
    assert driver.learner.weight.dtype == torch.float64
    assert driver.infer(torch.zeros(3, 2)).dtype == torch.float64


class Graphs:
    """A batch of graphs, which notes where it is."""

    def __init__(self, items: list[Any], device: str = "nowhere") -> None:
        self.items, self.device = items, device

    def to(self, device: torch.device) -> Graphs:
        return Graphs(self.items, str(device))


def test_batches_that_move_themselves_reach_the_steps_on_the_device(build: Any) -> None:
    seen: list[str] = []

    def loss(model: Any, batch: Any) -> torch.Tensor:
        seen.append(batch.device)
        inputs, targets = (torch.stack(list(map(torch.as_tensor, values))) for values in zip(*batch.items, strict=True))
        return torch.nn.functional.binary_cross_entropy_with_logits(model(inputs)[:, 0], targets.float())

    driver = build(collate_fn=Graphs, val_datapool=problem(), max_active_learning_steps=1, device="cpu")
    driver.run(loss, loss)
    assert set(seen) == {"cpu"}
    assert len(seen) > 2
    driver.inference_fn = lambda learner, inputs: inputs.device
    assert driver.infer(Graphs([])) == "cpu"


class DoubleHead(torch.nn.Module):
    """A body in single precision, with a head that computes in double precision, as Gaussian processes do."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(4, 1, dtype=torch.float64)
        self.body = torch.nn.Linear(2, 4)
        self.register_buffer("noise", torch.ones(1, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert self.body.weight.dtype == x.dtype == torch.float32
        logits: torch.Tensor = self.head(self.body(x).double()) * self.noise
        return logits.float()


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_learner_keeps_the_types_that_it_comes_with(build: Any, optimizer: Any) -> None:
    def new(learner: Any) -> Any:
        chosen = c.OptimizerConfig(optimizer, {"lr": 0.1})
        return build(learner=learner, optimizer_config=chosen, run_id="mixed", train_datapool=problem())

    learner = DoubleHead()
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    driver = new(learner)
    driver.run()
    after = driver.learner.state_dict()
    assert {name: value.dtype for name, value in after.items()} == {name: one.dtype for name, one in before.items()}
    assert all(not torch.equal(after[name], before[name]) for name in after if name != "noise")
    assert driver.dtype == driver.config.dtype == torch.float32
    resumed = new(DoubleHead())
    resumed.restore()
    assert all(torch.equal(value, after[name]) for name, value in resumed.learner.state_dict().items())


def problem() -> TensorPool:
    plain = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    return TensorPool(plain, (plain[:, 0] > 0).long(), labeled=range(8), info=DataInfo("classification", 2, 2, (2,)))


def test_batches_have_the_type_of_the_learner(build: Any) -> None:
    spy = Spy()
    driver = build(train_loop_fn=spy, learner=torch.nn.Linear(2, 1).double(), max_active_learning_steps=1)
    driver.run()
    (call,) = spy.calls
    assert call["dtype"] == driver.dtype == driver.config.dtype == torch.float64
    assert call["batches"][0][0].dtype == torch.float64
    assert driver.learner.weight.dtype == driver.infer(torch.zeros(3, 2)).dtype == torch.float64


def test_dist_manager_gives_the_device(build: Any) -> None:
    manager = alcore.DistributedManager(device="meta")
    assert c.DriverConfig(batch_size=1, dist_manager=manager).device == torch.device("meta")
    driver = build(dist_manager=alcore.DistributedManager())
    driver.run()
    assert (driver.config.dist_manager.rank, driver.config.dist_manager.world_size) == (0, 1)


def test_collate_fn_makes_the_batches(build: Any) -> None:
    spy = Spy()

    def collate(items: list[Any]) -> Any:
        return torch.stack([item[0] for item in items]).sum(0), len(items)

    driver = build(train_loop_fn=spy, collate_fn=collate, max_active_learning_steps=1)
    driver.run()
    assert [batch[1] for batch in spy.calls[0]["batches"]] == [4, 4]


def test_loader_workers_give_the_same_result(build: Any) -> None:
    class Items(TensorPool):
        batch = None  # type: ignore[assignment]

        def __getitem__(self, index: int) -> Any:
            ids = self.labeled_ids[index : index + 1]
            assert self._targets is not None
            return self.inputs(ids)[0], self._targets[ids][0]

    weights = []
    for workers in (0, 2):
        torch.manual_seed(0)
        pool = Items(torch.randn(20, 2), torch.arange(20) % 2, labeled=range(9))
        driver = build(train_datapool=pool, num_dataloader_workers=workers, max_active_learning_steps=2)
        driver.run()
        weights.append(driver.learner.weight.detach().clone())
    assert torch.equal(*weights)


def test_unlabeled_pool_is_chosen_from_and_its_ids_are_completed_to_items(build: Any, toys: Any) -> None:
    unlabeled = toys.pool(n=30, labeled=0)
    train = toys.pool(n=8)
    driver = build(train_datapool=train, unlabeled_datapool=unlabeled, max_active_learning_steps=2)
    driver.run()
    assert [request["sample"] for request in Run(driver.log_dir).requests()] == [0, 1, 2, 3, 4, 5]
    assert len(train) == 14
    assert torch.equal(train[8][0], unlabeled.inputs(torch.tensor([0]))[0])


def test_labels_of_an_unlabeled_pool_come_with_their_inputs(build: Any, toys: Any) -> None:
    class Expert(BaseLabel):
        def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
            while not queue_to_label.empty():
                serialize_queue.put(Label(queue_to_label.get(), 1))

    unlabeled = TensorPool(torch.arange(20.0).reshape(10, 2))
    train = toys.pool(n=8)
    build(
        train_datapool=train, unlabeled_datapool=unlabeled, label_strategy=Expert(), max_active_learning_steps=1
    ).run()
    assert [row.tolist() for row in train.batch(torch.arange(8, 11))] == [[[0, 1], [2, 3], [4, 5]], [1, 1, 1]]


def test_ids_alone_are_refused_before_step_0_where_the_pool_knows_no_answer(build: Any) -> None:
    from alcore_dummy import DummyLabelStrategy

    pool = TensorPool(torch.zeros(10, 2))
    driver = build(unlabeled_datapool=pool, label_strategy=DummyLabelStrategy())
    with pytest.raises(UsageError, match=r"alcore\.Label"):
        driver.run()
    assert not driver.log_dir.exists()


def test_several_query_strategies_never_ask_for_one_sample_twice(build: Any, toys: Any) -> None:
    class Stubborn(BaseQuery):
        def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
            for sample in (8, 9, 20):
                query_queue.put(sample)

    driver = build(query_strategies=[toys.FirstQuery(), Stubborn()], max_active_learning_steps=1)
    driver.run()
    requests = Run(driver.log_dir).requests()
    assert [(request["sample"], request["strategy"]) for request in requests] == [
        (8, "first_query"),
        (9, "first_query"),
        (10, "first_query"),
        (20, "stubborn"),
    ]


@pytest.mark.parametrize(
    "queue_cls", [queue.Queue, queue.LifoQueue, queue.PriorityQueue, queue.SimpleQueue, multiprocessing.Queue]
)
def test_every_queue_gives_the_same_run(build: Any, queue_cls: Any) -> None:
    driver = build(queue_cls=queue_cls)
    driver.run()
    assert driver.train_datapool.labeled_ids.tolist() == list(range(17))


def test_inference_fn_is_used(build: Any) -> None:
    class Largest(PointwiseQuery):
        def score(self, outputs: Any) -> torch.Tensor:
            return outputs

    driver = build(
        query_strategies=[Largest(2)],
        inference_fn=lambda model, inputs: inputs[:, 0],
        max_active_learning_steps=1,
    )
    driver.run()
    inputs = driver.train_datapool.inputs(torch.arange(8, 40))[:, 0]
    best = (inputs.argsort(descending=True)[:2] + 8).tolist()
    assert [request["sample"] for request in Run(driver.log_dir).requests()] == best


def test_inference_leaves_every_mode_as_it_was(build: Any) -> None:
    learner = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
    driver = build(learner=learner)
    learner.train()
    learner[1].eval()
    driver.infer(torch.zeros(3, 2))
    assert [module.training for module in learner] == [True, False, True]


# -- labels -------------------------------------------------------------------------------------------


class Scripted(BaseLabel):
    """Put what a function makes of the list of requested items."""

    def __init__(self, script: Any) -> None:
        self.script = script

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        items = []
        while not queue_to_label.empty():
            items.append(queue_to_label.get())
        for answer in self.script(items):
            serialize_queue.put(answer)


def test_answers_are_appended_in_request_order_whatever_their_own(build: Any) -> None:
    driver = build(label_strategy=Scripted(reversed), max_active_learning_steps=1)
    driver.run()
    assert driver.train_datapool.labeled_ids.tolist()[8:] == [8, 9, 10]


def test_requests_that_are_left_or_given_back_come_again_before_new_ones(build: Any) -> None:
    rounds: list[list[int]] = []

    class First(BaseLabel):
        def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
            taken = queue_to_label.get_many(queue_to_label.qsize() - 1)
            rounds.append([taken_request.item for taken_request in taken])
            serialize_queue.put(taken[0].item)
            for taken_request in taken[1:]:
                queue_to_label.give_back(taken_request)

    build(label_strategy=First(), max_active_learning_steps=2).run()
    assert rounds == [[8, 9], [9, 10, 11, 12]]


def test_strategy_that_keeps_what_it_took_is_warned_of_once(build: Any, caplog: pytest.LogCaptureFixture) -> None:
    build(label_strategy=Scripted(lambda items: items[:1]), max_active_learning_steps=2).run()
    (warning,) = [message for message in caplog.messages if "has taken requests" in message]
    assert "give_back" in warning


def test_failed_requests_are_tried_again_and_then_set_aside(build: Any) -> None:
    tries: list[int] = []

    class Flaky(BaseLabel):
        def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
            while not queue_to_label.empty():
                request = queue_to_label.get_request()
                tries.append(request.attempt)
                good = request.item != 9
                serialize_queue.put(request.item if good else Failed(request.item, "the oven is off"))

    driver = build(label_strategy=Flaky(), label_retries=2, max_active_learning_steps=2)
    driver.run()
    run = Run(driver.log_dir)
    assert tries[:5] == [0, 0, 0, 1, 2]
    assert {request["sample"]: request["state"] for request in run.requests()}[9] == "failed"
    assert run.steps()[0]["failed"] == 1
    assert run.refused()[0]["reason"] == "the oven is off"
    assert 9 not in driver.train_datapool.labeled_ids.tolist()


def test_generated_inputs_are_asked_for_and_answered(build: Any) -> None:
    class Invent(BaseQuery):
        def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
            query_queue.put(torch.tensor([0.5, -0.5]))
            query_queue.put(torch.tensor([2.0, 3.0]))

    answers = Scripted(lambda items: [Label(items[1], 1), Label(items[0], 0)])
    driver = build(query_strategies=[Invent()], label_strategy=answers, max_active_learning_steps=1)
    driver.run()
    inputs, targets = driver.train_datapool.batch(torch.tensor([8, 9]))
    assert inputs.tolist() == [[0.5, -0.5], [2.0, 3.0]]
    assert targets.tolist() == [0, 1]


def test_none_is_no_request(build: Any) -> None:
    class Nothing(BaseQuery):
        def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
            query_queue.put(None)

    with pytest.raises(QueryError, match="nothing put None"):
        build(query_strategies=[Nothing()]).run()


# -- what is left behind ------------------------------------------------------------------------------


def test_the_run_directory_tells_what_happened(build: Any) -> None:
    driver = build()
    driver.run()
    log = json.loads((driver.log_dir / "driver_log.json").read_text())
    assert log["status"] == "done"
    assert log["reason"] == "all 3 steps are done"
    assert [step["labeled"] for step in log["steps"]] == [3, 3, 3]
    assert set(log["steps"][0]["seconds"]) == {"training", "metrology", "query", "labeling"}
    records = json.loads((driver.log_dir / "count_metrology.json").read_text())
    assert records == [{"step": i, "train_samples": 8 + 3 * i, "labelled": 8.0 + 3 * i} for i in range(3)]
    assert "step 2: 14 training samples" in (driver.log_dir / "console.log").read_text()
    assert "built in Python" in (driver.log_dir / "experiment.toml").read_text()


def test_requests_say_who_chose_them_and_by_which_model(build: Any) -> None:
    class Largest(PointwiseQuery):
        def score(self, outputs: Any) -> torch.Tensor:
            return outputs[:, 0]

    driver = build(query_strategies=[Largest(3)])
    driver.run()
    requests = Run(driver.log_dir).requests()
    for step in range(3):
        ours = [request for request in requests if request["step"] == step]
        assert [request["rank"] for request in ours] == [0, 1, 2]
        assert [request["score"] for request in ours] == sorted((row["score"] for row in ours), reverse=True)
    assert len({request["model"] for request in requests}) == 3


def test_two_instances_of_a_metrology_have_files_of_their_own(build: Any, toys: Any) -> None:
    driver = build(metrology_strategies=[toys.CountMetrology(), toys.CountMetrology()])
    driver.run()
    names = {path.name for path in driver.log_dir.glob("*.json")}
    assert names == {"driver_log.json", "count_metrology.json", "count_metrology-2.json"}


def test_an_existing_run_is_refused_and_left_alone(build: Any) -> None:
    build(run_id="mine").run()
    again = build(run_id="mine")
    before = (again.log_dir / "run.db").read_bytes()
    with pytest.raises(RunExistsError, match="mine"):
        again.run()
    assert (again.log_dir / "run.db").read_bytes() == before


@pytest.mark.parametrize("run_id", ["", "../out", "a/b", ".hidden", "a b", "x" * 101])
def test_run_ids_that_are_no_names_are_refused(run_id: str) -> None:
    with pytest.raises(UsageError, match="run id"):
        c.DriverConfig(batch_size=1, run_id=run_id)


def test_warnings_reach_people_who_set_up_no_logging(build: Any, toys: Any, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    try:
        driver = build(query_strategies=[toys.FirstQuery(), toys.FirstQuery()], max_active_learning_steps=1, budget=2)
        driver.run()
    finally:
        root.handlers = handlers
    assert "over the budget" in capsys.readouterr().err


# -- parts that don't fit -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"query_strategies": [object()]}, "query strategy object has no sample and no attach"),
        ({"queue_cls": list}, "without put and get"),
        ({"device": "cuda"}, "sees no CUDA"),
    ],
)
def test_parts_that_do_not_fit_are_refused(build: Any, settings: dict[str, Any], message: str) -> None:
    if settings.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(UsageError, match=message):
        build(**settings).run()


# -- what parts are given --------------------------------------------------------------------------------


class Loop:
    """A training loop that may look at the run and refuse it."""

    def __init__(self, log: list[str], fault: str | None = None) -> None:
        self.log, self.fault = log, fault

    def attach(self, context: Any) -> None:
        self.context = context
        self.log.append("attach")

    def check(self) -> None:
        self.log.append(f"check {self.context.active_learning_step_idx}")
        if self.fault:
            raise UsageError(self.fault)

    def __call__(self, model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int) -> None:
        self.log.append("train")


def test_loop_is_attached_and_checked_before_step_0(build: Any) -> None:
    log: list[str] = []
    driver = build(train_loop_fn=Loop(log), max_active_learning_steps=1)
    assert log == ["attach"]
    driver.run()
    assert log == ["attach", "check 0", "train"]


def test_loop_that_refuses_the_run_is_named(build: Any) -> None:
    driver = build(train_loop_fn=Loop([], "it needs a GPU"))
    with pytest.raises(UsageError, match=r"^the training loop can't be used here: it needs a GPU$"):
        driver.run()
    assert not driver.log_dir.exists()


def test_loop_is_checked_again_at_resume(build: Any) -> None:
    build(run_id="r", max_active_learning_steps=1).run()
    with pytest.raises(UsageError, match="the training loop can't be used here"):
        build(run_id="r", train_loop_fn=Loop([], "it needs a GPU")).restore()


def test_listeners_get_the_driver_that_they_were_given_to(build: Any) -> None:
    class Watch:
        seen: Any = None

        @alcore.runhook
        def alcore_run_start(self, driver: Any) -> None:
            self.seen = driver

    watch = Watch()
    driver = build(plugins=[watch], max_active_learning_steps=0)
    driver.run()
    assert watch.seen is driver


def test_driver_has_every_member_of_the_run_context(build: Any) -> None:
    driver = build()
    members = {name for name in vars(RunContext) if not name.startswith("_")}
    assert len(members) > 25
    assert {name for name in members if not hasattr(driver, name)} == set()
    methods = {name for name in members if callable(getattr(RunContext, name))}
    assert {name for name in methods if not callable(getattr(driver, name))} == set()


def test_pools_have_other_names(build: Any, toys: Any) -> None:
    held_out, unlabeled = toys.pool(labeled=4), toys.pool(labeled=0)
    driver = build(val_datapool=held_out, unlabeled_datapool=unlabeled)
    assert driver.training_pool is driver.train_datapool
    assert driver.validation_pool is driver.val_datapool is held_out
    assert driver.unlabeled_pool is driver.unlabeled_datapool is driver.choice_pool is unlabeled
    assert build().choice_pool.labeled_ids.tolist() == list(range(8))


def test_spent_counts_the_labels_of_earlier_steps(build: Any, toys: Any) -> None:
    seen = []

    class Watch:
        @alcore.runhook
        def alcore_phase_start(self, driver: Any, phase: Any) -> None:
            if phase == "labeling":
                seen.append(driver.spent())

    class Dear(toys.EchoLabel):
        def cost(self, item: Any) -> float:
            return 2.0

    driver = build(plugins=[Watch()], label_strategy=Dear())
    assert driver.spent() == Spent(0, 0.0)
    driver.run()
    assert seen == [Spent(0, 0.0), Spent(3, 6.0), Spent(6, 12.0)]
    again = build(plugins=[Watch()], label_strategy=Dear(), run_id=driver.run_id, max_active_learning_steps=4)
    again.restore()
    assert again.spent() == Spent(9, 18.0)
    again.run()


@pytest.mark.parametrize(
    ("settings", "trains", "measures"),
    [
        ({}, True, True),
        ({"skip_training": True}, False, True),
        ({"skip_metrology": True}, True, False),
        ({"metrology_strategies": None}, True, False),
    ],
)
def test_context_says_which_phases_the_run_has(
    build: Any, settings: dict[str, Any], trains: bool, measures: bool
) -> None:
    driver = build(**settings)
    assert (driver.trains, driver.measures) == (trains, measures)


def test_class_weights_of_a_regression_are_refused_whoever_computes_the_loss(build: Any, toys: Any) -> None:
    class Own(torch.nn.Linear):
        def training_step(self, batch: Any) -> torch.Tensor:
            return self(batch[0]).mean()

    pool = TensorPool(torch.zeros(4, 2), torch.zeros(4), labeled=[0])
    for learner in (torch.nn.Linear(2, 1), Own(2, 1)):
        with pytest.raises(UsageError, match="the task of this data is regression, which has no classes"):
            build(train_datapool=pool, learner=learner, class_weights="balanced").run()


# -- what the caller gave --------------------------------------------------------------------------------


def test_queue_is_made_once(build: Any) -> None:
    made = []

    def make() -> Any:
        made.append(queue.Queue())
        return made[-1]

    build(queue_cls=make).run()
    assert len(made) == 1


def test_configs_of_the_caller_are_not_written_to(tmp_path: Path, toys: Any) -> None:
    def driver(config: c.DriverConfig, strategies: c.StrategiesConfig, training: c.TrainingConfig) -> Any:
        return alcore.Driver(config, toys.learner(), strategies, training)

    def configs(steps: int) -> tuple[Any, ...]:
        return (
            c.DriverConfig(4, max_active_learning_steps=steps, run_id="r", root_log_dir=tmp_path),
            c.StrategiesConfig([toys.FirstQuery()], queue.Queue, toys.EchoLabel(), [toys.CountMetrology()]),
            c.TrainingConfig(toys.pool(), 1, class_weights="balanced"),
        )

    for steps in (1, 2):
        given = configs(steps)
        before = [dict(vars(config)) for config in given]
        kwargs = dict(given[2].optimizer_config.optimizer_kwargs)
        made = driver(*given)
        if steps == 2:
            made.restore()
        made.run()
        assert [vars(config) for config in given] == before
        assert (len(given[1].query_strategies), len(given[1].metrology_strategies)) == (1, 1)
        assert given[2].optimizer_config.optimizer_kwargs == kwargs


def test_seed_of_a_resumed_run_is_that_of_the_run(build: Any) -> None:
    build(run_id="r", seed=7, max_active_learning_steps=1).run()
    again = build(run_id="r", seed=8)
    again.restore()
    assert again.config.seed == 7
    again.run()


# -- what a newcomer gets wrong --------------------------------------------------------------------------


def test_a_learner_of_another_size_is_told_with_the_shape_of_the_inputs(build: Any) -> None:
    from alcore_uq import ClassifierUQQuery

    with pytest.raises(UsageError, match=r"learner Linear can't take this data's inputs, of shape \(2,\) each: mat1"):
        build(learner=torch.nn.Linear(3, 1), query_strategies=[ClassifierUQQuery()]).run()


@pytest.mark.parametrize(("classes", "columns"), [(3, 2)])
def test_a_learner_with_too_few_outputs_is_refused(build: Any, classes: int, columns: int) -> None:
    pool = TensorPool(torch.zeros(20, 2), torch.arange(20) % classes, labeled=range(8))
    with pytest.raises(UsageError, match=f"has {columns} outputs, and this data has {classes} classes"):
        build(train_datapool=pool, learner=torch.nn.Linear(2, columns)).run()


@pytest.mark.parametrize("change", [lambda ids: ids.flip(0), lambda ids: ids.int(), lambda ids: ids[None], list])
def test_ids_that_are_not_ascending_are_refused_before_step_0(build: Any, toys: Any, change: Any) -> None:
    class Odd(TensorPool):
        def unlabeled_indices(self, start: int = 0, stop: int | None = None) -> Any:
            return change(super().unlabeled_indices(start, stop))

    pool = Odd(torch.zeros(20, 2), torch.arange(20) % 2, labeled=range(8))
    with pytest.raises(UsageError, match=r"Odd\.unlabeled_indices\(\) returned .* ascending"):
        build(train_datapool=pool).run()


def test_a_pool_may_have_a_total_without_windows(build: Any, toys: Any) -> None:
    class Plain(TensorPool):
        total = 40  # type: ignore[assignment]

        def unlabeled_indices(self) -> torch.Tensor:  # type: ignore[override]
            return super().unlabeled_indices()

    pool = Plain(torch.zeros(40, 2), torch.arange(40) % 2, labeled=range(8))
    build(train_datapool=pool, max_active_learning_steps=1).run()
    assert len(pool) == 11


def test_an_interruption_between_phases_waits_for_a_safe_point(build: Any) -> None:
    seen: list[Any] = []

    class Interrupting:
        @alcore.runhook
        def alcore_step_end(self, driver: Any) -> None:
            driver.interrupt()
            seen.append(driver.phase)

    driver = build(plugins=[Interrupting()])
    with pytest.raises(KeyboardInterrupt):
        driver.run()
    assert seen == [None]
    assert len(Run(driver.log_dir).steps()) == 1


def test_an_interruption_reaches_a_label_strategy_that_waits(build: Any) -> None:
    class Waiting(BaseLabel):
        def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
            serialize_queue.put(queue_to_label.get())
            self.driver.interrupt()
            raise AssertionError("it went on waiting")

    driver = build(label_strategy=Waiting())
    with pytest.raises(KeyboardInterrupt):
        driver.run()
    assert [request["state"] for request in Run(driver.log_dir).requests()] == ["labeled", "open", "open"]
