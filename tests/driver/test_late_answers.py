"""An answer that comes after its labeling phase has ended: it is kept, and the training pool gets it with the next."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

import pytest
import torch

import alcore
from alcore import Driver
from alcore import config as c
from alcore.protocols import Label, Phase
from alcore.store.reading import Run
from alcore.strategies import BaseLabel, BaseQuery


class Three(BaseQuery):
    """Asks for three samples a step."""

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        step = self.driver.active_learning_step_idx
        for sample in range(20 + 3 * step, 23 + 3 * step):
            query_queue.put(sample)


class Postal(BaseLabel):
    """Answers the first request at once, and leaves the others to the post."""

    def __init__(self) -> None:
        self.posted: list[int] = []

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        request = queue_to_label.get_request()
        serialize_queue.put(Label(request, request.item % 2))
        while not queue_to_label.empty():
            queue_to_label.get()


class Cut(KeyboardInterrupt):
    pass


class Postman:
    """Brings one answer when a step's training begins, for a request of the step before; ends the run if asked to."""

    def __init__(self, cut_after: int | None) -> None:
        self.cut_after = cut_after

    @alcore.runhook
    def alcore_phase_start(self, driver: Driver, phase: Phase) -> None:
        step = driver.active_learning_step_idx
        if phase is Phase.TRAINING and step:
            sample = 22 + 3 * (step - 1)
            assert driver.label_queue is not None
            driver.label_queue.put(Label(sample, sample % 2))  # a repeat where it came before the run was cut off

    @alcore.runhook
    def alcore_should_stop(self, driver: Driver) -> str | None:
        if driver.active_learning_step_idx == self.cut_after:
            raise Cut
        return None


Make = Callable[..., Driver]


@pytest.fixture
def make(tmp_path: Any, toys: Any) -> Make:
    def build(run_id: str, cut_after: int | None, *plugins: Any) -> Driver:
        torch.manual_seed(3)
        return Driver(
            config=c.DriverConfig(
                batch_size=8, max_active_learning_steps=4, run_id=run_id, root_log_dir=tmp_path, seed=5
            ),
            learner=torch.nn.Linear(2, 1),
            strategies_config=c.StrategiesConfig([Three()], queue.Queue, Postal()),
            training_config=c.TrainingConfig(toys.pool(), 2, optimizer_config=c.OptimizerConfig(torch.optim.SGD)),
            plugins=[Postman(cut_after), *plugins],
        )

    return build


def essence(driver: Driver) -> dict[str, Any]:
    run = Run(driver.log_dir)
    return {
        "steps": [{name: value for name, value in one.items() if name != "seconds"} for one in run.steps()],
        "labels": [tuple(row) for row in run.read("SELECT step, value FROM labels ORDER BY step, value, rowid")],
        "requests": [(one["step"], one["ordinal"], one["state"]) for one in run.requests()],
        "checkpoints": {one["file"]: one["sha256"] for one in run.checkpoints() if one["phase"] == "labeling"},
        "labelled": driver.train_datapool.labeled_ids.tolist(),
        "weights": [weight.tolist() for weight in driver.learner.parameters()],
    }


def test_it_counts_in_the_step_that_it_comes_in(make: Make, toys: Any) -> None:
    driver = make("whole", None)
    driver.run()
    sizes = [step["train_samples"] for step in Run(driver.log_dir).steps()]
    first = len(toys.pool())
    assert sizes == [first, first + 1, first + 3, first + 5], "one at once, and one by post from the second step on"
    assert [step["labelled"] for step in Run(driver.log_dir).steps()] == [1, 2, 2, 2]
    assert Run(driver.log_dir).refused() == []


@pytest.mark.parametrize("cut_after", [1, 2, 3])
def test_a_run_that_was_cut_off_behind_it_ends_the_same(make: Make, cut_after: int) -> None:
    whole = make("whole", None)
    whole.run()
    with pytest.raises(Cut):
        make("cut", cut_after).run()
    again = make("cut", None)
    again.restore()
    again.run()
    expected = essence(whole)
    for name, value in essence(again).items():
        assert value == expected[name], (name, Run(again.log_dir).refused())


def test_it_is_taken_before_the_first_phase_of_a_resumed_run(make: Make) -> None:
    with pytest.raises(Cut):
        make("cut", 2).run()
    again = make("cut", None)
    again.restore()
    assert again.label_queue is not None
    again.label_queue.put(Label(24, 0))  # of step 1, before anything is run
    assert [one["state"] for one in Run(again.log_dir).requests()][3:6] == ["open", "labelled", "labelled"]
    again.run()
    assert 24 in again.train_datapool.labeled_ids.tolist()
    assert [one["reason"] for one in Run(again.log_dir).refused()] == ["a repeat of the answer that is there"]


class Brings:
    """Does something at the end of a step, or where the run may stop."""

    def __init__(self, *, step_end: Any = None, stop: Any = None) -> None:
        self.acts = {"step": step_end, "stop": stop}

    @alcore.runhook
    def alcore_step_end(self, driver: Driver) -> None:
        if self.acts["step"]:
            self.acts["step"](driver)

    @alcore.runhook
    def alcore_should_stop(self, driver: Driver) -> str | None:
        return self.acts["stop"](driver) if self.acts["stop"] else None


