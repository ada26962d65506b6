"""`build` and `to_toml`: from a resolved experiment to a Driver, and to the file from which it can be run again."""

from __future__ import annotations

import dataclasses
import tomllib

import pytest
import torch

from alcore import Data, TensorPool
from alcore.errors import UsageError
from alcore.experiment import build, resolve, to_toml
from alcore.store.files import sha256_of


@pytest.fixture(autouse=True)
def _threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def resolved(registry, chosen):
    """Return a resolved experiment: ``resolved(*sets, query=[names])``."""
    return lambda *sets, **names: resolve(chosen(*sets, **names), registry)


# -- build -----------------------------------------------------------------------------------------------------


def test_settings_and_parts_reach_the_driver(resolved, tmp_path):
    experiment = resolved(
        f"driver.root_log_dir={tmp_path}", "driver.batch_size=3", "driver.dtype=float64", "driver.seed=4",
        "driver.budget=2", "driver.queue=lifo", "query.uq.count=5", "training.max_training_epochs=6",
        "training.optimizer.lr=0.5", "training.scheduler.cls=StepLR", "training.scheduler.step_size=2",
        "training.sampler=balanced", "training.class_weights=[1, 2.5]", "learner.mlp.width=7",
    )  # fmt: skip
    driver = build(experiment, run_id="mine")
    assert driver.log_dir == tmp_path / "mine"
    assert not driver.log_dir.exists(), "building touches no disk"
    assert (driver.config.batch_size, driver.config.seed, driver.config.budget) == (3, 4, 2)
    assert driver.dtype == torch.float64
    assert driver.query_strategies[0].given["count"] == 5
    assert driver.learner[0].out_features == 7
    assert driver.train_datapool is experiment.data.train
    training = driver.training_config
    assert (training.max_training_epochs, training.sampler, training.class_weights) == (6, "balanced", [1.0, 2.5])
    assert training.optimizer_config.optimizer_kwargs == {"lr": 0.5}
    assert training.optimizer_config.scheduler_cls is torch.optim.lr_scheduler.StepLR


def test_description_of_the_driver_is_the_complete_experiment(resolved):
    experiment = resolved("driver.threads=2")
    assert build(experiment).description == to_toml(experiment)


def test_data_that_says_nothing_of_itself_is_named_where_a_part_is_made_for_it(registry, resolved):
    class Pool(list):
        pass

    registry.plugins[0].offers["data"]["moons"] = lambda: Data(Pool([(torch.zeros(3), torch.tensor(0))]))
    registry.plugins[0].offers["learner"]["mlp"] = lambda info: torch.nn.Linear(info.features, 1)
    with pytest.raises(
        UsageError, match=r"^data\.moons doesn't say what its samples are, and learner\.mlp is made for"
    ):
        build(resolved())


def test_same_seed_builds_the_same_weights(resolved):
    weights = []
    for seed in (3, 3, 4):
        torch.manual_seed(len(weights))
        weights.append(build(resolved(f"driver.seed={seed}")).learner[0].weight.detach().clone())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_part_with_a_missing_parameter_is_refused(registry, resolved):
    def needing(needed: int) -> torch.nn.Module:
        return torch.nn.Linear(3, needed)

    registry.plugins[0].offers["learner"]["mlp"] = needing
    with pytest.raises(UsageError, match=r"learner\.mlp\.needed is missing.*--set learner\.mlp\.needed="):
        resolved()


def test_factory_that_can_not_be_called_is_named(registry, resolved):
    registry.plugins[0].offers["query"]["uq"] = lambda _count, /: None
    with pytest.raises(UsageError, match=r"query\.uq can't be built"):
        build(resolved())


