"""`RunLifecycle`: when the run of a Driver can be opened in this process, and what is said where it can't."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import alcore
from alcore import Driver, UsageError
from alcore.driver.lifecycle import RunState
from alcore.store import Run

Build = Callable[..., Driver]


def state(driver: Driver) -> RunState:
    return driver._lifecycle.state


def test_run_is_new_then_open_then_ended(build: Build) -> None:
    driver = build()
    assert state(driver) is RunState.NEW
    with driver.session():
        assert state(driver) is RunState.OPEN
    assert state(driver) is RunState.ENDED
    for again in (driver.run, driver.active_learning_step):
        with pytest.raises(UsageError, match="has ended; make a new Driver to run again"):
            again()
    with pytest.raises(UsageError, match="is open already; make a new Driver to restore it"):
        driver.restore()


def test_observer_of_the_end_can_look_and_not_go_on(build: Build) -> None:
    seen: list[Any] = []

    class Late:
        @alcore.runhook
        def alcore_run_end(self, driver: Any) -> None:
            seen.append((state(driver), driver.spent().labels))
            with pytest.raises(UsageError, match="has ended"):
                driver.active_learning_step()

    driver = build(plugins=[Late()])
    driver.run()
    assert seen == [(RunState.ENDING, driver.spent().labels)]


@pytest.mark.parametrize("breaks", ["before", "after"])
def test_restore_that_failed_half_way_is_not_repeated_on_changed_parts(
    build: Build, breaks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(run_id="r").run()
    driver = build(run_id="r", max_active_learning_steps=5)

    class Error(Exception):
        pass

    def fail(*args: Any, **kwargs: Any) -> None:
        raise Error

    name = {"before": "check_decided", "after": "release_in_flight"}[breaks]
    monkeypatch.setattr(f"alcore.driver.lifecycle.{name}", fail)
    with pytest.raises(Error):
        driver.restore()
    monkeypatch.undo()
    if breaks == "before":  # nothing was changed
        driver.restore()
        assert state(driver) is RunState.OPEN
        driver.run()
        return
    for again in (driver.restore, driver.run):
        with pytest.raises(UsageError, match="failed half-way; make a new Driver with fresh parts"):
            again()
    rest = build(run_id="r", max_active_learning_steps=5)  # the lock is free
    rest.restore()
    rest.run()


def test_run_that_is_interrupted_at_its_start_is_closed_and_can_be_restored(build: Build) -> None:
    class Broken:
        @alcore.runhook
        def alcore_run_start(self) -> None:
            raise KeyboardInterrupt

    driver = build(run_id="r", plugins=[Broken()])
    with pytest.raises(KeyboardInterrupt):
        driver.run()
    with pytest.raises(UsageError, match="failed half-way"):
        driver.run()
    rest = build(run_id="r")  # the lock is free
    rest.restore()
    rest.run()
    assert rest.stop_reason == "all 3 steps are done"


def test_pending_is_what_has_no_answer_at_every_moment_of_a_run(build: Build, toys: Any) -> None:
    seen: list[tuple[int, str, list[int]]] = []

    class Watching:
        def __init__(self) -> None:
            self.driver: Any = None

        @alcore.runhook
        def alcore_phase_start(self, driver: Any, phase: str) -> None:
            seen.append((driver.active_learning_step_idx, f"{phase} begins", driver.pending().tolist()))

        @alcore.runhook
        def alcore_step_end(self, driver: Any) -> None:
            seen.append((driver.active_learning_step_idx, "step ends", driver.pending().tolist()))

        @alcore.runhook
        def alcore_run_end(self, driver: Any) -> None:
            seen.append((driver.active_learning_step_idx, "run ends", driver.pending().tolist()))

    class Partial(toys.EchoLabel):  # type: ignore[misc]
        """Answers all but the last request of a step, and waits for that one."""

        def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
            requests = []
            while not queue_to_label.empty():
                requests.append(queue_to_label.get())
            for request in requests[:-1]:
                serialize_queue.put(alcore.Label(request, 0))

    driver = build(plugins=[Watching()], label_strategy=Partial(), max_active_learning_steps=2)
    driver.run()
    asked = [
        [request["sample"] for request in Run(driver.log_dir).requests() if request["step"] == step]
        for step in range(2)
    ]
    left = [asked[0][-1:], asked[0][-1:] + asked[1][-1:]]
    expected = []
    for step, before in enumerate([[], left[0]]):
        expected += [(step, f"{phase} begins", before) for phase in ("training", "metrology", "query")]
        expected += [(step, "labeling begins", sorted(before + asked[step])), (step, "step ends", sorted(left[step]))]
    assert seen == [*expected, (2, "run ends", sorted(left[1]))]
    assert driver.pending().tolist() == sorted(left[1])