class Start(BaseQuery):
    """Asks for five samples, drawn with a global generator."""

    def __init__(self) -> None:
        self.calls = 0

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        self.calls += 1
        for sample in torch.randperm(20)[:5].tolist():
            query_queue.put(sample)


class Slow(BaseLabel):
    """Answers nothing before a step, then everything; is cut off once if that is wanted."""

    labels_by_id = True

    def __init__(self, first: int = 0, cut: int | None = None) -> None:
        self.first, self.cut = first, cut

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        for place in range(queue_to_label.qsize()):
            if place == self.cut:
                raise Cut
            sample = queue_to_label.get()
            if self.driver.active_learning_step_idx >= self.first:
                serialize_queue.put(sample)


@pytest.fixture
def cold(tmp_path: Any, toys: Any) -> Callable[..., Driver]:
    """Makes a driver with nothing labelled."""

    def build(run_id: str, label: Any, *plugins: Any, steps: int | None = 4) -> Driver:
        torch.manual_seed(3)
        pool = toys.pool(labelled=0)
        return Driver(
            config=c.DriverConfig(
                batch_size=8, max_active_learning_steps=steps, run_id=run_id, root_log_dir=tmp_path, seed=5
            ),
            learner=torch.nn.Linear(2, 1),
            strategies_config=c.StrategiesConfig([Three()], queue.Queue, label, start_strategy=Start()),
            training_config=c.TrainingConfig(pool, 1, optimizer_config=c.OptimizerConfig(torch.optim.SGD)),
            plugins=list(plugins),
        )

    return build


def put_all(driver: Driver) -> None:
    assert driver.label_queue is not None
    assert driver._session is not None
    for request in driver._session.store.open_requests():
        driver.label_queue.put(Label(request.item, 1))


def test_a_start_whose_answers_come_between_two_steps_is_not_bought_twice(cold: Callable[..., Driver]) -> None:
    def at_step_end(driver: Driver) -> None:
        if driver.active_learning_step_idx == 0:
            put_all(driver)

    driver = cold("c", Slow(99), Brings(step_end=at_step_end))
    driver.run()
    assert driver.start_strategy.calls == 1
    assert [step["train_samples"] for step in Run(driver.log_dir).steps()][:3] == [0, 0, 5]


def test_a_run_goes_on_when_the_labels_of_its_start_have_come(cold: Callable[..., Driver]) -> None:
    driver = cold("c", Slow(1), Brings(stop=lambda driver: "enough" if driver.active_learning_step_idx == 4 else None),
                  steps=None)  # fmt: skip
    driver.run()
    assert driver.stop_reason == "enough"


def test_a_run_that_ended_without_a_label_takes_late_ones(cold: Callable[..., Driver]) -> None:
    first = cold("c", Slow(99), steps=6)
    first.run()
    assert str(first.stop_reason).startswith("nothing is labelled yet")
    again = cold("c", Slow(99), steps=6)
    again.restore()
    put_all(again)
    again.run()
    assert again.stop_reason == "all 6 steps are done"
    assert len(again.train_datapool) >= 5


def test_a_start_is_replayed_where_its_labeling_was_cut_off(cold: Callable[..., Driver]) -> None:
    whole = cold("whole", Slow())
    whole.run()
    with pytest.raises(Cut):
        cold("cut", Slow(cut=2)).run()
    again = cold("cut", Slow())
    again.restore()
    again.run()
    expected = essence(whole)
    for name, value in essence(again).items():
        assert value == expected[name], name


def test_a_phase_that_ended_is_not_run_again_with_what_it_left_open(make: Make) -> None:
    whole = make("whole", None)
    whole.run()
    driver = make("cut", None)

    def cut_off_before_the_step_ends() -> None:
        with driver.session():
            driver.active_learning_step()
            assert driver._session is not None
            driver._session.append_late = cut_off  # type: ignore[method-assign]
            driver.active_learning_step()

    def cut_off() -> None:
        raise Cut

    with pytest.raises(Cut):
        cut_off_before_the_step_ends()
    again = make("cut", None)
    again.restore()
    again.run()
    expected, found = essence(whole), essence(again)
    for name in ("labels", "requests", "labelled", "weights"):  # what the postman brought again was refused
        assert found[name] == expected[name], name


def test_a_late_answer_in_a_step_that_a_criterion_ends_is_appended(make: Make) -> None:
    def stop(driver: Driver) -> str | None:
        if driver.active_learning_step_idx != 1:
            return None
        put_all(driver)
        return "enough"

    driver = make("s", None, Brings(stop=stop))
    driver.run()
    assert driver.stop_reason == "enough"
    assert Run(driver.log_dir).steps()[1]["labelled"] == 2
    again = make("s", None)
    again.restore()
    assert driver.train_datapool.labeled_ids.tolist() == again.train_datapool.labeled_ids.tolist()
    assert again._session is not None
    again._session.close(None)
