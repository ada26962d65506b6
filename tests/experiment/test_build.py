"""From a resolved experiment to a Driver, and to the TOML from which it can be run again."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from alcore import Data, DataInfo, TensorPool
from alcore.errors import UsageError
from alcore.experiment import Experiment, build
from alcore.experiment.resolve import resolve
from alcore.experiment.settings import digest_of
from alcore.plugins import Plugin, Registry

INFO = DataInfo("classification", 2, 3, (3,), ("a", "b"))


def data(path: Path | None = None, seed: int | None = None) -> Data:
    pool = TensorPool(torch.zeros(4, 3), torch.tensor([0, 1, 0, 1]), labeled=[0, 1], info=INFO)
    return Data(pool, info=INFO)


class Query:
    def __init__(
        self,
        count: int = 1,
        device: torch.device = torch.device("cpu"),  # noqa: B008 - a default of that type is what is tested
        dtype: torch.dtype = torch.float64,
        ends: tuple[float, ...] = (0.5, 1.0),
        table: dict[str, Any] | None = None,
        maybe: int | None = None,
    ) -> None:
        self.given = {"count": count, "device": device, "dtype": dtype, "ends": ends, "table": table, "maybe": maybe}

    def attach(self, driver): ...

    def sample(self, queue): ...


class Metrology(Query):
    def __init__(self) -> None:
        self.records: list[Any] = []

    def compute(self): ...


class Label(Query):
    def __init__(self, price: float = 1.0) -> None: ...

    def label(self, requests, answers): ...


def learner(info: DataInfo, width: int = 2) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(info.features, width), torch.nn.Linear(width, 1))


class Loop:
    def __call__(self, model, **arguments): ...


@pytest.fixture
def registry():
    offers = {
        "data": {"moons": data}, "learner": {"mlp": learner}, "loop": {"default": Loop}, "query": {"uq": Query},
        "label": {"dummy": Label}, "metrology": {"f1": Metrology}, "queue": {"fifo": "queue:Queue"},
    }  # fmt: skip
    return Registry([Plugin("fakes", "1.0", "fakes", "fakes", offers=offers)])


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def experiment(*sets, **names):
    result = Experiment()
    for kind, uses in names.items():
        result.choose(kind, uses)
    result.complete()
    for text in sets:
        result.set(text)
    return result


def written(resolved):
    return tomllib.loads(build.to_toml(resolved))


def test_settings_and_parts_reach_the_driver(registry, tmp_path):
    sets = [f"driver.root_log_dir={tmp_path}", "driver.batch_size=3", "driver.dtype=float64", "driver.seed=4",
            "driver.budget=2", "query.uq.count=5", "training.max_training_epochs=6", "training.optimizer.lr=0.5",
            "training.scheduler.cls=StepLR", "training.scheduler.step_size=2", "learner.mlp.width=7"]  # fmt: skip
    resolved = resolve(experiment(*sets), registry)
    driver = build.build(resolved, registry, run_id="mine")
    assert driver.log_dir == tmp_path / "mine"
    assert not driver.log_dir.exists(), "building touches no disk"
    assert (driver.config.batch_size, driver.config.seed, driver.config.budget) == (3, 4, 2)
    assert driver.dtype == torch.float64
    assert driver.query_strategies[0].given["count"] == 5
    assert driver.learner[0].out_features == 7
    assert driver.training_config.max_training_epochs == 6
    assert driver.training_config.optimizer_config.optimizer_kwargs == {"lr": 0.5}
    assert driver.training_config.optimizer_config.scheduler_cls is torch.optim.lr_scheduler.StepLR
    assert driver.train_datapool is resolved.data.train
    assert driver.description == build.to_toml(resolved)


@pytest.mark.parametrize(("given", "weights"), [("balanced", "balanced"), ("[1, 2.5]", [1.0, 2.5])])
def test_sampler_and_class_weights_reach_the_driver_and_the_file(registry, given, weights):
    resolved = resolve(experiment("training.sampler=balanced", f"training.class_weights={given}"), registry)
    config = build.build(resolved, registry).training_config
    assert (config.sampler, config.class_weights) == ("balanced", weights)
    training = written(resolved)["training"]
    assert (training["sampler"], training["class_weights"]) == ("balanced", weights)


def test_the_same_seed_builds_the_same_weights(registry):
    weights = []
    for seed in (3, 3, 4):
        torch.manual_seed(len(weights))
        driver = build.build(resolve(experiment(f"driver.seed={seed}"), registry), registry)
        weights.append(driver.learner[0].weight.detach().clone())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_what_is_written_is_complete_and_names_every_default(registry):
    tree = written(resolve(experiment(), registry))
    assert tree["query"]["uq"] == {"count": 1, "device": "cpu", "dtype": "float64", "ends": [0.5, 1.0]}
    assert tree["learner"]["mlp"] == {"width": 2}
    assert tree["label"]["dummy"] == {"price": 1.0}
    assert tree["training"]["optimizer"] == {"cls": "AdamW"}
    assert "run_id" not in tree["driver"]
    assert "scheduler" not in tree["training"]


def test_what_is_written_reads_back_as_the_same(registry, tmp_path):
    sets = ["query.uq.count=5", "query.uq-2.dtype=bfloat16", "query.uq-2.table={a = [1, 2.5]}", "driver.seed=9",
            "training.optimizer.cls=SGD", "training.optimizer.lr=0.1", "training.scheduler.cls=ExponentialLR",
            "training.scheduler.gamma=0.5", "driver.fine_tuning_lr=1e-3"]  # fmt: skip
    first = resolve(experiment(*sets, query=["uq", "uq"]), registry)
    path = tmp_path / "experiment.toml"
    path.write_text(build.to_toml(first))
    second = resolve(Experiment.read(path), registry)
    assert build.to_toml(second) == build.to_toml(first)
    assert second.settings == first.settings
    for where in ("query.uq", "query.uq-2"):
        left, right = (Query(**one.values[where]).given for one in (first, second))
        assert left == right
    assert Query(**second.values["query.uq-2"]).given["dtype"] is torch.bfloat16


def test_parts_that_were_left_out_stay_out(registry, tmp_path):
    path = tmp_path / "e.toml"
    path.write_text("[metrology]\n")
    first = resolve(Experiment.read(path), registry)
    path.write_text(build.to_toml(first))
    assert resolve(Experiment.read(path), registry).experiment.parts["metrology"] == []


def test_a_data_file_is_written_absolute_and_with_its_digest(registry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "points.csv").write_text("1\n")
    tree = written(resolve(experiment("data.moons.path=points.csv"), registry))
    assert tree["data"]["moons"]["path"] == str(tmp_path / "points.csv")
    assert tree["digests"] == {str(tmp_path / "points.csv"): digest_of(tmp_path / "points.csv")}


def test_values_with_quotes_and_newlines_survive(registry, tmp_path):
    text = 'a "b"\n[driver]\nseed = 7 \\ é'
    first = resolve(experiment(), registry)
    first.values["query.uq"]["table"] = {text: text}
    path = tmp_path / "e.toml"
    path.write_text(build.to_toml(first), encoding="utf-8")
    second = resolve(Experiment.read(path), registry)
    assert second.values["query.uq"]["table"] == {text: text}
    assert second.settings.driver.seed == 0


def test_a_learner_that_asks_for_more_than_it_gets_is_refused(registry):
    registry.plugins[0].offers["learner"]["mlp"] = learner_with_needs
    with pytest.raises(UsageError, match=r"learner\.mlp\.needed is missing.*--set learner\.mlp\.needed="):
        resolve(experiment(), registry)


def learner_with_needs(needed: int) -> torch.nn.Module:
    return torch.nn.Linear(3, needed)


def test_a_factory_without_signature_that_is_called_wrongly_is_named(registry):
    def positional(_count, /):
        return Query()

    registry.plugins[0].offers["query"]["uq"] = positional
    with pytest.raises(UsageError, match=r"query\.uq can't be built"):
        build.build(resolve(experiment(), registry), registry)


@pytest.mark.parametrize(
    ("sets", "width", "expected"),
    [([], 2, 1), (["driver.threads=2"], 2, 2), ([], 500_000, None)],
    ids=["small learner", "given", "large learner"],
)
def test_the_number_of_threads_suits_the_learner_and_is_written(registry, sets, width, expected):
    torch.set_num_threads(2)
    resolved = resolve(experiment(*sets, f"learner.mlp.width={width}", "driver.batch_size=32"), registry)
    build.build(resolved, registry)
    assert torch.get_num_threads() == (expected or 2)
    assert written(resolved)["driver"]["threads"] == torch.get_num_threads()


def test_the_environment_decides_on_threads_before_the_size_of_the_learner(registry, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    torch.set_num_threads(2)
    build.build(resolve(experiment(), registry), registry)
    assert torch.get_num_threads() == 2
