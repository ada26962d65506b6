"""The tables ``[driver]`` and ``[training]`` of an experiment: what may stand in them, and what it means."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from alcore.errors import UsageError, did_you_mean
from alcore.plugins import Registry
from alcore.plugins import signatures as parameters
from alcore.store import retention


@dataclasses.dataclass
class DriverTable:
    """The table ``[driver]``: the fields of `alcore.config.DriverConfig` that a file can hold.

    Parameters
    ----------
    threads
        CPU threads of torch; chosen by the size of the learner where it is not given.
    queue
        Name of the queue between query and label strategies.
    """

    batch_size: int = 32
    max_active_learning_steps: int | None = None
    fine_tuning_lr: float | None = None
    reset_optim_states: bool = True
    skip_training: bool = False
    skip_metrology: bool = False
    skip_labeling: bool = False
    checkpoint_interval: int = 1
    model_checkpoint_frequency: int = 0
    keep: str | None = None
    root_log_dir: str = "active_learning_logs"
    num_dataloader_workers: int = 0
    drop_last: bool = False
    device: str = "cpu"
    dtype: str = "float32"
    seed: int = 0
    budget: float | None = None
    label_retries: int = 0
    samples_per_step: int | None = None
    threads: int | None = None
    queue: str = "fifo"


@dataclasses.dataclass
class TrainingTable:
    """The table ``[training]``, less its tables ``optimizer`` and ``scheduler``."""

    max_training_epochs: int = 10
    max_fine_tuning_epochs: int | None = None
    reset_learner: bool = False
    sampler: Literal["balanced"] | None = None
    class_weights: Literal["balanced"] | list[float] | None = None


@dataclasses.dataclass
class Settings:
    """Checked settings."""

    driver: DriverTable
    training: TrainingTable
    optimizer_cls: Callable[..., Any]
    optimizer_kwargs: dict[str, Any]
    scheduler_cls: Callable[..., Any] | None
    scheduler_kwargs: dict[str, Any]


def seed_of(settings: Mapping[str, Mapping[str, Any]]) -> int:
    """Return the seed of a run whose settings have no faults."""
    values, _ = parameters.validate(DriverTable, settings["driver"], "driver")
    return DriverTable(**values).seed


def early_faults(settings: Mapping[str, Mapping[str, Any]], registry: Registry) -> list[str]:
    """Return what is wrong with the settings before the data has filled in its defaults.

    An optimizer or scheduler whose class is not named is left for later, since it may be one of these defaults.
    """
    training = {
        name: value
        for name, value in settings["training"].items()
        if name not in ("optimizer", "scheduler") or not isinstance(value, Mapping) or "cls" in value
    }
    return check({"driver": settings["driver"], "training": training}, registry, try_out=False)[1]


def check(
    settings: Mapping[str, Mapping[str, Any]], registry: Registry, *, try_out: bool = True
) -> tuple[Settings, list[str]]:
    """Check both tables; the settings count only without faults.

    Parameters
    ----------
    settings
        The tables ``driver`` and ``training``.
    registry
        Where queues are looked up.
    try_out
        Build optimizer and scheduler on one parameter, since only they know which values they take.
    """
    driver, wrong = parameters.validate(DriverTable, settings["driver"], "driver")
    table = dict(settings["training"])
    optimizer, scheduler = table.pop("optimizer", {}), table.pop("scheduler", {})
    training, more = parameters.validate(TrainingTable, table, "training")
    optimizer_cls, optimizer_kwargs, of_optimizer = _torch_class("optimizer", optimizer, "AdamW")
    scheduler_cls, scheduler_kwargs, of_scheduler = _torch_class("scheduler", scheduler, None)
    wrong += more + of_optimizer + of_scheduler
    if not wrong and try_out:
        wrong += _try_out(optimizer_cls, optimizer_kwargs, scheduler_cls, scheduler_kwargs)
        wrong += _values(driver)
        queue = driver.get("queue", "fifo")
        names = {offer.name for offer in registry.offers("queue")}
        if queue not in names:
            wrong.append(f"driver.queue is {queue!r}: {did_you_mean(queue, names)}")
    if wrong:
        driver = training = {}
    return Settings(
        DriverTable(**driver),
        TrainingTable(**training),
        optimizer_cls or torch.optim.AdamW,
        optimizer_kwargs,
        scheduler_cls,
        scheduler_kwargs,
    ), wrong


def _values(driver: Mapping[str, Any]) -> list[str]:
    """Return faults of single values that their types don't show."""
    wrong = []
    try:
        torch.device(driver.get("device", "cpu"))
    except RuntimeError as error:
        wrong.append(f"driver.device is {driver['device']!r}: {str(error).splitlines()[0]}")
    try:
        parameters.torch_dtype(driver.get("dtype", "float32"))
    except ValueError as error:
        wrong.append(f"driver.dtype: {error}")
    try:
        retention.parse(driver.get("keep"))
    except UsageError as error:
        wrong.append(f"driver.{error}")
    threads = driver.get("threads")
    if threads is not None and threads < 1:
        wrong.append(f"driver.threads is {driver['threads']}; it must be at least 1")
    return wrong


