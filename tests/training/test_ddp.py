"""Training on several ranks, as far as one process shows it; tests/distributed trains on several."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alcore.distributed.ranks import Ranks
from alcore.errors import UsageError
from alcore.training.ddp import ParallelStep, share_buffers, with_synchronized_normalization


class Other(Ranks):
    """The second of two ranks, which is given what rank 0 has."""

    rank, size = 1, 2

    def __init__(self, shared: Any) -> None:
        self.shared = shared

    def share(self, make: Callable[[], Any]) -> Any:
        return self.shared


def test_buffers_become_those_of_rank_0() -> None:
    learner = torch.nn.BatchNorm1d(2)
    weight = learner.weight.detach().clone()
    share_buffers(learner, Other({name: torch.ones_like(one) + 1 for name, one in learner.named_buffers()}))
    assert all(bool((buffer == 2).all()) for buffer in learner.buffers())
    assert torch.equal(learner.weight, weight)


@pytest.mark.parametrize("learner", [torch.nn.Linear(1, 1), object()])
def test_learner_without_buffers_shares_nothing(learner: Any) -> None:
    share_buffers(learner, Other(None))


def test_normalization_is_synchronized_in_place_but_for_the_outermost_module() -> None:
    inner = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    assert with_synchronized_normalization(inner) is inner
    assert isinstance(inner[1], torch.nn.SyncBatchNorm)
    assert isinstance(with_synchronized_normalization(torch.nn.BatchNorm1d(2)), torch.nn.SyncBatchNorm)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Any]:
    """A process group of one process."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield SimpleNamespace(
        device=torch.device("cpu"), find_unused_parameters=False, training_group=torch.distributed.group.WORLD
    )
    torch.distributed.destroy_process_group()


def test_step_sees_the_bare_learner_and_gradients_reach_it(manager: Any) -> None:
    learner, seen = torch.nn.Linear(2, 1), []

    def step(model: Any, batch: Any) -> torch.Tensor:
        seen.append(model)
        return model(batch).sum()

    ParallelStep(learner, step, manager)(learner, torch.ones(3, 2)).backward()
    assert seen == [learner]
    assert learner.weight.grad is not None
    assert learner.weight.grad.tolist() == [[3.0, 3.0]]


def test_step_for_another_model_is_refused(manager: Any) -> None:
    step = ParallelStep(torch.nn.Linear(2, 1), lambda model, batch: model(batch).sum(), manager)
    with pytest.raises(UsageError, match="with a ReLU that is not the learner"):
        step(torch.nn.ReLU(), torch.ones(1, 2))


def test_parameters_without_a_gradient_are_told_with_the_remedy(manager: Any) -> None:
    learner = torch.nn.ModuleList([torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)])
    learner.forward = lambda batch: learner[0](batch)  # type: ignore[method-assign]
    step = ParallelStep(learner, lambda model, batch: model(batch).sum(), manager)
    step(learner, torch.ones(1, 2)).backward()
    with pytest.raises(UsageError, match="find_unused_parameters=True"):
        step(learner, torch.ones(1, 2))
