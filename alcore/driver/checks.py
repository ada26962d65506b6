"""What must fit together before a run starts; each fault is raised before anything is trained or bought."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from alcore.config import DriverConfig, StrategiesConfig, TrainingConfig
from alcore.driver.pool_set import PoolSet
from alcore.driver.strategy_set import StrategySet
from alcore.errors import UsageError, check_methods, check_no_class, raised_by
from alcore.pools.offers import answer_of, has_digest, knows_answers
from alcore.protocols import DataInfo
from alcore.strategies.label_options import labels_by_id
from alcore.training.steps import check_call, own_step


def check_parts(
    config: DriverConfig, learner: Any, strategies: StrategiesConfig, training: TrainingConfig | None
) -> None:
    """Check that each part has the methods of its protocol."""
    check_no_class(learner, "the learner")
    if not callable(learner):
        raise UsageError(f"the learner is a {type(learner).__name__}, which can't be called; give an nn.Module.")
    if training is None:
        if not config.skip_training:
            raise UsageError("there is no training_config; give one, or set DriverConfig(skip_training=True).")
    else:
        _need(training.train_datapool, "train_datapool", ["__len__", "__getitem__", "append"])
        for part in _given(training.val_datapool):
            _need(part, "val_datapool", ["__len__", "__getitem__"])
        if callable(training.sampler):
            check_call("TrainingConfig.sampler", training.sampler, ["pool", "generator"])
        _check_can_reset(training, learner)
    for part in _given(strategies.unlabeled_datapool):
        _need(part, "unlabeled_datapool", [] if has_digest(part) else ["__len__"])
    if config.collate_fn is not None:
        check_call("DriverConfig.collate_fn", config.collate_fn, ["items"])


def check_others(inference_fn: Any, plugins: Any) -> None:
    """Check what a Driver is given beside its configs."""
    if inference_fn is not None:
        check_call("inference_fn", inference_fn, ["learner", "inputs"])
    if not isinstance(plugins, Sequence):
        raise UsageError(f"plugins is a {type(plugins).__name__}; it must be a list of observers and stop criteria.")


def _check_can_reset(training: TrainingConfig, learner: Any) -> None:
    if training.reset_learner:
        missing = [
            method for method in ("state_dict", "load_state_dict") if not callable(getattr(learner, method, None))
        ]
        if missing:
            raise UsageError(
                f"TrainingConfig.reset_learner is True, and the learner {type(learner).__name__} has no "
                f"{' and no '.join(missing)} to get its initial weights back; give it these methods, or leave out "
                "reset_learner."
            )


def check_asks_or_ends(config: DriverConfig, strategies: StrategySet, *, has_stop_criteria: bool) -> None:
    """Refuse a run without query strategies that has a label strategy all the same, or would never end."""
    if strategies.query:
        return
    labels = strategies.label is not None and not config.skip_labeling
    if labels and strategies.start is None:
        raise UsageError(
            "there are no query strategies, so that the label strategy would never be asked for a label; give one, "
            "such as query_strategies=[RandomQuery(10)]. For a run that only trains and measures, leave out the label "
            "strategy."
        )
    if config.max_active_learning_steps is None and not has_stop_criteria:
        raise UsageError(
            "there are no query strategies, so that nothing would end the run; give one, such as "
            "query_strategies=[RandomQuery(10)], or set DriverConfig(max_active_learning_steps=...)."
        )


def check_step_functions(
    train_step_fn: Any, validate_step_fn: Any, pools: PoolSet, keywords: Mapping[str, Any]
) -> None:
    """Check the functions that `Driver.run` is given for a run that trains."""
    for name, function in (("train_step_fn", train_step_fn), ("validate_step_fn", validate_step_fn)):
        if function is not None:
            check_call(name, function, ["model", "batch"], keywords)
    if validate_step_fn is not None and pools.validation is None:
        raise UsageError(
            "validate_step_fn is given, and there is no validation pool to call it on; give "
            "TrainingConfig(val_datapool=...), or leave out the function."
        )


def check_queue(queue: Any) -> Any:
    """Return what ``queue_cls()`` made, if it is a queue."""
    if not hasattr(queue, "put") or not hasattr(queue, "get"):
        raise UsageError("queue_cls() gave an object without put and get; give a class such as queue.Queue.")
    return queue


def warn_of_separate_runs(config: DriverConfig, logger: logging.Logger) -> None:
    """Warn where several processes were started, and the Driver of each doesn't know of the others."""
    if config.dist_manager is None and os.environ.get("WORLD_SIZE", "1") != "1":
        logger.warning(
            "WORLD_SIZE is %s, and the Driver was given no dist_manager: each process makes a run of its own, and buys "
            "its own labels. For one run give DriverConfig(dist_manager=DistributedManager()).",
            os.environ["WORLD_SIZE"],
        )


