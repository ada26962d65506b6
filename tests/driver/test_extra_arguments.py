"""The arguments of ``driver(...)`` beyond the step functions: who gets them, and which are refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from alcore import Driver, UsageError
from alcore.strategies import BaseLabel, BaseMetrology, BaseQuery

Build = Callable[..., Driver]


def loss(model: Any, batch: Any) -> torch.Tensor:
    value: torch.Tensor = torch.nn.functional.binary_cross_entropy_with_logits(model(batch[0])[:, 0], batch[1].float())
    return value


class Notes:
    """What each function was given."""

    def __init__(self) -> None:
        self.seen: dict[str, set[Any]] = {}

    def note(self, name: str, *given: Any) -> None:
        self.seen.setdefault(name, set()).add(given)

    def parts(self, toys: Any) -> dict[str, Any]:
        note = self.note

        class Query(toys.FirstQuery):  # type: ignore[misc]
            def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
                note("query", *args, *sorted(kwargs.items()))
                super().sample(query_queue)

        class Narrow(toys.FirstQuery):  # type: ignore[misc]
            def sample(self, query_queue: Any, foo: int = 0) -> None:
                note("narrow", foo)
                super().sample(query_queue)

        class Label(toys.EchoLabel):  # type: ignore[misc]
            def label(self, queue_to_label: Any, serialize_queue: Any) -> None:
                note("label")
                super().label(queue_to_label, serialize_queue)

        class Metrology(toys.CountMetrology):  # type: ignore[misc]
            def compute(self, *, bar: int = 0) -> None:
                note("metrology", bar)
                super().compute()

            def serialize_records(self) -> None:
                note("serialize")

        return {
            "query_strategies": [Query(), Narrow()],
            "label_strategy": Label(),
            "metrology_strategies": [Metrology()],
            "final_training": True,
            "max_active_learning_steps": 1,
        }


def test_each_function_gets_the_arguments_that_it_takes(build: Build, toys: Any) -> None:
    notes = Notes()

    def train(model: Any, batch: Any, foo: int = 0) -> torch.Tensor:
        notes.note("train", foo)
        return loss(model, batch)

    def validate(model: Any, batch: Any, **kwargs: Any) -> torch.Tensor:
        notes.note("validate", *sorted(kwargs.items()))
        return loss(model, batch)

    driver = build(val_datapool=toys.pool(), **notes.parts(toys))
    driver(train, validate, 7, foo=1, bar=2)
    both = (("bar", 2), ("foo", 1))
    assert notes.seen == {
        "train": {(1,)},
        "validate": {both},
        "query": {(7, *both)},
        "narrow": {(1,)},
        "label": {()},
        "metrology": {(2,)},
        "serialize": {()},
    }


class OwnSteps(torch.nn.Linear):
    """A learner with steps of its own."""

    def __init__(self, notes: Notes) -> None:
        super().__init__(2, 1)
        self.notes = notes

    def training_step(self, batch: Any, foo: int = 0) -> torch.Tensor:
        self.notes.note("train", foo)
        return loss(self, batch)

    def validation_step(self, batch: Any, *, bar: int = 0) -> torch.Tensor:
        self.notes.note("validate", bar)
        return loss(self, batch)


def own_loop(
    model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int, train_step_fn: Any, **kwargs: Any
) -> Any:
    """Pass on what it was given, as loops for PhysicsNeMo do."""
    extra = {name: kwargs[name] for name in ("foo", "bar") if name in kwargs}
    for batch in train_dataloader:
        optimizer.zero_grad()
        train_step_fn(model, batch, **extra).backward()
        optimizer.step()


@pytest.mark.parametrize("loop", [None, own_loop])
def test_steps_of_the_learner_get_them_too(build: Build, toys: Any, loop: Any) -> None:
    notes = Notes()
    driver = build(
        learner=OwnSteps(notes), val_datapool=toys.pool(), train_loop_fn=loop, **notes.parts(toys)
    )  # fmt: skip
    driver(foo=1, bar=2)
    assert notes.seen["train"] == {(1,)}
    assert notes.seen.get("validate", {(2,)}) == {(2,)}
    assert (loop is None) == ("validate" in notes.seen)


def test_loop_gets_the_arguments_that_it_has_parameters_for(build: Build) -> None:
    seen: list[Any] = []

    def loop(
        model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int, train_step_fn: Any, foo: int = 0
    ) -> None:
        seen.append(foo)
        for batch in train_dataloader:
            train_step_fn(model, batch)

    build(train_loop_fn=loop).run(foo=3)
    assert set(seen) == {3}


def test_argument_that_the_step_needs(build: Build) -> None:
    def step(model: Any, batch: Any, weight: float) -> torch.Tensor:
        assert weight == 0.5
        return loss(model, batch)

    build().run(step, weight=0.5)
    driver = build(run_id="without")
    with pytest.raises(UsageError, match=r"train_step_fn is .*step, which can't be called.*weight"):
        driver.run(step)
    assert not driver.log_dir.exists()


def test_steps_that_are_called_by_hand_get_them(build: Build) -> None:
    seen: list[Any] = []

    def step(model: Any, batch: Any, foo: int) -> torch.Tensor:
        seen.append(foo)
        return loss(model, batch)

    driver = build()
    with driver.session(step, foo=1):
        driver.active_learning_step(step, foo=1)
        driver.active_learning_step(step, foo=2)
    assert set(seen) == {1, 2}
    assert seen == sorted(seen)


class NarrowQuery(BaseQuery):
    def sample(self, query_queue: Any) -> None:
        query_queue.put(next(self.driver.candidates())[0])


class NarrowLabel(BaseLabel):
    def label(self, queue_to_label: Any, serialize_queue: Any) -> None:
        while not queue_to_label.empty():
            serialize_queue.put(queue_to_label.get())


class NarrowMetrology(BaseMetrology):
    def compute(self) -> None:
        self.append_record(n=1)


def narrow_loop(
    model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int, train_step_fn: Any, device: Any
) -> None: ...


NARROW = {
    "query_strategies": [NarrowQuery()],
    "label_strategy": NarrowLabel(),
    "metrology_strategies": [NarrowMetrology()],
    "train_loop_fn": narrow_loop,
}


def step_with_rate(model: Any, batch: Any, rate: float = 1.0) -> torch.Tensor:
    return loss(model, batch)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {"rates": 2}, r"nothing takes the argument rates=2.*the training step.*did you mean 'rate'"),
        ((), {"device": "cuda"}, r"nothing takes the argument device='cuda'"),
        ((), {"model": 1}, r"nothing takes the argument model=1"),
        ((), {"query_queue": 1}, r"nothing takes the argument query_queue=1"),
        ((3,), {}, r"nothing takes the positional arguments 3 .*sample\(\) of narrow_query.*by name"),
    ],
)
def test_argument_that_nothing_takes_is_refused_before_the_run_begins(
    build: Build, args: Any, kwargs: Any, message: str
) -> None:
    driver = build(**NARROW)
    with pytest.raises(UsageError, match=message):
        driver.run(step_with_rate, None, *args, **kwargs)
    assert not driver.log_dir.exists()
    with pytest.raises(UsageError, match=message):
        build(**NARROW, run_id="by-hand").active_learning_step(step_with_rate, None, *args, **kwargs)


def test_argument_without_a_parameter_is_told_of_where_somebody_may_read_it(
    build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        build().run(step_with_rate, rates=2)
    (text,) = (message for message in caplog.messages if "rates" in message)
    assert "no function has a parameter for the argument rates=2" in text
    assert "sample() of first_query" in text
    assert "did you mean 'rate'" in text
    caplog.clear()
    build(run_id="right").run(step_with_rate, rate=2)
    assert not [message for message in caplog.messages if "rate" in message]
