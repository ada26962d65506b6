"""What must fit together before a run starts."""

from __future__ import annotations

import logging
import queue
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alcore import BaseLabel, BaseMetrology, BaseQuery, TensorPool
from alcore.config import DriverConfig, StrategiesConfig, TrainingConfig
from alcore.driver.checks import (
    check_class_weights,
    check_columns,
    check_fit,
    check_parts,
    check_queue,
    run_checks,
    warn_of_separate_runs,
)
from alcore.driver.pool_set import PoolSet
from alcore.errors import UsageError
from alcore.protocols import DataInfo

CONFIG = DriverConfig(4, device="cpu")
TRAINING = TrainingConfig(TensorPool(torch.zeros(4, 1), labeled=[0]), 1)


class Query(BaseQuery):
    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None: ...


class Labeler(BaseLabel):
    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None: ...


class Metrology(BaseMetrology):
    def compute(self, *args: Any, **kwargs: Any) -> None: ...


class NoRecords(Metrology):
    def __init__(self) -> None:
        del self.records


# -- parts -------------------------------------------------------------------------------------------------------------


def check(
    *query: Any, config: DriverConfig = CONFIG, learner: Any = len, training: Any = TRAINING, **parts: Any
) -> None:
    check_parts(config, learner, StrategiesConfig(list(query), queue.Queue, **parts), training)


def test_parts_with_the_methods_of_their_protocols_pass() -> None:
    check(Query(), Query(), label_strategy=Labeler(), metrology_strategies=[Metrology()], start_strategy=Query())


SAME, MEASURE = Query(), Metrology()


def test_one_object_may_be_of_several_kinds() -> None:
    check(SAME, start_strategy=SAME)

    class All(Query, Labeler, Metrology):
        pass

    every = All()
    check(every, start_strategy=every, label_strategy=every, metrology_strategies=[every])


@pytest.mark.parametrize(
    ("query", "parts", "message"),
    [
        ([object()], {}, "query strategy object has no sample and no attach; see alcore.protocols"),
        ([], {"start_strategy": object()}, "query strategy object has no sample and no attach"),
        ([], {"label_strategy": object()}, "label strategy object has no label and no attach"),
        ([], {"label_strategy": SimpleNamespace(label=len)}, "SimpleNamespace has no attach"),
        ([], {"metrology_strategies": [object()]}, "metrology strategy object has no compute and no attach"),
        ([], {"metrology_strategies": [NoRecords()]}, "NoRecords needs a list 'records' that compute"),
        ([SAME, SAME], {}, "one query strategy object is given twice"),
        ([Query()], {"metrology_strategies": [MEASURE, MEASURE]}, "one metrology strategy object is given twice"),
        ([], {"learner": 3}, "the learner is a int, which can't be called"),
        ([], {"training": None}, r"there is no training_config; .*skip_training=True"),
        ([], {"training": TrainingConfig((1, 2), 1)}, "train_datapool tuple has no append"),
    ],
)  # fmt: skip
def test_part_that_does_not_fit_is_refused(query: list[Any], parts: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check(*query, **parts)


def test_run_without_training_needs_no_pool() -> None:
    config = DriverConfig(4, device="cpu", skip_training=True)
    check(config=config, training=None)
    check(Query(), config=config, training=None, unlabeled_datapool=[1])
    check(Query(), config=config, training=None)  # it may ask for generated inputs


def test_queue_must_have_put_and_get() -> None:
    given = queue.Queue[Any]()
    assert check_queue(given) is given
    with pytest.raises(UsageError, match=r"without put and get; give a class such as queue\.Queue"):
        check_queue([])


@pytest.mark.parametrize(
    ("size", "manager", "warns"), [(None, None, 0), ("1", None, 0), ("4", None, 1), ("4", object(), 0)]
)
def test_separate_runs_of_several_processes_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, size: str | None, manager: Any, warns: int
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if size is not None:
        monkeypatch.setenv("WORLD_SIZE", size)
    config: Any = SimpleNamespace(dist_manager=manager)
    warn_of_separate_runs(config, logging.getLogger("alcore.test"))
    assert len(caplog.messages) == warns
    assert all(
        message.startswith("WORLD_SIZE is 4, and the Driver was given no dist_manager") for message in caplog.messages
    )


@pytest.mark.parametrize(("given", "own"), [(len, "a train_step_fn is given"), (None, "Own has a training_step")])
def test_class_weights_that_nothing_uses_are_refused(given: Any, own: str) -> None:
    class Own:
        def training_step(self, batch: Any) -> None: ...

    weighted = TrainingConfig([1], 1, class_weights="balanced")
    check_class_weights(weighted, object(), None)
    check_class_weights(TRAINING, Own(), given)
    with pytest.raises(UsageError, match=f"class_weights is 'balanced', which the default loss uses, and {own}"):
        check_class_weights(weighted, Own(), given)


# -- pools, device and label strategy ----------------------------------------------------------------------------------


EMPTY = TensorPool(torch.zeros(4, 1), torch.arange(4))


def fit(
    train: Any, unlabeled: Any = None, label: Any = None, *, start: bool = False, held: Any = None, **config: Any
) -> None:
    given = DriverConfig(4, **{"device": "cpu", **config})
    check_fit(given, PoolSet(train, held, unlabeled), label, has_start_strategy=start)


def test_training_pool_without_labels_fits() -> None:
    fit(EMPTY)
    fit(EMPTY, start=True)
    fit(EMPTY, skip_training=True)
    fit(TRAINING.train_datapool)


def test_validation_pool_may_be_empty_where_a_start_strategy_asks_for_its_labels() -> None:
    with pytest.raises(UsageError, match="validation pool has no item"):
        fit(TRAINING.train_datapool, held=EMPTY)
    fit(EMPTY, held=EMPTY, start=True)


def test_missing_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="device cuda was asked for, but torch sees no CUDA device here"):
        fit([1], device="cuda")