@pytest.mark.parametrize(
    ("sets", "environment", "width", "expected"),
    [([], None, 2, 1), (["driver.threads=2"], None, 2, 2), ([], None, 500_000, 2), ([], "2", 2, 2)],
    ids=["small learner", "given", "large learner", "environment"],
)
def test_number_of_threads_suits_the_learner_and_is_written(resolved, monkeypatch, sets, environment, width, expected):
    if environment:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    torch.set_num_threads(2)
    driver = build(resolved(*sets, f"learner.mlp.width={width}", "driver.batch_size=32"))
    assert torch.get_num_threads() == expected
    assert tomllib.loads(driver.description)["driver"]["threads"] == expected


# -- to_toml ---------------------------------------------------------------------------------------------------


def test_file_has_every_default(resolved):
    tree = tomllib.loads(to_toml(resolved()))
    assert tree["query"]["uq"] == {
        "count": 1, "mode": "signature", "device": "cpu", "dtype": "float64", "ends": [0.5, 1.0],
    }  # fmt: skip
    assert tree["learner"]["mlp"] == {"width": 2}
    assert tree["label"]["dummy"] == {"price": 1.0}
    assert tree["training"]["optimizer"] == {"cls": "AdamW"}
    assert (tree["driver"]["device"], tree["driver"]["queue"]) == ("cpu", "fifo")
    assert "dtype" not in tree["driver"]  # the learner's own
    assert "run_id" not in tree["driver"]
    assert "scheduler" not in tree["training"]


def test_file_reads_back_as_the_same_experiment(registry, read, resolved):
    first = resolved(
        "query.uq.count=5", "query.uq-2.dtype=bfloat16", "query.uq-2.table={a = [1, 2.5]}", "driver.seed=9",
        "training.optimizer.cls=SGD", "training.optimizer.lr=0.1", "training.scheduler.cls=ExponentialLR",
        "training.scheduler.gamma=0.5", "driver.fine_tuning_lr=1e-3", "training.class_weights=[1, 2.5]",
        query=["uq", "uq"],
    )  # fmt: skip
    second = resolve(read(to_toml(first)), registry)
    assert to_toml(second) == to_toml(first)
    assert second.settings == first.settings
    for left, right in zip(first.parts["query"], second.parts["query"], strict=True):
        assert left.factory(**left.values).given == right.factory(**right.values).given
    assert second.parts["query"][1].values["dtype"] is torch.bfloat16


def test_file_keeps_an_empty_table_of_metrology(registry, read):
    first = resolve(read("[metrology]\n"), registry)
    assert resolve(read(to_toml(first)), registry).parts["metrology"] == []


def test_file_has_absolute_data_paths_and_digests(resolved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "points.csv").write_text("1\n")
    tree = tomllib.loads(to_toml(resolved("data.moons.path=points.csv")))
    assert tree["data"]["moons"]["path"] == str(tmp_path / "points.csv")
    assert tree["digests"] == {str(tmp_path / "points.csv"): sha256_of(tmp_path / "points.csv")}


def test_file_keeps_quotes_and_newlines_of_values(registry, read, resolved):
    text = 'a "b"\n[driver]\nseed = 7 \\ é'
    first = resolved()
    first.parts["query"][0].values["table"] = {text: text}
    second = resolve(read(to_toml(first)), registry)
    assert second.parts["query"][0].values["table"] == {text: text}
    assert second.settings.driver["seed"] == 0


# -- nothing is labeled ----------------------------------------------------------------------------------------


def test_random_weights_are_not_let_choose_the_first_samples(resolved, tmp_path):
    unlabeled = Data(TensorPool(torch.zeros(4, 3), torch.tensor([0, 1, 0, 1])))
    experiment = dataclasses.replace(resolved(), data=unlabeled)
    with pytest.raises(UsageError, match=r"no labeled item.*NAME\.initial=.*--start random.*--weights FILE"):
        build(experiment)
    for setting in (f"driver.weights={tmp_path / 'w.safetensors'}", "driver.skip_training=true"):
        assert not len(build(dataclasses.replace(resolved(setting), data=unlabeled)).train_datapool)
