"""Build the Driver of a resolved experiment, and write the complete TOML from which it can be run again."""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w
import torch

from alcore.config import StrategiesConfig
from alcore.distributed.manager import manager_for
from alcore.driver import Driver
from alcore.errors import UsageError
from alcore.experiment.file import STANDARD_PARTS
from alcore.experiment.resolve import Resolved, ResolvedPart
from alcore.protocols import DataInfo
from alcore.store.files import sha256_of

_SMALL_STEP = 1e8  # floating-point operations in a training step, below which a second thread makes it slower


def build(resolved: Resolved, *, run_id: str | None = None, observers: Sequence[Any] = ()) -> Driver:
    """Build the parts of an experiment and its Driver; the number of torch's threads is set before.

    Parameters
    ----------
    resolved
        The result of `resolve`.
    run_id
        The id of the run; made up if it is None.
    observers
        Run plugins in addition to those of the experiment, and called before them.

    Returns
    -------
    Driver
        Its `description` is the complete experiment, as `to_toml` returns it.
    """
    data, driver_table = resolved.data, resolved.settings.driver
    _check_begins(resolved)
    learner = _make_one(resolved, "learner")
    threads = _set_threads(driver_table["threads"], learner, driver_table["batch_size"], driver_table["device"])
    settings = dataclasses.replace(resolved.settings, driver={**driver_table, "threads": threads})
    others: dict[str, Any] = {"run_id": run_id}
    if (manager := manager_for(str(driver_table["device"]))) is not None:
        others |= {"dist_manager": manager, "device": manager.device}
    return Driver(
        config=settings.driver_config(**others),
        learner=learner,
        strategies_config=StrategiesConfig(
            query_strategies=_make_all(resolved, "query"),
            queue_cls=resolved.queue_cls,
            label_strategy=_make_one(resolved, "label"),
            metrology_strategies=_make_all(resolved, "metrology") or None,
            unlabeled_datapool=data.unlabeled,
            start_strategy=next(iter(_make_all(resolved, "start")), None),
        ),
        training_config=settings.training_config(
            train_datapool=data.train, val_datapool=data.val, train_loop_fn=_make_one(resolved, "loop")
        ),
        plugins=[*observers, *_make_all(resolved, "stop"), *_make_all(resolved, "observe")],
        preprocessing=data.preprocessing,
        description=to_toml(dataclasses.replace(resolved, settings=settings)),
        names_code=resolved.names_code,
    )


def to_toml(resolved: Resolved) -> str:
    """Return the complete experiment as TOML: every name, and every parameter with its value."""
    settings = resolved.settings
    training = _toml_table(settings.training)
    training["optimizer"] = _class_table(settings.optimizer.optimizer_cls, settings.optimizer.optimizer_kwargs)
    if settings.optimizer.scheduler_cls is not None:
        training["scheduler"] = _class_table(settings.optimizer.scheduler_cls, settings.optimizer.scheduler_kwargs)
    tree: dict[str, Any] = {"driver": _toml_table(settings.driver), "training": training}
    paths: list[Path] = []
    for kind in STANDARD_PARTS:
        tree[kind] = {}
        for part in resolved.parts[kind]:
            values = {**part.table.defaults, **part.values}
            paths += [value for value in values.values() if isinstance(value, Path) and value.is_file()]
            use = {} if part.given.use == part.given.name else {"use": part.given.use}
            tree[kind][part.given.name] = use | _toml_table(values)
    tree["digests"] = {str(path): sha256_of(path) for path in paths}
    return tomli_w.dumps({kind: table for kind, table in tree.items() if table or kind in ("query", "metrology")})


def _toml_table(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values that TOML has a form for; it has none for None."""
    return {name: toml for name, value in values.items() if (toml := _toml_value(value)) is not None}


def _toml_value(value: Any) -> Any:
    """Return a value in the form that it has in TOML, or None where it has none."""
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path | torch.device):
        return str(value)
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, list | tuple):
        return [_toml_value(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _toml_value(item) for key, item in value.items()}
    return None


def _check_begins(resolved: Resolved) -> None:
    """Refuse an experiment in which the first samples would be chosen by random weights."""
    driver = resolved.settings.driver
    begins = driver["skip_training"] or driver["weights"] is not None or bool(resolved.parts["start"])
    if not begins and not len(resolved.data.train):
        raise UsageError(
            "the training pool has no labeled item, so step 0 has nothing to train on; label a few samples first, by "
            "a larger --set data.NAME.initial=...; name what makes the first selection, --start random; or give the "
            "weights of a trained learner, --weights FILE."
        )


def _class_table(cls: Any, kwargs: Any) -> dict[str, Any]:
    return {"cls": cls.__name__} | {name: _toml_value(value) for name, value in kwargs.items()}


def _make_one(resolved: Resolved, kind: str) -> Any:
    (part,) = _make_all(resolved, kind)
    return part


def _make_all(resolved: Resolved, kind: str) -> list[Any]:
    return [_make(part, resolved) for part in resolved.parts[kind]]


def _make(part: ResolvedPart, resolved: Resolved) -> Any:
    where, values = part.given.where, dict(part.values)
    if part.table.takes_info:
        values["info"] = _info_for(where, resolved)
    try:
        inspect.signature(part.factory).bind(**values)
    except TypeError as error:
        raise UsageError(f"{where} can't be built: {error}; give it with --set {where}.NAME=VALUE.") from error
    except ValueError:  # a signature that can't be read
        pass
    try:
        return part.factory(**values)
    except Exception as error:
        named = [name for name in part.table.parameters if re.search(rf"\b{re.escape(name)} is\b", str(error))]
        advice = f"; change it with --set {where}.{named[0]}=VALUE" if len(named) == 1 else ""
        error.add_note(f"while building {where}{advice}")
        raise


def _info_for(where: str, resolved: Resolved) -> DataInfo:
    """Return what is known about the data, for a part that is made for it; `UsageError` if nothing is."""
    if resolved.data.info == DataInfo():
        (data,) = resolved.parts["data"]
        raise UsageError(
            f"{data.given.where} doesn't say what its samples are, and {where} is made for them: its factory returns "
            "alcore.Data(pool, info=alcore.DataInfo(task, classes, features, shape)), or its pool has such an "
            "attribute info."
        )
    return resolved.data.info


def _set_threads(given: int | None, learner: Any, batch_size: int, device: torch.device) -> int:
    """Set torch's threads: as given, else as the environment says, else one for a learner too small for more."""
    if given is None and "OMP_NUM_THREADS" not in os.environ:
        weights = learner.parameters() if isinstance(learner, torch.nn.Module) else []
        work = 6.0 * batch_size * sum(math.prod(weight.shape) for weight in weights)
        given = 1 if device.type == "cpu" and work < _SMALL_STEP else None
    if given is not None:
        torch.set_num_threads(given)
    return torch.get_num_threads()
