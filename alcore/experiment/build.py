"""A resolved experiment becomes a Driver, and the complete TOML from which it can be run again."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w
import torch

from alcore import config as c
from alcore import plugins
from alcore.distributed.manager import manager_for
from alcore.driver import Driver
from alcore.errors import UsageError
from alcore.experiment import DEFAULTS
from alcore.experiment.resolve import Resolved
from alcore.experiment.settings import digest_of
from alcore.plugins import signatures as parameters

_SMALL_STEP = 1e8  # floating-point operations a batch, below which a second thread costs more than it brings


def build(
    resolved: Resolved,
    registry: plugins.Registry,
    *,
    run_id: str | None = None,
    observers: Sequence[Any] = (),
) -> Driver:
    """Build the parts and the Driver; the number of torch's threads is set on the way.

    Parameters
    ----------
    resolved
        What `alcore.experiment.resolve` returned.
    registry
        Where the queue is looked up.
    run_id
        Names the run; made up where it is None.
    observers
        More run plugins, before those of the experiment.
    """
    settings, data = resolved.settings, resolved.data
    driver_table, training = settings.driver, settings.training
    learner = _one(resolved, "learner")
    driver_table.threads = _set_threads(driver_table.threads, learner, driver_table.batch_size, driver_table.device)
    queue = plugins.resolve(registry.offer("queue", driver_table.queue))
    options = {name: value for name, value in vars(driver_table).items() if name not in ("threads", "queue")}
    options |= {"dtype": parameters.torch_dtype(driver_table.dtype), "run_id": run_id}
    if (manager := manager_for(driver_table.device)) is not None:
        options |= {"dist_manager": manager, "device": manager.device}
    driver = Driver(
        config=c.DriverConfig(**options),
        learner=learner,
        strategies_config=c.StrategiesConfig(
            query_strategies=_all(resolved, "query"),
            queue_cls=queue,
            label_strategy=_one(resolved, "label"),
            metrology_strategies=_all(resolved, "metrology") or None,
            unlabeled_datapool=data.unlabeled,
            start_strategy=next(iter(_all(resolved, "start")), None),
        ),
        training_config=c.TrainingConfig(
            train_datapool=data.train,
            val_datapool=data.val,
            max_training_epochs=training.max_training_epochs,
            max_fine_tuning_epochs=training.max_fine_tuning_epochs,
            reset_learner=training.reset_learner,
            sampler=training.sampler,
            class_weights=training.class_weights,
            optimizer_config=c.OptimizerConfig(
                settings.optimizer_cls,
                settings.optimizer_kwargs,
                settings.scheduler_cls,
                settings.scheduler_kwargs,
            ),
            train_loop_fn=_one(resolved, "loop"),
        ),
        plugins=[*observers, *_all(resolved, "stop"), *_all(resolved, "observe")],
    )
    driver.description = to_toml(resolved)
    return driver


def to_toml(resolved: Resolved) -> str:
    """Return the complete experiment: every name and every parameter with its value."""
    settings = resolved.settings
    training: dict[str, Any] = _without_none(vars(settings.training))
    training["optimizer"] = _class_table(settings.optimizer_cls, settings.optimizer_kwargs)
    if settings.scheduler_cls is not None:
        training["scheduler"] = _class_table(settings.scheduler_cls, settings.scheduler_kwargs)
    tree: dict[str, Any] = {"driver": _without_none(vars(settings.driver)), "training": training}
    paths: list[Path] = []
    for kind in DEFAULTS:
        tree[kind] = {}
        for part in resolved.experiment.parts[kind]:
            values = _complete(resolved, part.where)
            paths += [value for value in values.values() if isinstance(value, Path) and value.is_file()]
            use = {} if part.use == part.name else {"use": part.use}
            tree[kind][part.name] = use | {name: _toml_value(value) for name, value in values.items()}
    tree["digests"] = {str(path): digest_of(path) for path in paths}
    return tomli_w.dumps({kind: table for kind, table in tree.items() if table or kind in ("query", "metrology")})


def _complete(resolved: Resolved, where: str) -> dict[str, Any]:
    known, _ = parameters.parameters(resolved.factories[where])
    defaults = {one.name: one.default for one in known if not one.required}
    values = {**defaults, **resolved.values[where]}
    return {name: value for name, value in values.items() if _toml_value(value) is not None}


def _toml_value(value: Any) -> Any:
    """Return a value as TOML takes it, or None where TOML has no form for it."""
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path | torch.device):
        return str(value)
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, list | tuple):
        return [_toml_value(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _toml_value(one) for key, one in value.items()}
    return None


def _class_table(cls: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"cls": cls.__name__} | {name: _toml_value(value) for name, value in kwargs.items()}


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _one(resolved: Resolved, kind: str) -> Any:
    (part,) = _all(resolved, kind)
    return part


def _all(resolved: Resolved, kind: str) -> list[Any]:
    return [_make(resolved, part.where) for part in resolved.experiment.parts[kind]]


def _make(resolved: Resolved, where: str) -> Any:
    factory, values = resolved.factories[where], dict(resolved.values[where])
    if parameters.takes(factory, "info"):
        values["info"] = resolved.data.info
    try:
        inspect.signature(factory).bind(**values)
    except TypeError as error:
        raise UsageError(f"{where} can't be built: {error}; give it with --set {where}.NAME=VALUE.") from error
    except ValueError:  # a signature that can't be read
        pass
    try:
        return factory(**values)
    except Exception as error:
        error.add_note(f"while building {where}")
        raise


def _set_threads(given: int | None, learner: Any, batch_size: int, device: str) -> int:
    """Set torch's threads: as given, else as the environment says, else one for a learner too small for more."""
    if given is None and "OMP_NUM_THREADS" not in os.environ:
        parameters_ = learner.parameters() if isinstance(learner, torch.nn.Module) else []
        work = 6.0 * batch_size * sum(math.prod(one.shape) for one in parameters_)
        given = 1 if device == "cpu" and work < _SMALL_STEP else None
    if given is not None:
        torch.set_num_threads(given)
    return torch.get_num_threads()
