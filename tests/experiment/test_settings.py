"""The tables [driver] and [training]: types, values, and that no code but torch's own can be named."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alcore import config
from alcore.errors import UsageError
from alcore.experiment import settings as tables
from alcore.plugins import Plugin, Registry
from alcore.plugins.signatures import Given

REGISTRY = Registry([Plugin("fakes", "1", "f", "f", offers={"queue": {"fifo": list, "lifo": list}})])


def check(driver=None, training=None):
    return tables.check({"driver": driver or {}, "training": training or {}}, REGISTRY)


def faults(**given):
    found = check(**given)[1]
    assert found == tables.check({"driver": {}, "training": {}, **given}, REGISTRY)[1]
    return found


def test_the_driver_table_has_the_fields_and_defaults_of_the_config():
    """A field of `DriverConfig` that the command can't reach would be a surprise."""
    table = {one.name: one.default for one in dataclasses.fields(tables.DriverTable)}
    fields = {one.name: one.default for one in dataclasses.fields(config.DriverConfig)}
    not_in_a_file = {"run_id", "dist_manager", "collate_fn"}
    assert set(table) - {"threads", "queue"} == set(fields) - not_in_a_file
    chosen_by_the_command = {"batch_size", "device", "dtype", "seed"}
    for name in set(fields) - not_in_a_file - chosen_by_the_command:
        assert table[name] == fields[name], name


def test_samplers_and_class_weights_that_are_none():
    (sampler,) = faults(training={"sampler": "balance"})
    assert sampler.startswith("training.sampler is 'balance'")
    assert "balanced" in sampler
    (weights,) = faults(training={"class_weights": "even"})
    assert weights.startswith("training.class_weights is 'even'")
    assert "balanced" in weights
    assert faults(training={"sampler": "balanced", "class_weights": [1, 2]}) == []


def test_nothing_given_is_the_default():
    settings, wrong = check()
    assert wrong == []
    assert settings.driver == tables.DriverTable()
    assert settings.training == tables.TrainingTable()
    assert (settings.optimizer_cls, settings.optimizer_kwargs) == (torch.optim.AdamW, {})
    assert (settings.scheduler_cls, settings.scheduler_kwargs) == (None, {})


@pytest.mark.parametrize(
    ("driver", "fragments"),
    [
        ({"batch_sice": 3}, ["'batch_sice'", "did you mean 'batch_size'?"]),
        ({"batch_size": 2.5}, ["driver.batch_size is 2.5", "int"]),
        ({"drop_last": "yes"}, ["driver.drop_last is 'yes'", "bool"]),
        ({"seed": None}, ["driver.seed"]),
        ({"device": "quantum"}, ["driver.device is 'quantum'", "cuda"]),
        ({"dtype": "float23"}, ["driver.dtype", "'float23'", "float64"]),
        ({"queue": "fivo"}, ["driver.queue", "did you mean 'fifo'?"]),
        ({"threads": -1}, ["driver.threads is -1", "at least 1"]),
        ({"threads": 0}, ["driver.threads is 0", "at least 1"]),
    ],
)
def test_a_wrong_setting_is_told(driver, fragments):
    (message,) = faults(driver=driver)
    for fragment in fragments:
        assert fragment in message


def test_settings_are_read_from_the_command_line_too():
    settings, wrong = check({"batch_size": Given("9"), "root_log_dir": Given("2024"), "queue": Given("lifo")})
    assert wrong == []
    assert settings.driver == tables.DriverTable(batch_size=9, root_log_dir="2024", queue="lifo")
    assert tables.seed_of({"driver": {"seed": Given("12")}, "training": {}}) == 12


def test_optimizer_and_scheduler_are_found_with_their_arguments():
    training = {
        "optimizer": {"cls": "SGD", "lr": Given("0.1"), "momentum": 0.9},
        "scheduler": {"cls": "MultiStepLR", "milestones": [3, 5], "gamma": 0.5},
        "max_training_epochs": 4,
    }
    settings, wrong = check(training=training)
    assert wrong == []
    assert settings.training.max_training_epochs == 4
    optimizer = settings.optimizer_cls([torch.nn.Parameter(torch.zeros(1))], **settings.optimizer_kwargs)
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["momentum"] == 0.9
    scheduler = settings.scheduler_cls(optimizer, **settings.scheduler_kwargs)
    assert dict(scheduler.milestones) == {3: 1, 5: 1}
    assert check(training={"optimizer": {"cls": "torch.optim.SGD"}})[0].optimizer_cls is torch.optim.SGD


