"""A small problem and a way to build drivers on it; the fixtures `build` and `toys` give them to tests."""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alcore import Driver, TensorPool
from alcore import config as c
from alcore.strategies import BaseLabel, BaseMetrology, BaseQuery


class Everything:
    """A strategy of each kind, of no base class."""

    def __init__(self) -> None:
        self.records: list[Any] = []

    def attach(self, driver: Any) -> None: ...

    def sample(self, query_queue: Any) -> None: ...

    def label(self, queue_to_label: Any, serialize_queue: Any) -> None: ...

    def compute(self) -> None: ...


class FirstQuery(BaseQuery):
    """Ask for the candidates with the lowest ids."""

    def __init__(self, max_samples: int = 3) -> None:
        self.max_samples = max_samples

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        left = self.max_samples
        for ids in self.driver.candidates():
            for sample in ids[:left].tolist():
                query_queue.put(sample)
            left -= min(left, len(ids))


class EchoLabel(BaseLabel):
    """Answer with the sample id, one commit each."""

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        while not queue_to_label.empty():
            serialize_queue.put(queue_to_label.get())


class CountMetrology(BaseMetrology):
    """Record how many samples are labelled."""

    def compute(self, *args: Any, **kwargs: Any) -> None:
        self.append_record(labelled=float(len(self.driver.train_datapool)))


class Toys:
    """The parts, under short names."""

    FirstQuery, EchoLabel, CountMetrology = FirstQuery, EchoLabel, CountMetrology

    @staticmethod
    def pool(n: int = 40, labeled: int = 8, **kwargs: Any) -> TensorPool:
        """Return two Gaussian clouds, of which the first few samples are labelled."""
        draw = torch.Generator().manual_seed(3)
        targets = torch.arange(n) % 2
        inputs = torch.randn(n, 2, generator=draw) + 2.0 * targets[:, None]
        return TensorPool(inputs, targets, labeled=range(labeled), **kwargs)

    @staticmethod
    def learner(seed: int = 0) -> torch.nn.Module:
        """Return a linear classifier of two features."""
        torch.manual_seed(seed)
        return torch.nn.Linear(2, 1)


@pytest.fixture
def toys() -> type[Toys]:
    return Toys


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Driver]:
    """Return a function that builds a driver; its keywords replace single settings of any of the configs."""

    def make(**settings: Any) -> Driver:
        parts: dict[str, dict[str, Any]] = {
            "config": {"batch_size": 4, "max_active_learning_steps": 3, "root_log_dir": tmp_path / "runs", "seed": 0},
            "training": {
                "train_datapool": Toys.pool(),
                "max_training_epochs": 2,
                "optimizer_config": c.OptimizerConfig(torch.optim.SGD, {"lr": 0.1}),
            },
            "strategies": {
                "query_strategies": [FirstQuery()],
                "queue_cls": queue.Queue,
                "label_strategy": EchoLabel(),
                "metrology_strategies": [CountMetrology()],
            },
            "driver": {"learner": Toys.learner()},
        }
        homes = {
            "config": c.DriverConfig,
            "training": c.TrainingConfig,
            "strategies": c.StrategiesConfig,
            "driver": Driver,
        }
        for name, value in settings.items():
            home = next(part for part, cls in homes.items() if name in cls.__init__.__annotations__)
            parts[home][name] = value
        return Driver(
            config=c.DriverConfig(**parts["config"]),
            strategies_config=c.StrategiesConfig(**parts["strategies"]),
            training_config=parts["driver"].pop("training_config", c.TrainingConfig(**parts["training"])),
            **parts["driver"],
        )

    return make
