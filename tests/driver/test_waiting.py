"""A run whose label strategy waits: it ends inside its step, and goes on where its answers are told."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from alcore_labelers import AskLabelStrategy

from alcore.driver import Driver
from alcore.driver.asking import OpenRequest
from alcore.errors import UsageError
from alcore.experiment import Labeling
from alcore.protocols import Failed, Label
from alcore.store.reading import Run

Build = Callable[..., Driver]


def right(request: OpenRequest) -> Label | Failed:
    """The answer to a request, the same whenever it is given; a few fail."""
    assert request.sample is not None
    if request.sample % 7 == 3:
        return Failed(request, "too dark", "withdrawn" if request.sample % 2 else "infeasible")
    return Label(request, request.sample % 2, "ann", 2.0)


@pytest.fixture
def ask(build: Build, tmp_path: Path) -> Build:
    """Build a driver that waits for its labels."""

    def make(root: str = "runs", **settings: Any) -> Driver:
        parameters = {name: settings.pop(name) for name in ("min_labels", "max_wait") if name in settings}
        known: dict[str, Any] = {"run_id": "r", "resume": "auto", "root_log_dir": tmp_path / root}
        return build(label_strategy=AskLabelStrategy(**parameters), **known | settings)

    return make


def finish(make: Callable[[], Driver], answers: Callable[[list[OpenRequest]], list[Any]]) -> Driver:
    """Run until it is done, with a driver made anew for each wait."""
    for _ in range(60):
        driver = make()
        driver.run()
        if Run(driver.log_dir).meta()["status"] == "done":
            return driver
        driver.tell(answers(driver.ask()))
    raise AssertionError(Run(driver.log_dir).meta())


def result(driver: Driver) -> tuple[Any, ...]:
    run = Run(driver.log_dir)
    last = run.checkpoints()[-1]["sha256"]
    return (
        run.decisions(),
        {name: tuple(one.flatten().tolist()) for name, one in driver.learner.state_dict().items()},
        last,
    )


def test_run_that_waits_ends_inside_its_step_and_is_neither_done_nor_failed(ask: Build) -> None:
    driver = ask()
    driver.run()
    assert driver.stop_reason == "waiting for labels: 0 of 3 requests of step 0 are answered"
    run = Run(driver.log_dir)
    assert run.meta()["status"] == run.summary().status == "waiting"
    assert run.steps() == []
    assert [request.sample for request in driver.ask()] == [8, 9, 10]
    assert run.checkpoints()[-1]["phase"] == "training", "what was trained is not trained again"
    assert len(driver.train_datapool) == 8


def test_answers_in_any_order_and_portions_give_the_run_that_they_give_all_at_once(ask: Build) -> None:
    def all_at_once(requests: list[OpenRequest]) -> list[Any]:
        return [right(request) for request in requests]

    draw = random.Random(1)

    def in_portions(requests: list[OpenRequest]) -> list[Any]:
        return [right(request) for request in draw.sample(requests, min(2, len(requests)))]

    whole = result(finish(lambda: ask("whole"), all_at_once))
    assert result(finish(lambda: ask("portions"), in_portions)) == whole

    driver = ask("here")  # one process, one driver, which is called again
    driver.run()
    while driver.stop_reason != "all 3 steps are done":
        driver.tell(in_portions(driver.ask()))
        torch.rand(3)  # nothing that is drawn between matters
        driver.run()
    assert result(driver)[:2] == whole[:2]


def test_labels_that_are_told_train_as_those_of_a_pool_that_knows_them(ask: Build, build: Build) -> None:
    told = finish(ask, lambda requests: [Label(request, request.sample % 2) for request in requests])  # type: ignore[operator]
    of_pool = build(run_id="known")
    of_pool.run()
    assert Run(told.log_dir).records() == Run(of_pool.log_dir).records()
    assert all(torch.equal(*both) for both in zip(told.learner.parameters(), of_pool.learner.parameters(), strict=True))


def test_steps_called_by_hand_go_on_in_the_labeling_phase(ask: Build) -> None:
    driver = ask(resume="never")
    with driver.session():
        driver.active_learning_step()
        assert driver.active_learning_step_idx == 0
        driver.tell([right(request) for request in driver.ask()])
        driver.active_learning_step()
        assert (driver.active_learning_step_idx, driver.stop_reason) == (1, None)
    assert len(Run(driver.log_dir).steps()) == 1


def test_driver_that_waits_doesnt_go_on_where_another_has(ask: Build) -> None:
    first = ask()
    first.run()
    other = ask()
    other.tell([right(request) for request in other.ask()])
    other.run()
    assert "step 1" in str(other.stop_reason)
    with pytest.raises(UsageError, match="another process has gone on"):
        first.run()


def test_enough_labels_let_the_run_go_on_and_the_others_come_later(ask: Build) -> None:
    driver = ask(min_labels=2)
    driver.run()
    driver.tell([right(request) for request in driver.ask()[:1]])
    driver.run()
    assert driver.stop_reason == "waiting for labels: 1 of 3 requests of step 0 are answered, and 2 are enough"
    driver.tell([right(request) for request in driver.ask()[1:]])
    driver.run()
    assert next((request.request.step, request.sample) for request in driver.ask()) == (0, 9)
    driver.tell([right(request) for request in driver.ask()])
    driver.run()
    states = {state.asked.sample: (state.state, state.asked.request.step) for state in Run(driver.log_dir).states()}
    assert states[9] == ("labeled", 0)
    assert "of step 2" in str(driver.stop_reason)


def test_run_goes_on_when_it_has_waited_for_long_enough(ask: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("alcore.driver.labeling.time.time", lambda: now[0])
    make = lambda: ask(max_wait=60.0)  # noqa: E731
    for moment, reason in ((0, "step 0"), (59, "step 0"), (61, "step 1"), (100, "step 1"), (122, "step 2")):
        now[0] = 1000.0 + moment
        driver = make()
        driver.run()
        assert reason in str(driver.stop_reason), moment


def test_refused_answer_is_still_waited_for(ask: Build) -> None:
    driver = ask()
    driver.run()
    first, second, third = driver.ask()
    Run(driver.log_dir).inbox.publish(
        [Label(first.request, 7), Label(second.request, 1), Label(third.request, 0)], told=True
    )  # unchecked
    driver.run()
    assert driver.stop_reason == "waiting for labels: 2 of 3 requests of step 0 are answered"
    assert [request.sample for request in driver.ask()] == [first.sample]
    driver.tell([right(first)])
    driver.run()
    assert "step 1" in str(driver.stop_reason)


def test_label_that_only_the_pool_of_the_run_refuses_can_be_told_again_and_costs_nothing(ask: Build, toys: Any) -> None:
    pool = toys.pool()
    pool.check = lambda value: "an even number is needed" if value % 2 else None
    driver = ask(train_datapool=pool, budget=10.0, max_active_learning_steps=1)
    driver.run()
    told = Labeling(Run(driver.log_dir)).tell([Label(8, 1, "ann", 4.0), Label(9, 0), Label(10, 0)])  # without the pool
    assert len(told.of("accepted")) == 3
    driver.run()
    assert driver.stop_reason == "waiting for labels: 2 of 3 requests of step 0 are answered"
    run = Run(driver.log_dir)
    assert [(refusal["kind"], refusal["reason"], refusal["cost"]) for refusal in run.refused()] == [
        ("refused", "an even number is needed", None)
    ]
    (again,) = driver.ask()
    assert (again.sample, again.request.attempt) == (8, 0)
    driver.tell([Label(again, 0, "ann", 4.0)])
    driver.run()
    assert [request["state"] for request in run.requests()] == ["labeled"] * 3
    assert driver.spent().cost == 6.0


def test_withdrawn_request_is_given_up_and_is_no_failure(ask: Build, toys: Any) -> None:
    driver = ask(max_failure_rate=0.0, budget=100.0, query_strategies=[toys.FirstQuery(6)])
    driver.run()
    driver.tell([Failed(request, "lost", "withdrawn") for request in driver.ask()])
    driver.run()
    run = Run(driver.log_dir)
    assert "step 1" in str(driver.stop_reason)
    assert [request["state"] for request in run.requests(0)] == ["failed"] * 6
    assert {(refusal["kind"], refusal["reason"], refusal["cost"]) for refusal in run.refused()} == {
        ("dropped", "withdrawn: lost", None)
    }
    assert driver.spent().cost == 0.0


def test_start_without_labels_waits_likewise(ask: Build, toys: Any) -> None:
    def make() -> Driver:
        return ask(train_datapool=toys.pool(labeled=0), start_strategy=toys.FirstQuery(4))

    driver = make()
    driver.run()
    assert Run(driver.log_dir).meta()["status"] == "waiting"
    done = finish(make, lambda requests: [right(request) for request in requests])
    assert done.stop_reason == "all 3 steps are done"


# -- kills ----------------------------------------------------------------------------------------------------


def killed(work: Callable[[], None], folder: Path, at: int) -> bool:
    """Do work in a child that is killed at its n-th use of a file in a folder; return whether it came so far."""
    child = os.fork()
    if not child:
        left = [at]

        def hook(event: str, arguments: Sequence[Any]) -> None:
            if event in ("open", "os.rename", "os.remove", "os.mkdir") and str(folder) in str(arguments[0]):
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("seed", range(2))
def test_tell_and_run_killed_anywhere_lose_no_label_and_buy_none_twice(ask: Build, tmp_path: Path, seed: int) -> None:
    def told(requests: list[OpenRequest]) -> list[Any]:
        return [right(request) for request in requests]

    whole = result(finish(lambda: ask("whole", max_active_learning_steps=2), told))
    draw, kills = random.Random(seed), 0

    def make() -> Driver:
        return ask("killed", max_active_learning_steps=2)

    make().run()
    folder = tmp_path / "killed" / "r"

    def live() -> None:
        driver = make()
        answers = told(driver.ask())
        driver.tell(answers)
        driver.tell(answers)
        driver.run()

    for _ in range(12):
        kills += killed(live, folder, draw.randint(1, 25))
        if Run(folder).meta()["status"] == "done":
            break
    assert kills
    assert result(finish(make, told)) == whole
    labels = Run(folder).read("SELECT request FROM labels")
    assert len(labels) == len({label["request"] for label in labels})