@pytest.mark.parametrize("kind", ["optimizer", "scheduler"])
@pytest.mark.parametrize(
    "cls",
    [
        "os.system", "os:system", "builtins.eval", "subprocess.Popen", "Optimizer", "LRScheduler", "Tensor", "torch",
        "lr_scheduler", "__builtins__", "__class__", "warn", "partial", "defaultdict", "Counter", "", "SGD()", 3,
    ],
)  # fmt: skip
def test_no_other_code_can_be_named(kind, cls):
    """An experiment file from a stranger names torch's own optimizers and schedulers or nothing."""
    settings, wrong = check(training={kind: {"cls": cls, "lr": 1}})
    assert wrong
    assert f"training.{kind}" in wrong[0]
    assert settings.optimizer_cls is torch.optim.AdamW
    assert settings.scheduler_cls is None


@given(st.text() | st.sampled_from([*vars(torch.optim), *vars(torch.optim.lr_scheduler)]))
def test_whatever_is_accepted_is_a_class_of_torch(cls):
    settings, wrong = check(training={"optimizer": {"cls": cls}})
    if not wrong:
        assert issubclass(settings.optimizer_cls, torch.optim.Optimizer)
        assert settings.optimizer_cls.__module__.partition(".optim")[0] == "torch"
    settings, wrong = check(training={"scheduler": {"cls": cls}})
    if not wrong and settings.scheduler_cls is not None:
        assert issubclass(settings.scheduler_cls, torch.optim.lr_scheduler.LRScheduler)
        assert settings.scheduler_cls.__module__ == "torch.optim.lr_scheduler"


@pytest.mark.parametrize(
    ("training", "fragments"),
    [
        ({"optimizer": {"cls": "Adamm"}}, ["training.optimizer.cls is 'Adamm'", "did you mean 'Adam'?"]),
        ({"optimizer": {"cls": "SGD", "momentun": 1}}, ["training.optimizer", "'momentun'", "'momentum'"]),
        ({"optimizer": {"cls": "SGD", "params": []}}, ["training.optimizer", "'params'"]),
        ({"optimizer": {"cls": "SGD", "lr": -1}}, ["training.optimizer", "SGD", "-1"]),
        ({"optimizer": {"cls": "SGD", "lr": "fast"}}, ["training.optimizer", "'fast'"]),
        ({"optimizer": "SGD"}, ["training.optimizer must be a table", "'SGD'"]),
        ({"scheduler": {"gamma": 0.5}}, ["training.scheduler.cls is missing"]),
        ({"scheduler": {"cls": "StepLR", "optimizer": 1}}, ["training.scheduler", "'optimizer'"]),
        ({"scheduler": {"cls": "StepLR", "stepsize": 1}}, ["training.scheduler", "'step_size'"]),
        ({"scheduler": {"cls": "StepLR"}}, ["training.scheduler", "step_size"]),
        ({"scheduler": {"cls": "StepLR", "step_size": "many"}}, ["training.scheduler", "'many'"]),
        ({"scheduler": {"cls": "LambdaLR", "lr_lambda": "__import__('os')"}}, ["training.scheduler"]),
        ({"epochs": 3}, ["training has no parameter 'epochs'"]),
    ],
    ids=str,
)
def test_a_wrong_training_table_is_told(training, fragments):
    (message,) = faults(training=training)
    for fragment in fragments:
        assert fragment in message


def test_faults_of_both_tables_come_at_once():
    found = faults(
        driver={"seed": "a", "x": 1},
        training={"y": 1, "optimizer": {"cls": "Adamm"}, "scheduler": {"cls": "StepLr", "step_size": 1}},
    )
    assert len(found) == 5


def test_a_digest_is_of_the_whole_content(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"x" * 3_000_000)
    assert tables.digest_of(path) == hashlib.sha256(b"x" * 3_000_000).hexdigest()
    tables.check_digests({str(path): tables.digest_of(path)})
    with pytest.raises(UsageError, match="has changed") as error:
        tables.check_digests({str(path): "0" * 64})
    assert "[digests]" in str(error.value)
    tables.check_digests({str(tmp_path / "gone"): "0" * 64})  # its reader says that it is missing
