"""What the tests of experiments share: a registry of made-up plugins, and ways to write an experiment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from alcore import Data, DataInfo, TensorPool
from alcore.experiment import Experiment
from alcore.plugins import Plugin, Registry

INFO = DataInfo("classification", 2, 3, (3,), ("a", "b"))


def suggesting(defaults: Mapping[str, Any]) -> Callable[..., Data]:
    """Return a data factory whose data suggests these defaults."""

    def data(path: Path | None = None, seed: int | None = None) -> Data:
        pool = TensorPool(torch.zeros(4, 3), torch.tensor([0, 1, 0, 1]), labeled=[0, 1], info=INFO)
        return Data(pool, info=INFO, defaults=defaults)

    return data


class Query:
    def __init__(
        self,
        count: int = 1,
        mode: str = "signature",
        device: torch.device = torch.device("cpu"),  # noqa: B008 - a default of that type is what is tested
        dtype: torch.dtype = torch.float64,
        ends: tuple[float, ...] = (0.5, 1.0),
        table: dict[str, Any] | None = None,
        maybe: int | None = None,
    ) -> None:
        self.given = {name: value for name, value in locals().items() if name != "self"}

    def attach(self, driver): ...

    def sample(self, queue): ...


class Metrology(Query):
    def __init__(self) -> None:
        self.records: list[Any] = []

    def compute(self): ...


class Label(Query):
    def __init__(self, price: float = 1.0) -> None: ...

    def label(self, requests, answers): ...


class Loop:
    def __call__(self, model, **arguments): ...


def learner(info: DataInfo, width: int = 2) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(info.features, width), torch.nn.Linear(width, 1))


SUGGESTIONS = {
    "driver": {"batch_size": 7, "max_active_learning_steps": 5},
    "training": {"max_training_epochs": 3, "optimizer": {"cls": "SGD", "lr": 0.5, "momentum": 0.1}},
    "query": {"q": {"mode": "data", "count": 9}},
}


@pytest.fixture
def suggest() -> Callable[[Mapping[str, Any]], Callable[..., Data]]:
    return suggesting


@pytest.fixture
def registry() -> Registry:
    """The parts of the standard run, and beside them data ``s``, which suggests values, queries ``q``, ``other``."""
    offers: dict[str, dict[str, Any]] = {
        "data": {"moons": suggesting({}), "s": suggesting(SUGGESTIONS)},
        "learner": {"mlp": learner},
        "loop": {"default": Loop},
        "query": {"uq": Query, "q": Query},
        "label": {"dummy": Label, "other": Label},
        "metrology": {"f1": Metrology},
        "queue": {"fifo": "queue:Queue", "lifo": "queue:LifoQueue"},
        "stop": {},
        "observe": {},
    }
    return Registry([Plugin("fakes", "1.0", "fakes", "fakes", offers=offers)])


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], Experiment]:
    """Return the experiment of a file with this text."""

    def write(text: str) -> Experiment:
        path = tmp_path / "e.toml"
        path.write_text(text, encoding="utf-8")
        return Experiment.read(path)

    return write


@pytest.fixture
def chosen() -> Callable[..., Experiment]:
    """Return an experiment as the command makes it: ``chosen(*sets, base=experiment of a file, query=[names])``."""

    def make(*sets: str, base: Experiment | None = None, **names: list[str]) -> Experiment:
        experiment = base or Experiment()
        for kind, uses in names.items():
            experiment.choose(kind, uses)
        experiment.complete()
        for text in sets:
            experiment.set(text)
        return experiment

    return make
