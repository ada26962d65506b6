"""Faults that were seen in other frameworks, and must not be found here.

Each check runs twice: against alcore, where it must pass, and against alcore with that fault put in, where it
must fail. The faulty versions stand beside their checks, small enough to be seen through.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from alcore import BaseLabel, Driver, TensorPool, UsageError
from alcore import config as c
from alcore.driver import checks, lifecycle, parts, stopping
from alcore.store import Run, exports
from alcore.training import loader, trainer
from alcore.training.optimizer import Optimization

Build = Callable[..., Driver]


# -- a labeling exception is logged and the samples that were taken out are lost -----------------------


class BreaksAfterOne(BaseLabel):
    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        serialize_queue.put(queue_to_label.get())
        queue_to_label.get()
        raise ConnectionError("the lab does not answer")


def check_labeling_error(build: Build) -> None:
    driver = build(label_strategy=BreaksAfterOne(), max_active_learning_steps=1)
    try:
        driver.run()
    except ConnectionError:
        pass
    else:
        raise AssertionError("the error of the label strategy was swallowed")
    states = [request["state"] for request in Run(driver.log_dir).requests()]
    assert states == ["labeled", "open", "open"]
    assert driver.train_datapool.labeled_ids.tolist()[8:] == [8]


@contextlib.contextmanager
def labeling_error_is_logged() -> Iterator[None]:
    real = Driver._labeling_phase

    def phase(self: Driver, *args: Any, **kwargs: Any) -> None:
        try:
            real(self, *args, **kwargs)
        except ConnectionError as error:
            self.logger.warning("labeling failed: %s", error)

    with mock.patch.object(Driver, "_labeling_phase", phase):
        yield


# -- integer labels are cast to float -------------------------------------------------------------------


def check_integer_labels(build: Build) -> None:
    seen: list[torch.dtype] = []

    def step(model: Any, batch: Any) -> torch.Tensor:
        seen.append(batch[1].dtype)
        return model(batch[0]).mean()

    build(max_active_learning_steps=1).run(train_step_fn=step)
    assert set(seen) == {torch.int64}


@contextlib.contextmanager
def everything_becomes_float() -> Iterator[None]:
    def place(batch: Any, device: Any, dtype: Any) -> Any:
        if isinstance(batch, torch.Tensor):
            return batch.to(device, dtype)
        return type(batch)(place(part, device, dtype) for part in batch)

    with mock.patch.object(loader, "to_device", place):
        yield


# -- learner.training_step is validated, then never called ----------------------------------------------


class StepsItself(torch.nn.Linear):
    def __init__(self) -> None:
        super().__init__(2, 1)
        self.calls = 0

    def training_step(self, batch: Any) -> torch.Tensor:
        self.calls += 1
        return self(batch[0]).square().mean()


def check_own_training_step(build: Build) -> None:
    learner = StepsItself()
    build(learner=learner, max_active_learning_steps=1, max_training_epochs=3).run()
    assert learner.calls == 3 * 2  # two batches an epoch


@contextlib.contextmanager
def own_training_step_is_forgotten() -> Iterator[None]:
    real = trainer.resolve_train_step

    def resolve(given: Any, learner: Any, info: Any, *keywords: Any) -> Any:
        return real(given, torch.nn.Identity(), info, *keywords)

    with mock.patch.object(trainer, "resolve_train_step", resolve):
        yield


# -- a plain nn.Module is asked for .device --------------------------------------------------------------


def check_plain_module(build: Build) -> None:
    try:
        build(learner=torch.nn.Linear(2, 1), max_active_learning_steps=1).run()
    except AttributeError as error:
        raise AssertionError(f"a plain module does not do: {error}") from error


@contextlib.contextmanager
def modules_must_have_a_device() -> Iterator[None]:
    def place_learner(learner: Any, device: Any, dtype: Any) -> Any:
        return learner if learner.device == device else learner.to(device, dtype)

    with mock.patch.object(lifecycle, "place_learner", place_learner):
        yield


# -- fine_tuning_lr reaches only the first parameter group -----------------------------------------------


def check_every_parameter_group(build: Build) -> None:
    rates: list[list[float]] = []

    def loop(model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int, **kwargs: Any) -> None:
        rates.append([group["lr"] for group in optimizer.param_groups])

    def two_groups(parameters: Any, **kwargs: Any) -> Any:
        weight, bias = parameters
        return torch.optim.SGD([{"params": [weight]}, {"params": [bias], "lr": 0.5}], **kwargs)

    build(
        train_loop_fn=loop,
        fine_tuning_lr=0.01,
        max_active_learning_steps=2,
        optimizer_config=c.OptimizerConfig(two_groups, {"lr": 0.1}),
    ).run()
    assert rates == [[0.1, 0.5], [0.01, 0.01]]


@contextlib.contextmanager
def only_the_first_group() -> Iterator[None]:
    def prepare(self: Optimization, training: int) -> None:
        self.optimizer = self._config.optimizer_cls(list(self._learner.parameters()), **self._config.optimizer_kwargs)
        if training and self._fine_tuning_lr is not None:
            self.optimizer.param_groups[0]["lr"] = self._fine_tuning_lr

    with mock.patch.object(Optimization, "prepare", prepare):
        yield


# -- drop_last is ignored --------------------------------------------------------------------------------


def check_drop_last(build: Build) -> None:
    sizes: list[int] = []

    def step(model: Any, batch: Any) -> torch.Tensor:
        sizes.append(len(batch[1]))
        return model(batch[0]).mean()

    build(batch_size=5, drop_last=True, max_active_learning_steps=1, max_training_epochs=1).run(train_step_fn=step)
    assert sizes == [5]


@contextlib.contextmanager
def drop_last_is_ignored() -> Iterator[None]:
    real = loader.BatchLoader

    def batch_loader(*args: Any, drop_last: bool, **kwargs: Any) -> loader.BatchLoader:
        return real(*args, **kwargs)

    with mock.patch.object(loader, "BatchLoader", batch_loader):
        yield


# -- no stop on an empty pool ----------------------------------------------------------------------------


def check_empty_pool(build: Build) -> None:
    pool = TensorPool(torch.zeros(10, 2), torch.arange(10) % 2, labeled=range(8))
    driver = build(train_datapool=pool, max_active_learning_steps=9)
    driver.run()
    assert driver.active_learning_step_idx == 2
    assert "pool" in str(driver.stop_reason)


@contextlib.contextmanager
def empty_pools_go_on() -> Iterator[None]:
    with mock.patch.object(stopping, "nothing_to_label", return_value=None):
        yield


# -- metrology_strategies=None crashes -------------------------------------------------------------------


def check_no_metrology(build: Build) -> None:
    try:
        driver = build(metrology_strategies=None)
        driver.run()
    except TypeError as error:
        raise AssertionError(f"None is refused: {error}") from error
    assert driver.stop_reason == "all 3 steps are done"


@contextlib.contextmanager
def metrology_must_be_a_list() -> Iterator[None]:
    real = checks.check_parts

    def check_parts(config: Any, learner: Any, strategies: Any, training: Any) -> None:
        for strategy in strategies.metrology_strategies:
            assert strategy is not None
        real(config, learner, strategies, training)

    with mock.patch.object(checks, "check_parts", check_parts):
        yield


# -- run ids are cut to eight characters, so that two runs share a directory -----------------------------


def check_long_run_ids(build: Build) -> None:
    first, second = build(run_id="experiment-a"), build(run_id="experiment-b")
    first.run()
    try:
        second.run()
    except UsageError as error:
        raise AssertionError("two ids fell together") from error
    assert first.log_dir.name == "experiment-a"
    assert first.log_dir != second.log_dir


@contextlib.contextmanager
def ids_are_cut() -> Iterator[None]:
    real = c.DriverConfig.__post_init__

    def cut(self: Any) -> None:
        real(self)
        self.run_id = self.run_id and self.run_id[:8]

    with mock.patch.object(c.DriverConfig, "__post_init__", cut):
        yield


# -- a logged exception breaks the JSON log --------------------------------------------------------------


class Unsayable(Exception):
    def __str__(self) -> str:
        return 'a "quoted"\nreason \\ \x00'


def check_json_log(build: Build) -> None:
    class Breaks(BaseLabel):
        def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
            raise Unsayable

    driver = build(label_strategy=Breaks(), max_active_learning_steps=1)
    with contextlib.suppress(Unsayable):
        driver.run()
    try:
        log = json.loads((driver.log_dir / "driver_log.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError) as error:
        raise AssertionError(f"the log is not JSON: {error}") from error
    assert log["status"] == "failed"
    assert "quoted" in log["error"]


@contextlib.contextmanager
def the_log_is_pasted_together() -> Iterator[None]:
    def write_all(database: Any, folder: Path) -> None:
        log = exports.driver_log(database)
        text = f'{{"status": "{log["status"]}", "error": "{log.get("error")}"}}'
        (folder / "driver_log.json").write_text(text, errors="replace")

    with mock.patch.object(exports, "write_all", write_all):
        yield


# -- a second Driver steals the handlers of the first one ------------------------------------------------


def check_two_drivers(build: Build) -> None:
    first, second = build(run_id="first"), build(run_id="second")
    with first.session(), second.session():
        first.logger.info("said by the first")
        second.logger.info("said by the second")
    one, two = ((driver.log_dir / "console.log").read_text() for driver in (first, second))
    assert "said by the first" in one
    assert "said by the second" not in one
    assert "said by the second" in two
    assert "said by the first" not in two


@contextlib.contextmanager
def one_logger_for_all() -> Iterator[None]:
    shared = logging.Logger("shared", logging.INFO)

    def run_logger(run_id: str, level: int) -> logging.Logger:
        shared.handlers.clear()
        return shared

    with mock.patch.object(parts, "run_logger", run_logger):
        yield


FAULTS = {
    check_labeling_error: labeling_error_is_logged,
    check_integer_labels: everything_becomes_float,
    check_own_training_step: own_training_step_is_forgotten,
    check_plain_module: modules_must_have_a_device,
    check_every_parameter_group: only_the_first_group,
    check_drop_last: drop_last_is_ignored,
    check_empty_pool: empty_pools_go_on,
    check_no_metrology: metrology_must_be_a_list,
    check_long_run_ids: ids_are_cut,
    check_json_log: the_log_is_pasted_together,
    check_two_drivers: one_logger_for_all,
}


@pytest.mark.parametrize("check", FAULTS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_alcore_does_not_have_the_fault(check: Callable[[Build], None], build: Build) -> None:
    check(build)


@pytest.mark.parametrize("check", FAULTS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_check_finds_the_fault(check: Callable[[Build], None], build: Build) -> None:
    with FAULTS[check](), pytest.raises(AssertionError):
        check(build)
