"""The tables ``[driver]`` and ``[training]`` of an experiment: what they may hold, and the settings they give.

The parameters of both tables are the fields of `alcore.config.DriverConfig` and `alcore.config.TrainingConfig`, without
those that a file can't hold, and with the defaults of the command.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch

from alcore.config import DriverConfig, OptimizerConfig, TrainingConfig
from alcore.errors import UsageError, did_you_mean
from alcore.plugins.signatures import Parameter, ParameterTable, RawValue, parameters_of

TORCH_TABLES = ("optimizer", "scheduler")
"""The tables inside ``[training]``; each names a class of torch and its arguments."""


def _derive(
    config: Callable[..., Any],
    *,
    leave_out: Sequence[str],
    change: Mapping[str, Mapping[str, Any]],
    add: Sequence[Parameter] = (),
) -> ParameterTable:
    """Return the fields of a config class as a table of parameters, all of them optional."""
    fields = [field for field in parameters_of(config)[0] if field.name not in leave_out]
    return ParameterTable([*(field._replace(required=False, **change.get(field.name, {})) for field in fields), *add])


_ADDED = (
    Parameter("threads", int | None, None, False, "CPU threads of torch; chosen by the size of the learner if None."),
    Parameter("queue", str, "fifo", False, "Name of the queue between query and label strategies."),
)
DRIVER = _derive(
    DriverConfig,
    leave_out=("run_id", "dist_manager", "collate_fn", "resume"),
    change={
        "batch_size": {"default": 32},
        "device": {"hint": torch.device, "default": torch.device("cpu")},
        "seed": {"hint": int, "default": 0},
    },
    add=_ADDED,
)
"""The parameters of ``[driver]``."""

TRAINING = _derive(
    TrainingConfig,
    leave_out=("train_datapool", "val_datapool", "optimizer_config", "train_loop_fn"),
    change={"max_training_epochs": {"default": 10}, "sampler": {"hint": Literal["balanced"] | None}},
)
"""The parameters of ``[training]``, without its tables ``optimizer`` and ``scheduler``."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Checked settings.

    Parameters
    ----------
    driver
        A value for each parameter of `DRIVER`.
    training
        A value for each parameter of `TRAINING`.
    optimizer
        Optimizer and scheduler with their arguments.
    """

    driver: dict[str, Any]
    training: dict[str, Any]
    optimizer: OptimizerConfig

    def driver_config(self, **others: Any) -> DriverConfig:
        """Return the settings as `DriverConfig`; `others` are the fields that a file can't hold, or replace some."""
        return DriverConfig(**{**_without_added(self.driver), **others})

    def training_config(self, **others: Any) -> TrainingConfig:
        """Return the settings as `TrainingConfig`; `others` are the fields that a file can't hold."""
        return TrainingConfig(**{**self.training, "optimizer_config": self.optimizer, **others})