ByIds: Any = SimpleNamespace(labels_by_id=True)
NO_ANSWERS = SimpleNamespace(knows_answers=False)


@pytest.mark.parametrize(
    ("train", "unlabeled", "known"),
    [
        ([1], None, True),
        ([1], [1], True),
        ([1], SimpleNamespace(answer=len), True),
        ([1], object(), False),
        ([1], NO_ANSWERS, False),
        ([1], TensorPool(torch.zeros(4, 1)), False),
    ],
)
def test_ids_alone_are_refused_where_the_pool_knows_no_answer(train: Any, unlabeled: Any, known: bool) -> None:
    if known:
        fit(train, unlabeled, ByIds)
    else:
        with pytest.raises(UsageError, match=r"answers with sample ids alone, .* alcore\.Label\(id, value\)"):
            fit(train, unlabeled, ByIds)
    fit(train, unlabeled, ByIds, skip_labeling=True)
    fit(train, unlabeled, Labeler())


# -- what parts say themselves -----------------------------------------------------------------------------------------


def test_every_check_is_called_in_order_and_a_refusal_names_the_part() -> None:
    called: list[str] = []

    def refuse() -> None:
        raise UsageError("it needs a GPU.")

    parts = {
        "first": SimpleNamespace(check=lambda: called.append("first")),
        "without": object(),
        "odd": SimpleNamespace(check=3),
        "second": SimpleNamespace(check=lambda: called.append("second")),
    }
    run_checks(parts)
    assert called == ["first", "second"]
    with pytest.raises(UsageError, match=r"^uq-2 can't be used here: it needs a GPU\.$"):
        run_checks({"uq-2": SimpleNamespace(check=refuse)})


def test_error_of_a_check_that_is_no_refusal_is_raised_as_it_is() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_checks({"uq": SimpleNamespace(check=fail)})


@pytest.mark.parametrize(
    ("task", "classes", "shape", "outcome"),
    [
        ("classification", 3, (8, 3), ""),
        ("classification", 2, (8, 1), ""),
        ("classification", 2, (8, 2), ""),
        ("classification", 3, (8, 2), "refused"),
        ("classification", 3, (8, 1), "refused"),
        ("classification", 4, (5, 8, 3), "refused"),
        ("classification", 3, (8, 4), "warned"),
        ("classification", 3, (8,), ""),
        ("classification", 3, (8, 2, 5, 5), ""),
        ("classification", 0, (8, 2), ""),
        ("regression", 0, (8, 1), ""),
    ],
)
def test_columns_of_the_outputs_are_compared_with_the_classes(
    task: Any, classes: int, shape: tuple[int, ...], outcome: str
) -> None:
    info, warned = DataInfo(task, classes, 1, (1,)), list[str]()
    said = f"the learner object has {shape[-1]} outputs, and this data has {classes} classes"
    if outcome == "refused":
        with pytest.raises(UsageError, match=said):
            check_columns(info, object(), torch.zeros(shape), warned.append)
    else:
        check_columns(info, object(), torch.zeros(shape), warned.append)
    assert warned == ([said] if outcome == "warned" else [])
