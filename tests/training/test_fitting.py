"""`FittingLoop`: what a learner is fitted to, and from which draws."""

from __future__ import annotations

import pytest
import torch
from alcore_testing.drivers import build_driver

from alcore.errors import UsageError
from alcore.training import FittingLoop


class Fitted(torch.nn.Module):
    """It notes what it is fitted to."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(3))
        self.seen: list[tuple[int, int]] = []

    def fit_batches(self, batches, generator):
        self.seen.append((sum(len(targets) for _, targets in batches), generator.initial_seed()))

    def forward(self, inputs):
        return self.weight.expand(len(inputs), -1)


def test_each_step_fits_all_labels_from_draws_of_its_own(tmp_path):
    learner = Fitted()
    driver = build_driver(tmp_path, learner=learner, loop=FittingLoop(), max_active_learning_steps=3)
    driver.run()
    sizes, seeds = zip(*learner.seen, strict=True)
    assert list(sizes) == sorted(set(sizes))
    assert sizes[-1] < len(driver.training_config.train_datapool) + 1
    assert len(set(seeds)) == 3


def test_without_a_run_it_fits_the_batches():
    learner = Fitted()
    FittingLoop()(learner, None, [(torch.zeros(4, 2), torch.zeros(4)), (torch.zeros(3, 2), torch.zeros(3))])
    ((size, _),) = learner.seen
    assert size == 7


def test_another_learner_is_refused():
    with pytest.raises(UsageError, match=r"by its fit_batches\(batches, generator\), and Linear has none"):
        FittingLoop()(torch.nn.Linear(2, 2))
