"""Configurations: their defaults are a contract, and a wrong value is named."""

from __future__ import annotations

import dataclasses
import math
import queue
from typing import Any

import numpy as np
import pytest
import torch
from helpers.toys import Everything

from alcore.config import DriverConfig, OptimizerConfig, StrategiesConfig, TrainingConfig
from alcore.distributed import DistributedManager
from alcore.errors import UsageError


def test_defaults_are_those_of_the_specification() -> None:
    optimizer = OptimizerConfig()
    assert (optimizer.optimizer_cls, optimizer.optimizer_kwargs) == (torch.optim.AdamW, {"lr": 1e-4})
    assert (optimizer.scheduler_cls, optimizer.scheduler_kwargs) == (None, {})
    training = TrainingConfig([], 5)
    assert dataclasses.asdict(training) == {
        "train_datapool": [], "max_training_epochs": 5, "val_datapool": None,
        "optimizer_config": dataclasses.asdict(optimizer), "max_fine_tuning_epochs": None, "reset_learner": False,
        "train_loop_fn": None, "sampler": None, "class_weights": None,
    }  # fmt: skip
    strategies = StrategiesConfig([], queue.Queue)
    assert strategies.label_strategy is strategies.metrology_strategies is strategies.unlabeled_datapool is None
    config = DriverConfig(4, seed=1)
    assert dataclasses.asdict(config) == {
        "batch_size": 4, "max_active_learning_steps": None, "run_id": None, "fine_tuning_lr": None,
        "reset_optim_states": True, "skip_training": False, "skip_metrology": False, "skip_labeling": False,
        "checkpoint_interval": 1, "checkpoint_on_training": False, "checkpoint_on_metrology": False,
        "checkpoint_on_query": False, "checkpoint_on_labeling": True,
        "model_checkpoint_frequency": 0, "keep": None, "root_log_dir": "active_learning_logs",
        "dist_manager": None, "collate_fn": None, "num_dataloader_workers": 0, "drop_last": False,
        "device": torch.device("cpu"), "dtype": torch.float32, "seed": 1, "budget": None, "label_retries": 0,
        "samples_per_step": None, "per_cost": False, "resume": "never", "final_training": False,
        "max_failure_rate": 0.5, "feasibility": "off", "weights": None, "weights_sha256": None,
    }  # fmt: skip


def test_a_retention_is_read_at_once() -> None:
    assert DriverConfig(4, keep="last=3,best=f1,every=10").keep == "last=3,best=f1,every=10"
    with pytest.raises(UsageError, match="keep 'last=0': last takes a whole number"):
        DriverConfig(4, keep="last=0")


def test_defaults_are_not_shared() -> None:
    OptimizerConfig().optimizer_kwargs["lr"] = 1.0  # type: ignore[index]
    assert OptimizerConfig().optimizer_kwargs == {"lr": 1e-4}


def test_epochs_of_a_step() -> None:
    assert [TrainingConfig([], 5).epochs(step) for step in range(3)] == [5, 5, 5]
    assert [TrainingConfig([], 5, max_fine_tuning_epochs=2).epochs(step) for step in range(3)] == [5, 2, 2]
    assert [TrainingConfig([], 5, max_fine_tuning_epochs=0).epochs(step) for step in range(2)] == [5, 0]


@pytest.mark.parametrize(
    ("name", "least"),
    [("batch_size", 1), ("max_active_learning_steps", 0), ("checkpoint_interval", 0),
     ("model_checkpoint_frequency", 0), ("num_dataloader_workers", 0), ("label_retries", 0)],
)  # fmt: skip
def test_counts_of_a_driver(name: str, least: int) -> None:
    assert getattr(DriverConfig(**{"batch_size": 4, name: least}), name) == least
    for wrong in (least - 1, 1.5, "4", True):
        with pytest.raises(
            UsageError, match=rf"DriverConfig\.{name} is {wrong!r}; it must be an integer of at least {least}"
        ):
            DriverConfig(**{"batch_size": 4, name: wrong})


