"""Configurations: their defaults are a contract, and a wrong value is named."""

from __future__ import annotations

import dataclasses
import math
import queue
from typing import Any

import pytest
import torch

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
        "checkpoint_interval": 1, "model_checkpoint_frequency": 0, "keep": None, "root_log_dir": "active_learning_logs",
        "dist_manager": None, "collate_fn": None, "num_dataloader_workers": 0, "drop_last": False,
        "device": torch.device("cpu"), "dtype": torch.float32, "seed": 1, "budget": None, "label_retries": 0,
        "samples_per_step": None,
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


@pytest.mark.parametrize("name", ["fine_tuning_lr", "budget"])
def test_amounts(name: str) -> None:
    for wrong in (-0.5, math.nan):
        with pytest.raises(UsageError, match=rf"DriverConfig\.{name} is {wrong!r}; it must not be negative"):
            DriverConfig(4, **{name: wrong})
    for right in (0, 0.0, 0.5, None):
        assert getattr(DriverConfig(4, **{name: right}), name) == right


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