def check_tables(tables: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Check the values that are given in the tables ``driver`` and ``training``.

    An optimizer or scheduler without its class is not checked here: the class may be one that the data suggests.

    Returns
    -------
    tuple
        The values by table, and a list of faults. The values are valid only without faults.
    """
    training = {name: value for name, value in tables["training"].items() if name not in TORCH_TABLES}
    values: dict[str, dict[str, Any]] = {"driver": {}, "training": {}}
    faults: list[str] = []
    for where, table, given in (("driver", DRIVER, tables["driver"]), ("training", TRAINING, training)):
        if given:
            values[where], wrong = table.validate(given, where)
            faults += wrong or _config_faults(where, values[where])
    for kind in TORCH_TABLES:
        table = tables["training"].get(kind, {})
        if not isinstance(table, Mapping) or "cls" in table:
            faults += _torch_class(kind, table)[2]
    return values, faults


def make_settings(
    values: Mapping[str, Mapping[str, Any]], torch_tables: Mapping[str, Any], *, try_out: bool = True
) -> tuple[Settings, list[str]]:
    """Return complete settings, and the faults of optimizer and scheduler.

    Parameters
    ----------
    values
        Checked values of both tables.
    torch_tables
        The tables ``training.optimizer`` and ``training.scheduler`` by their last word; other keys are ignored.
    try_out
        Whether to build both, to see if they accept their values. The first optimizer of a process takes a second,
        since torch imports its compiler then, and a learner without parameters needs none.
    """
    optimizer_cls, optimizer_kwargs, faults = _torch_class("optimizer", torch_tables.get("optimizer", {}), "AdamW")
    scheduler_cls, scheduler_kwargs, more = _torch_class("scheduler", torch_tables.get("scheduler", {}))
    faults += more
    optimizer = OptimizerConfig()
    try:
        optimizer = OptimizerConfig(
            optimizer_cls or torch.optim.AdamW, optimizer_kwargs, scheduler_cls, scheduler_kwargs
        )
    except UsageError as error:
        fault = str(error).removeprefix("OptimizerConfig.").replace("optimizer_kwargs['lr']", "lr").rstrip(".")
        faults.append(f"training.optimizer.{fault}")
    if try_out and not faults:
        faults = _try_out(optimizer)
    return Settings(_filled(DRIVER, values["driver"]), _filled(TRAINING, values["training"]), optimizer), faults


def _filled(table: ParameterTable, values: Mapping[str, Any]) -> dict[str, Any]:
    return {**table.defaults, **values}


def _without_added(driver: Mapping[str, Any]) -> dict[str, Any]:
    added = {parameter.name for parameter in _ADDED}
    return {name: value for name, value in driver.items() if name not in added}


def _config_faults(where: str, values: Mapping[str, Any]) -> list[str]:
    """Return what the config class of a table refuses, in terms of the table."""
    threads = values.get("threads")
    faults = [] if threads is None or threads >= 1 else [f"driver.threads is {threads}; it must be at least 1"]
    try:
        if where == "driver":
            DriverConfig(**_without_added(_filled(DRIVER, values)))
        else:
            TrainingConfig(train_datapool=None, **_filled(TRAINING, values))
    except UsageError as error:
        faults.append(f"{where}.{str(error).removeprefix('DriverConfig.').removeprefix('TrainingConfig.')}")
    return faults


def _torch_class(
    kind: str, table: Any, default: str = ""
) -> tuple[Callable[..., Any] | None, dict[str, Any], list[str]]:
    """Look up one of torch's own optimizers or schedulers, and check the names of its arguments.

    No other code can be named here, so that an experiment file of a stranger runs none.
    """
    where = f"training.{kind}"
    if not isinstance(table, Mapping):
        return None, {}, [f"{where} must be a table with cls and its arguments, not {table!r}"]
    values = {name: value.parsed() if isinstance(value, RawValue) else value for name, value in table.items()}
    name = str(values.pop("cls", default)).rpartition(".")[2]
    if not name:
        missing = values or "cls" in table
        return None, {}, [f"{where}.cls is missing; name one of torch's {kind}s"] if missing else []
    home: Any
    base: Any
    if kind == "optimizer":
        home, base, first = torch.optim, torch.optim.Optimizer, "params"
    else:
        home, base, first = torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler, "optimizer"
    classes = {
        key: member
        for key, member in vars(home).items()
        if isinstance(member, type) and issubclass(member, base) and member is not base and not key.startswith("_")
    }
    if name not in classes:
        return None, {}, [f"{where}.cls is {name!r}: {did_you_mean(name, classes)}"]
    arguments = [parameter.name for parameter in parameters_of(classes[name])[0] if parameter.name != first]
    faults = [
        f"{where} has no argument {key!r}: {did_you_mean(key, arguments)}" for key in values if key not in arguments
    ]
    return classes[name], values, faults


def _try_out(config: OptimizerConfig) -> list[str]:
    """Build optimizer and scheduler for one parameter, since only they know which values they accept."""
    where, cls, values = "training.optimizer", config.optimizer_cls, config.optimizer_kwargs
    scheduler_cls: Any = config.scheduler_cls
    try:
        optimizer: Any = config.optimizer_cls([torch.nn.Parameter(torch.zeros(1))], **config.optimizer_kwargs)
        if scheduler_cls is not None:
            where, cls, values = "training.scheduler", scheduler_cls, config.scheduler_kwargs
            scheduler = scheduler_cls(optimizer, **config.scheduler_kwargs)
            optimizer.step()
            scheduler.step(*([0.0] if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) else []))
    except Exception as error:  # noqa: BLE001 - torch's classes refuse values in many ways
        name, reason = getattr(cls, "__name__", cls), (str(error) or repr(error)).splitlines()[0]
        return [f"{where}: {name} does not take {dict(values)}: {reason}"]
    return []