@pytest.mark.parametrize("name", ["max_training_epochs", "max_fine_tuning_epochs"])
@pytest.mark.parametrize("wrong", [-1, 2.0, False])
def test_counts_of_a_training(name: str, wrong: Any) -> None:
    with pytest.raises(UsageError, match=rf"TrainingConfig\.{name} is {wrong!r}; it must be an integer of at least 0"):
        TrainingConfig(**{"train_datapool": [], "max_training_epochs": 5, name: wrong})


@pytest.mark.parametrize("wrong", [-0.5, math.nan, "40", True, [1.0]])
def test_budget_is_a_number_of_at_least_0(wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"DriverConfig\.budget is .*; it must be a number of at least 0"):
        DriverConfig(4, budget=wrong)
    for right in (0, 0.0, 0.5, math.inf, None):
        assert DriverConfig(4, budget=right).budget == right


@pytest.mark.parametrize("wrong", [0, 0.0, -0.5, math.nan, math.inf, "0.1", True, [0.1], torch.zeros(2)])
def test_learning_rate_is_a_positive_number(wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"DriverConfig\.fine_tuning_lr is .* positive number"):
        DriverConfig(4, fine_tuning_lr=wrong)
    with pytest.raises(UsageError, match=r"OptimizerConfig\.optimizer_kwargs\['lr'\] is .* positive number"):
        OptimizerConfig(optimizer_kwargs={"lr": wrong})
    for right in (1, 0.5, np.float32(0.5), torch.tensor(0.1)):
        assert DriverConfig(4, fine_tuning_lr=right).fine_tuning_lr is right
        assert OptimizerConfig(optimizer_kwargs={"lr": right}).optimizer_kwargs["lr"] is right


def test_arguments_of_a_scheduler_need_a_scheduler() -> None:
    with pytest.raises(UsageError, match=r"scheduler_kwargs is \{'step_size': 3\}, and there is no scheduler_cls"):
        OptimizerConfig(scheduler_kwargs={"step_size": 3})
    assert OptimizerConfig(scheduler_cls=torch.optim.lr_scheduler.StepLR, scheduler_kwargs={"step_size": 3})


NEEDED: dict[type[Any], dict[str, Any]] = {
    OptimizerConfig: {},
    TrainingConfig: {"train_datapool": [], "max_training_epochs": 1},
    StrategiesConfig: {"query_strategies": [], "queue_cls": queue.Queue},
    DriverConfig: {"batch_size": 4},
}
PARTS = {"train_datapool", "val_datapool", "unlabeled_datapool"}
"""Fields whose objects the Driver checks, since what they need depends on the other parts."""


@pytest.mark.parametrize(
    ("config", "field"),
    [(config, field.name) for config in NEEDED for field in dataclasses.fields(config) if field.name not in PARTS],
)
def test_value_of_a_wrong_type_is_refused_by_the_name_of_its_field(config: type[Any], field: str) -> None:
    with pytest.raises(UsageError, match=rf"{config.__name__}\.{field}\b") as refused:
        config(**{**NEEDED[config], field: object()})
    assert "object" in str(refused.value)


def test_resuming_by_itself_needs_a_run_id() -> None:
    with pytest.raises(UsageError, match="resume is 'auto', and there is no run_id"):
        DriverConfig(4, resume="auto")
    assert DriverConfig(4, run_id="mine", resume="auto").resume == "auto"


def test_seed_of_any_integer_type_is_taken() -> None:
    assert type(DriverConfig(4, seed=np.int64(7)).seed) is int  # type: ignore[arg-type]
    assert TrainingConfig([], 1, train_loop_fn=lambda *_: None)
    assert DriverConfig(4, collate_fn=list)


