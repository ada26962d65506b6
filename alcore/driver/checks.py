"""What must fit together before a run starts; each fault is told before anything is trained or bought."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from alcore.errors import UsageError
from alcore.training import resolve_train_step

if TYPE_CHECKING:
    from alcore.config import DriverConfig, StrategiesConfig, TrainingConfig
    from alcore.driver import Driver


def check_parts(
    config: DriverConfig, learner: Any, strategies: StrategiesConfig, training: TrainingConfig | None
) -> None:
    """Check each part by itself: does it have the methods of its protocol?"""
    if not callable(learner):
        raise UsageError(f"the learner is a {type(learner).__name__}, which can't be called; give an nn.Module.")
    for kind, method, parts in [
        ("query", "sample", [*strategies.query_strategies, *_given(strategies.start_strategy)]),
        ("label", "label", _given(strategies.label_strategy)),
        ("metrology", "compute", strategies.metrology_strategies or []),
    ]:
        for part in parts:
            _need(part, f"{kind} strategy", [method, "attach"])
            if kind == "metrology" and not isinstance(getattr(part, "records", None), list):
                raise UsageError(
                    f"metrology strategy {type(part).__name__} needs a list 'records' that compute() appends to."
                )
    asking = [*strategies.query_strategies, *_given(strategies.start_strategy)]
    if len({id(part) for part in asking}) < len(asking):
        raise UsageError("one query strategy object stands twice among the query strategies; make two objects.")
    if training is None:
        if not config.skip_training:
            raise UsageError("there is no training_config; give one, or set DriverConfig(skip_training=True).")
        if strategies.unlabeled_datapool is None and strategies.query_strategies:
            raise UsageError("there is nothing to choose from: give a training_config, or an unlabeled_datapool.")
    else:
        _need(training.train_datapool, "train_datapool", ["__len__", "__getitem__", "append"])
    if not hasattr(strategies.queue_cls(), "put") or not hasattr(strategies.queue_cls(), "get"):
        raise UsageError("queue_cls() gave an object without put and get; give a class such as queue.Queue.")


def warn_of_separate_runs(config: DriverConfig, logger: logging.Logger) -> None:
    """Warn where several processes were started, and the Driver of each doesn't know of the others."""
    if config.dist_manager is None and os.environ.get("WORLD_SIZE", "1") != "1":
        logger.warning(
            "WORLD_SIZE is %s, and the Driver was given no dist_manager: each process makes a run of its own, and buys "
            "its own labels. For one run give DriverConfig(dist_manager=DistributedManager()).",
            os.environ["WORLD_SIZE"],
        )


def check_training_step(driver: Driver, train_step_fn: Any) -> None:
    """Check that there is a training step, where there is training."""
    if not driver.config.skip_training:
        resolve_train_step(train_step_fn, driver.learner, driver.info)
        _check_class_weights(driver, train_step_fn)


def check_fit(driver: Driver) -> None:
    """Check that pools, device and label strategy fit together."""
    if not driver.config.skip_training and not len(driver.train_datapool) and driver.start_strategy is None:
        raise UsageError(
            "the training pool has no labelled item, so step 0 has nothing to train on; label a few samples first: "
            "TensorPool(inputs, targets, labeled=[...]) in Python, a larger --set data.NAME.initial=... "
            "on the command line; or name what makes the first selection, start_strategy=RandomQuery(10) or "
            "--start random."
        )
    driver.check_balance()
    if driver.config.device.type == "cuda":  # type: ignore[union-attr]
        _check_cuda()
    if driver.label_strategy is None or driver.config.skip_labeling:
        return
    by_id = getattr(driver.label_strategy, "labels_by_id", False)
    pool = driver.choice_pool
    known = getattr(pool, "knows_answers", True) and (
        driver.unlabeled_datapool is None or hasattr(pool, "answer") or hasattr(pool, "__getitem__")
    )
    if by_id and not known:
        raise UsageError(
            f"{type(driver.label_strategy).__name__} answers with sample ids alone, but {type(pool).__name__} "
            "doesn't know the answers; use a label strategy that delivers alcore.Label(id, value), or give targets."
        )


def check_strategies(driver: Driver) -> None:
    """Let each strategy say whether it can work with this learner and this data."""
    for name, strategy in driver.strategies.items():
        check = getattr(strategy, "check", None)
        if callable(check):
            try:
                check()
            except UsageError as error:
                raise UsageError(f"{name} can't be used here: {error}") from error


def check_columns(driver: Driver, train_step_fn: Any) -> None:
    """Compare the learner's outputs with the number of classes, where it is trained by the default loss."""
    info = driver.info
    if train_step_fn is not None or callable(getattr(driver.learner, "training_step", None)):
        return
    if info is None or info.task != "classification" or driver.inference_fn is not None:
        return
    if driver.config.skip_training or not driver.choosable:
        return
    shape = tuple(getattr(driver.probe(), "shape", ()))
    if not 2 <= len(shape) <= 3 or not info.classes:
        return
    columns, name = shape[-1], type(driver.learner).__name__
    if columns == 1 < info.classes - 1 or 1 < columns < info.classes:
        raise UsageError(
            f"the learner {name} has {columns} outputs, and this data has {info.classes} classes; "
            "a factory that takes info is told how many it needs."
        )
    if columns > max(info.classes, 2):
        driver.warn_once(f"the learner {name} has {columns} outputs, and this data has {info.classes} classes")


def _check_class_weights(driver: Driver, train_step_fn: Any) -> None:
    """Refuse class weights where nothing would use them."""
    weights = driver.training_config.class_weights if driver.training_config is not None else None
    own = "a train_step_fn is given" if train_step_fn is not None else None
    if own is None and callable(getattr(driver.learner, "training_step", None)):
        own = f"{type(driver.learner).__name__} has a training_step"
    if weights is not None and own is not None:
        raise UsageError(
            f"TrainingConfig.class_weights is {weights!r}, which the default loss uses, and {own}; weigh the classes "
            "there, or leave out one of the two."
        )


def _given(part: Any) -> list[Any]:
    return [] if part is None else [part]


def _need(part: Any, what: str, methods: list[str]) -> None:
    missing = [method for method in methods if not callable(getattr(part, method, None))]
    if missing:
        raise UsageError(f"{what} {type(part).__name__} has no {' and no '.join(missing)}; see alcore.protocols.")


def _check_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        raise UsageError("device cuda was asked for, but torch sees no CUDA device here; use device cpu.")
