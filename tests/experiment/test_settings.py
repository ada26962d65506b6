"""The tables [driver] and [training]: derived from the config classes, checked, and limited to torch's own code."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alcore import config
from alcore.experiment.settings import DRIVER, TRAINING, check_tables, make_settings
from alcore.plugins import RawValue, parameters_of


def check(driver=None, training=None):
    """Return settings and faults of the two tables, as `resolve` finds them for data that suggests nothing."""
    tables = {"driver": driver or {}, "training": training or {}}
    values, faults = check_tables(tables)
    if faults:
        return None, faults
    return make_settings(values, tables["training"])


def faults(**tables):
    return check(**tables)[1]


# -- derived from the config classes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "config_class", "left_out", "own_default", "added"),
    [
        (
            DRIVER,
            config.DriverConfig,
            {"run_id", "dist_manager", "collate_fn", "resume"},
            {"batch_size", "device", "dtype", "seed"},
            {"threads", "queue"},
        ),
        (
            TRAINING,
            config.TrainingConfig,
            {"train_datapool", "val_datapool", "optimizer_config", "train_loop_fn"},
            {"max_training_epochs"},
            set(),
        ),
    ],
    ids=["driver", "training"],
)
def test_table_has_fields_and_defaults_of_its_config(table, config_class, left_out, own_default, added):
    fields = {parameter.name: parameter for parameter in parameters_of(config_class)[0]}
    assert left_out < set(fields)
    assert set(table.parameters) == set(fields) - left_out | added
    assert not any(parameter.required for parameter in table.parameters.values())
    for name in set(fields) - left_out - own_default:
        assert table.parameters[name].default == fields[name].default, name


def test_defaults_of_the_command_where_nothing_is_given():
    settings, wrong = check()
    assert wrong == []
    driver = settings.driver_config(run_id="mine")
    assert (driver.run_id, driver.batch_size, driver.seed) == ("mine", 32, 0)
    assert (driver.device, driver.dtype) == (torch.device("cpu"), torch.float32)
    training = settings.training_config(train_datapool=None)
    assert training.max_training_epochs == 10
    optimizer = training.optimizer_config
    assert (optimizer.optimizer_cls, optimizer.optimizer_kwargs) == (torch.optim.AdamW, {})
    assert (optimizer.scheduler_cls, optimizer.scheduler_kwargs) == (None, {})


def test_values_of_the_command_line_are_read():
    driver = {"batch_size": RawValue("9"), "root_log_dir": RawValue("2024"), "queue": RawValue("lifo"),
              "device": RawValue("cuda:1"), "dtype": "torch.float64", "fine_tuning_lr": 1}  # fmt: skip
    settings, wrong = check(driver, {"sampler": RawValue("balanced"), "class_weights": [1, 2]})
    assert wrong == []
    assert {name: settings.driver[name] for name in driver} == {
        "batch_size": 9, "root_log_dir": "2024", "queue": "lifo", "device": torch.device("cuda", 1),
        "dtype": torch.float64, "fine_tuning_lr": 1.0,
    }  # fmt: skip
    assert (settings.training["sampler"], settings.training["class_weights"]) == ("balanced", [1.0, 2.0])


# -- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("driver", "fragments"),
    [
        ({"batch_sice": 3}, ["'batch_sice'", "did you mean 'batch_size'?"]),
        ({"run_id": "a"}, ["no parameter 'run_id'"]),
        ({"batch_size": 2.5}, ["driver.batch_size is 2.5", "int"]),
        ({"batch_size": 0}, ["driver.batch_size is 0", "at least 1"]),
        ({"drop_last": "yes"}, ["driver.drop_last is 'yes'", "bool"]),
        ({"seed": None}, ["driver.seed"]),
        ({"device": "quantum"}, ["driver.device is 'quantum'", "cuda"]),
        ({"dtype": "float23"}, ["driver.dtype", "'float23'", "float64"]),
        ({"dtype": "int64"}, ["driver.dtype", "floating-point"]),
        ({"keep": "lst=3"}, ["driver.keep 'lst=3'", "did you mean 'last'"]),
        ({"threads": -1}, ["driver.threads is -1", "at least 1"]),
        ({"threads": 0}, ["driver.threads is 0", "at least 1"]),
    ],
    ids=str,
)
def test_wrong_setting_of_the_driver_is_refused(driver, fragments):
    (message,) = faults(driver=driver)
    for fragment in fragments:
        assert fragment in message


@pytest.mark.parametrize("kind", ["optimizer", "scheduler"])
@pytest.mark.parametrize(
    "cls",
    [
        "os.system", "os:system", "builtins.eval", "subprocess.Popen", "Optimizer", "LRScheduler", "Tensor", "torch",
        "lr_scheduler", "__builtins__", "__class__", "warn", "partial", "defaultdict", "Counter", "", "SGD()", 3,
    ],
)  # fmt: skip
def test_no_code_but_torchs_own_can_be_named(kind, cls):
    wrong = faults(training={kind: {"cls": cls, "lr": 1}})
    assert wrong
    assert f"training.{kind}" in wrong[0]


@given(st.text() | st.sampled_from([*vars(torch.optim), *vars(torch.optim.lr_scheduler)]))
def test_whatever_is_accepted_is_a_class_of_torch(cls):
    settings, wrong = check(training={"optimizer": {"cls": cls}})
    if not wrong:
        assert issubclass(settings.optimizer.optimizer_cls, torch.optim.Optimizer)
        assert settings.optimizer.optimizer_cls.__module__.partition(".optim")[0] == "torch"
    settings, wrong = check(training={"scheduler": {"cls": cls}})
    if not wrong and settings.optimizer.scheduler_cls is not None:
        assert issubclass(settings.optimizer.scheduler_cls, torch.optim.lr_scheduler.LRScheduler)
        assert settings.optimizer.scheduler_cls.__module__ == "torch.optim.lr_scheduler"


def test_optimizer_and_scheduler_are_found_with_their_arguments():
    training = {
        "optimizer": {"cls": "SGD", "lr": RawValue("0.1"), "momentum": 0.9},
        "scheduler": {"cls": "MultiStepLR", "milestones": [3, 5], "gamma": 0.5},
    }
    settings, wrong = check(training=training)
    assert wrong == []
    config = settings.optimizer
    optimizer = config.optimizer_cls([torch.nn.Parameter(torch.zeros(1))], **config.optimizer_kwargs)
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["momentum"] == 0.9
    scheduler = config.scheduler_cls(optimizer, **config.scheduler_kwargs)
    assert dict(scheduler.milestones) == {3: 1, 5: 1}
    assert check(training={"optimizer": {"cls": "torch.optim.SGD"}})[0].optimizer.optimizer_cls is torch.optim.SGD


@pytest.mark.parametrize(
    ("training", "fragments"),
    [
        ({"optimizer": {"cls": "Adamm"}}, ["training.optimizer.cls is 'Adamm'", "did you mean 'Adam'?"]),
        ({"optimizer": {"cls": "SGD", "momentun": 1}}, ["training.optimizer", "'momentun'", "'momentum'"]),
        ({"optimizer": {"cls": "SGD", "params": []}}, ["training.optimizer", "'params'"]),
        ({"optimizer": {"cls": "SGD", "lr": -1}}, ["training.optimizer.lr is -1", "positive"]),
        ({"optimizer": {"cls": "SGD", "lr": "fast"}}, ["training.optimizer", "'fast'"]),
        ({"optimizer": "SGD"}, ["training.optimizer must be a table", "'SGD'"]),
        ({"scheduler": {"gamma": 0.5}}, ["training.scheduler.cls is missing"]),
        ({"scheduler": {"cls": "StepLR", "optimizer": 1}}, ["training.scheduler", "'optimizer'"]),
        ({"scheduler": {"cls": "StepLR", "stepsize": 1}}, ["training.scheduler", "'step_size'"]),
        ({"scheduler": {"cls": "StepLR"}}, ["training.scheduler", "step_size"]),
        ({"scheduler": {"cls": "StepLR", "step_size": "many"}}, ["training.scheduler", "'many'"]),
        ({"scheduler": {"cls": "LambdaLR", "lr_lambda": "__import__('os')"}}, ["training.scheduler"]),
        ({"epochs": 3}, ["training has no parameter 'epochs'"]),
        ({"train_loop_fn": "x"}, ["training has no parameter 'train_loop_fn'"]),
        ({"max_training_epochs": -1}, ["training.max_training_epochs is -1", "at least 0"]),
        ({"sampler": "balance"}, ["training.sampler is 'balance'", "balanced"]),
        ({"class_weights": "even"}, ["training.class_weights is 'even'", "balanced"]),
        ({"class_weights": [0, 0]}, ["training.class_weights is [0.0, 0.0]", "balanced"]),
    ],
    ids=str,
)
def test_wrong_setting_of_the_training_is_refused(training, fragments):
    (message,) = faults(training=training)
    for fragment in fragments:
        assert fragment in message


def test_faults_of_both_tables_come_at_once():
    faults_found = faults(
        driver={"seed": "a", "x": 1},
        training={"y": 1, "optimizer": {"cls": "Adamm"}, "scheduler": {"cls": "StepLr", "step_size": 1}},
    )
    assert len(faults_found) == 5


def test_optimizer_without_class_waits_for_the_data():
    assert check_tables({"driver": {}, "training": {"optimizer": {"nesterov": True}}})[1] == []
    assert "no argument 'nesterov'" in faults(training={"optimizer": {"nesterov": True}})[0]