def test_class_of_a_loop_is_not_a_loop() -> None:
    class Loop:
        def __call__(self, *arguments: Any) -> None: ...

    with pytest.raises(UsageError, match=r"train_loop_fn is the class Loop; give an object of it: Loop\(\)"):
        TrainingConfig([], 1, train_loop_fn=Loop)


@pytest.mark.parametrize("wrong", ["../out", "", ".a", "a/b"])
def test_a_run_id_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError, match="run id"):
        DriverConfig(4, run_id=wrong)
    assert DriverConfig(4, run_id="a-long-run-id.2026").run_id == "a-long-run-id.2026"


def test_the_seed_is_the_global_one_where_none_is_given() -> None:
    torch.manual_seed(77)
    assert DriverConfig(4).seed == 77
    assert DriverConfig(4, seed=0).seed == 0


def test_device_and_dtype() -> None:
    assert DriverConfig(4, device="meta").device == torch.device("meta")
    assert DriverConfig(4, dist_manager=DistributedManager("meta")).device == torch.device("meta")
    assert DriverConfig(4, device="cpu", dist_manager=DistributedManager("meta")).device == torch.device("cpu")
    with torch.device("meta"):
        assert DriverConfig(4).device == torch.device("meta")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert DriverConfig(4).dtype == torch.float64
    finally:
        torch.set_default_dtype(before)
    with pytest.raises(UsageError, match=r"DriverConfig\.device: .*gpu"):
        DriverConfig(4, device="gpu")
    with pytest.raises(UsageError, match=r"DriverConfig\.dtype is torch\.int64"):
        DriverConfig(4, dtype=torch.int64)


@pytest.mark.parametrize("wrong", [queue.Queue(), None, "queue.Queue"])
def test_the_queue_is_given_as_a_class(wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"StrategiesConfig\.queue_cls is .*; give a class such as queue\.Queue"):
        StrategiesConfig([], wrong)


KINDS = {
    "query_strategies": ("query", "sample"),
    "start_strategy": ("query", "sample"),
    "label_strategy": ("label", "label"),
    "metrology_strategies": ("metrology", "compute"),
}


def with_strategy(field: str, part: Any) -> StrategiesConfig:
    given = [part] if field.endswith("ies") else part
    return StrategiesConfig(**{"query_strategies": [], "queue_cls": queue.Queue, field: given})


@pytest.mark.parametrize("field", KINDS)
def test_strategy_is_an_object_with_the_methods_of_its_protocol(field: str) -> None:
    kind, method = KINDS[field]
    assert with_strategy(field, Everything())
    none = rf"StrategiesConfig\.{field}: {kind} strategy object has no {method} and no attach; see alcore\.protocols"
    with pytest.raises(UsageError, match=none):
        with_strategy(field, object())
    for missing in (method, "attach"):
        part: Any = Everything()
        setattr(part, missing, None)
        with pytest.raises(UsageError, match=rf"{field}: {kind} strategy Everything has no {missing};"):
            with_strategy(field, part)
    of_class = rf"StrategiesConfig\.{field}: the {kind} strategy is the class Everything; give an object of it: Everyth"
    with pytest.raises(UsageError, match=of_class):
        with_strategy(field, Everything)


@pytest.mark.parametrize("field", ["query_strategies", "metrology_strategies"])
def test_list_of_strategies_has_no_none_and_no_object_twice(field: str) -> None:
    with pytest.raises(UsageError, match=rf"StrategiesConfig\.{field}: .* strategy NoneType has no"):
        with_strategy(field, None)
    part = Everything()
    with pytest.raises(UsageError, match=rf"StrategiesConfig\.{field}: one .* strategy object is given twice"):
        StrategiesConfig(**{"query_strategies": [], "queue_cls": queue.Queue, field: [part, part]})


def test_metrology_strategy_has_a_list_of_records() -> None:
    part: Any = Everything()
    part.records = ()
    with pytest.raises(
        UsageError, match=r"StrategiesConfig\.metrology_strategies: .* Everything needs a list 'records'"
    ):
        with_strategy("metrology_strategies", part)