def check_class_weights(
    training: TrainingConfig, learner: Any, train_step_fn: Any, info: DataInfo | None = None
) -> None:
    """Refuse class weights where nothing would use them; data without classes is left to `ClassBalance.check`."""
    if info is not None and info.task != "classification":
        return
    own = own_step(train_step_fn, learner)
    if training.class_weights is not None and own is not None:
        raise UsageError(
            f"TrainingConfig.class_weights is {training.class_weights!r}, which the default loss uses, and {own}; "
            "weight the classes there, or leave out one of the two."
        )


def warn_of_costs(strategies: StrategySet, warn: Callable[[str], None]) -> None:
    """Warn of query strategies that don't choose by score per cost, in a run that wants that."""
    for strategy in strategies.query:
        if not getattr(strategy, "weighs_costs", False):
            warn(f"{strategies.name_of(strategy)} does not weigh scores by costs, and chooses as without per_cost")


def check_fit(config: DriverConfig, pools: PoolSet, label_strategy: Any, *, has_start_strategy: bool) -> None:
    """Check that pools, device and label strategy fit together."""
    if pools.validation is not None and not len(pools.validation) and not has_start_strategy:
        raise UsageError("the validation pool has no item to measure on; fill it, or leave out val_datapool.")
    if torch.device(config.device or "cpu").type == "cuda" and not torch.cuda.is_available():
        raise UsageError("device cuda was asked for, but torch sees no CUDA device here; use device cpu.")
    if label_strategy is None or config.skip_labeling or not labels_by_id(label_strategy):
        return
    pool = pools.choice
    has_answers = knows_answers(pool) and (
        pools.unlabeled is None or answer_of(pool) is not None or hasattr(pool, "__getitem__")
    )
    if not has_answers:
        raise UsageError(
            f"{type(label_strategy).__name__} answers with sample ids alone, but {type(pool).__name__} "
            "doesn't know the answers; use a label strategy that delivers alcore.Label(id, value), such as `ask`, by "
            "which people answer, or give targets."
        )


def warn_of_untrained_start(warn: Callable[[str], None]) -> None:
    """Warn that the first samples are chosen by a learner that the run has not trained."""
    warn(
        "nothing is labeled, so the learner is not trained before it measures and chooses; that is for a learner that "
        "comes with its weights. For another one, label a few samples first, or name what makes the first selection: "
        "StrategiesConfig(start_strategy=RandomQuery(10))."
    )


def run_checks(parts: Mapping[str, Any]) -> None:
    """Let each strategy and the training loop say whether it can work with this learner and this data."""
    for name, part in parts.items():
        check = getattr(part, "check", None)
        if callable(check):
            try:
                with raised_by(f"check() of {name}"):
                    check()
            except UsageError as error:
                raise UsageError(f"{name} can't be used here: {error}") from error


def check_columns(info: DataInfo, learner: Any, outputs: Any, warn: Callable[[str], None]) -> None:
    """Compare the outputs of a classifier that is trained by the default loss with the number of classes."""
    shape = tuple(getattr(outputs, "shape", ()))
    if info.task != "classification" or not 2 <= len(shape) <= 3 or not info.classes:
        return
    columns, name = shape[-1], type(learner).__name__
    if columns == 1 < info.classes - 1 or 1 < columns < info.classes:
        raise UsageError(
            f"the learner {name} has {columns} outputs, and this data has {info.classes} classes; "
            "a factory that takes info gets how many it needs."
        )
    if columns > max(info.classes, 2):
        warn(f"the learner {name} has {columns} outputs, and this data has {info.classes} classes")


def _given(part: Any) -> list[Any]:
    return [] if part is None else [part]


def _need(part: Any, what: str, methods: list[str]) -> None:
    check_no_class(part, what)
    check_methods(part, what, methods)
