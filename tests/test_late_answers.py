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


Make = Callable[[str, int | None], Driver]


@pytest.fixture
def make(tmp_path: Any, toys: Any) -> Make:
    def build(run_id: str, cut_after: int | None) -> Driver:
        torch.manual_seed(3)
        return Driver(
            config=c.DriverConfig(
                batch_size=8, max_active_learning_steps=4, run_id=run_id, root_log_dir=tmp_path, seed=5
            ),
            learner=torch.nn.Linear(2, 1),
            strategies_config=c.StrategiesConfig([Three()], queue.Queue, Postal()),
            training_config=c.TrainingConfig(toys.pool(), 2, optimizer_config=c.OptimizerConfig(torch.optim.SGD)),
            plugins=[Postman(cut_after)],
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
