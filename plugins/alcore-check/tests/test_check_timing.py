"""The forecast of trainings, from the batches of the first one."""

from __future__ import annotations

import pytest
import torch
from alcore_check.timing import BatchTimer, training_time

OVERHEAD, BATCH, SLOW = 5.0, 2.0, 100.0


def seen(epochs: int, batches: int) -> tuple[BatchTimer, float]:
    """Return what is noted of a training whose first batch is slow, and how long it took."""
    timer, now = BatchTimer(), 0.0
    for epoch in range(epochs):
        now += OVERHEAD
        for batch in range(batches):
            timer.begun.append(now)
            now += BATCH + (SLOW if not epoch and not batch else 0.0)
            timer.ended.append(now)
    return timer, now


@pytest.mark.parametrize("batches", [1, 2, 7])
@pytest.mark.parametrize("later", [1, 4, 10])
def test_forecast_counts_epochs_and_batches_and_what_is_slow_once(batches: int, later: int) -> None:
    timer, seconds = seen(10, batches)
    lasts = training_time(timer, seconds, 8 * batches, 8, lambda training: later if training else 10)
    assert lasts(0, 8 * batches) == pytest.approx(seconds)
    for more in (0, 1, 50):
        expected = later * (OVERHEAD + (batches + more) * BATCH)
        assert lasts(3, 8 * (batches + more)) == pytest.approx(expected)


@pytest.mark.parametrize("fault", ["no hooks", "one epoch", "other number of batches"])
def test_training_whose_batches_are_not_known_grows_with_its_samples(fault: str) -> None:
    timer, seconds = seen(1 if fault == "one epoch" else 4, 3)
    if fault == "no hooks":
        timer = BatchTimer()
    if fault == "other number of batches":
        timer.begun.append(timer.begun[-1])
    epochs = 1 if fault == "one epoch" else 4
    assert training_time(timer, seconds, 20, 8, lambda _: epochs)(5, 60) == pytest.approx(3 * seconds)


def test_batches_of_a_training_are_noted_and_hooks_are_removed() -> None:
    learner, timer = torch.nn.Linear(2, 1), BatchTimer()
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)

    def step() -> None:
        learner(torch.ones(3, 2)).sum().backward()
        optimizer.step()

    timer.start(learner)
    for _ in range(4):
        step()
    learner.eval()
    learner(torch.ones(3, 2))
    learner.train()
    timer.stop()
    step()
    assert len(timer.begun) == len(timer.ended) == 4
    assert timer.begun == sorted(timer.begun)
    timer.start(object())
    timer.stop()
    assert timer.begun == []
