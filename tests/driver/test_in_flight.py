"""Requests that were being labelled when the run was cut off: polled, asked again, dropped, or the user's to decide."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alcore import Driver, Label, UsageError
from alcore.store.reading import Run
from alcore.strategies import BaseLabel


class Power(KeyboardInterrupt):
    """The power fails."""


class Lab(BaseLabel):
    """A lab that is told of each request, and may lose power before the answer is delivered."""

    def __init__(self, log: list[str], fails_at: int | None = None) -> None:
        self.log, self.fails_at = log, fails_at

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        while not queue_to_label.empty():
            request = queue_to_label.get_request()
            self.log.append(request.id)
            if len(self.log) == self.fails_at:
                raise Power
            serialize_queue.put(Label(request, 1))


class Pollable(Lab):
    answers: Any = None

    def poll(self, request_id: str) -> Any:
        self.log.append(f"poll {request_id}")
        return self.answers


class Idempotent(Lab):
    idempotent = True


Restart = Callable[..., tuple[Driver, list[str]]]


@pytest.fixture
def restart(build: Any, tmp_path: Path) -> Restart:
    """Return a function that cuts a run off within its second request, and gives a driver made anew for it."""

    def cut(kind: type[Lab]) -> tuple[Driver, list[str]]:
        log: list[str] = []
        settings = {"run_id": "run", "max_active_learning_steps": 1}
        with pytest.raises(Power):
            build(label_strategy=kind(log, fails_at=2), **settings).run()
        return build(label_strategy=kind(log), **settings), log

    return cut


def states(driver: Driver) -> list[str]:
    return [request["state"] for request in Run(driver.log_dir).requests()]


def test_the_user_decides_where_nobody_knows(restart: Restart) -> None:
    driver, log = restart(Lab)
    with pytest.raises(UsageError, match=r"1 requests were with Lab .* 9\. Decide with --in-doubt ask .* drop"):
        driver.restore()
    assert states(driver) == ["labelled", "open", "open"]
    assert len(log) == 2


def test_the_same_driver_can_be_restored_once_the_user_has_decided(build: Any) -> None:
    log: list[str] = []
    settings = {"run_id": "run", "max_active_learning_steps": 2}
    with pytest.raises(Power):
        build(label_strategy=Lab(log, fails_at=5), **settings).run()
    driver = build(label_strategy=Lab(log), **settings)
    with pytest.raises(UsageError, match="Decide with"):
        driver.restore()
    driver.restore(in_doubt="ask")
    driver.run()
    assert states(driver) == ["labelled"] * 6


def test_asked_again(restart: Restart) -> None:
    driver, log = restart(Lab)
    driver.restore(in_doubt="ask")
    driver.run()
    assert states(driver) == ["labelled"] * 3
    assert [log.count(one) for one in dict.fromkeys(log)] == [1, 2, 1]


def test_dropped(restart: Restart) -> None:
    driver, log = restart(Lab)
    driver.restore(in_doubt="drop")
    driver.run()
    assert states(driver) == ["labelled", "failed", "labelled"]
    assert len(log) == len(set(log)) == 3
    run = Run(driver.log_dir)
    assert run.steps()[0]["failed"] == 1
    assert "in doubt" in run.refused()[0]["reason"]
    assert driver.train_datapool.labeled_ids.tolist()[8:] == [8, 10]


@pytest.mark.parametrize("answer", [0, Label(9, 0)], ids=["value", "label"])
def test_polled_before_it_is_asked_again(restart: Restart, answer: Any) -> None:
    driver, log = restart(Pollable)
    driver.label_strategy.answers = answer
    driver.restore()
    driver.run()
    second = log[1]
    assert log.count(second) == 1
    assert log[2] == f"poll {second}"
    assert states(driver) == ["labelled"] * 3
    assert [request["value"] for request in Run(driver.log_dir).requests()] == ["1", "0", "1"]


def test_a_poll_that_knows_nothing_means_asking_again(restart: Restart) -> None:
    driver, log = restart(Pollable)
    driver.restore()
    driver.run()
    assert states(driver) == ["labelled"] * 3
    assert log.count(log[1]) == 2


def test_an_idempotent_strategy_is_asked_again_under_the_same_id(restart: Restart) -> None:
    driver, log = restart(Idempotent)
    driver.restore()
    driver.run()
    assert states(driver) == ["labelled"] * 3
    assert log.count(log[1]) == 2


def test_what_a_strategy_returns_unanswered_is_not_in_doubt(build: Any) -> None:
    class Lazy(BaseLabel):
        def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
            while not queue_to_label.empty():
                queue_to_label.get()

    build(label_strategy=Lazy(), run_id="run", max_active_learning_steps=1).run()
    again = build(label_strategy=Lazy(), run_id="run", max_active_learning_steps=2)
    again.restore()
    again.run()
    assert again.stop_reason == "all 2 steps are done"