def _torch_class(
    kind: str, table: Any, default: str | None
) -> tuple[Callable[..., Any] | None, dict[str, Any], list[str]]:
    """Look up one of torch's own optimizers or schedulers and check its arguments; no other code can be named."""
    where = f"training.{kind}"
    if not isinstance(table, Mapping):
        return None, {}, [f"{where} must be a table with cls and its arguments, not {table!r}"]
    values = {name: value.parsed() if isinstance(value, parameters.Given) else value for name, value in table.items()}
    name = str(values.pop("cls", default or "")).rpartition(".")[2]
    if not name:
        missing = values or "cls" in table
        return None, {}, [f"{where}.cls is missing; name one of torch's {kind}s"] if missing else []
    home: Any
    base: Any
    if kind == "optimizer":
        home, base, first = torch.optim, torch.optim.Optimizer, "params"
    else:
        home, base, first = torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler, "optimizer"
    known = {
        key: one
        for key, one in vars(home).items()
        if isinstance(one, type) and issubclass(one, base) and one is not base and not key.startswith("_")
    }
    if name not in known:
        return None, {}, [f"{where}.cls is {name!r}: {did_you_mean(name, known)}"]
    known_names = [one.name for one in parameters.parameters(known[name])[0] if one.name != first]
    wrong = [
        f"{where} has no argument {key!r}: {did_you_mean(key, known_names)}" for key in values if key not in known_names
    ]
    return known[name], values, wrong


def _try_out(
    optimizer_cls: Any, optimizer_kwargs: Mapping[str, Any], scheduler_cls: Any, scheduler_kwargs: Mapping[str, Any]
) -> list[str]:
    """Let optimizer and scheduler themselves say whether their arguments are good."""
    where, cls, values = "training.optimizer", optimizer_cls, optimizer_kwargs
    try:
        optimizer = optimizer_cls([torch.nn.Parameter(torch.zeros(1))], **optimizer_kwargs)
        if scheduler_cls is not None:
            where, cls, values = "training.scheduler", scheduler_cls, scheduler_kwargs
            scheduler = scheduler_cls(optimizer, **scheduler_kwargs)
            optimizer.step()
            scheduler.step(*([0.0] if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) else []))
    except Exception as error:  # noqa: BLE001 - torch's classes refuse values in many ways
        return [f"{where}: {cls.__name__} does not take {dict(values)}: {(str(error) or repr(error)).splitlines()[0]}"]
    return []


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_digests(digests: Mapping[str, str]) -> None:
    """Refuse data files that are not what they were when the experiment was written."""
    for name, digest in digests.items():
        path = Path(name)
        if path.is_file() and digest_of(path) != digest:
            raise UsageError(
                f"{path} has changed since this experiment was written, so it would not repeat; take its line out of "
                "[digests] to run on the new content."
            )
