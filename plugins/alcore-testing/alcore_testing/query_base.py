"""What a query strategy claims, and how the tests of its contract set it to work."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import torch

from alcore.protocols import RunContext
from alcore_testing.contract import CaseContract
from alcore_testing.drivers import ToyDriver, ask, build_driver, prepare
from alcore_testing.toys import Case, toy_learner, toy_loop, toy_pool


class QueryBase(CaseContract):
    """Claims of a query strategy, and its drivers."""

    kind = "query"

    streams: ClassVar[bool] = True
    """Memory doesn't grow with the pool: O(chunk + max_samples). False where samples are looked at together."""
    needs_labels: ClassVar[bool] = False
    """It can't choose while nothing is labeled, and refuses that before step 0; otherwise it must choose then too."""
    seeded: ClassVar[bool] = False
    """It draws random numbers: another seed, or another step, gives other picks. Otherwise neither changes them."""

    looks_up_answers: ClassVar[bool] = False
    """It looks up the answers of unlabeled samples, which nobody knows but in a simulation."""
    loop: ClassVar[Any] = staticmethod(toy_loop)
    """The training loop of the runs in this contract, for a learner of your own."""

    def make(self, *args: Any, **parameters: Any) -> Any:
        """Return a fresh strategy; the tests give ``max_samples`` alone."""
        raise NotImplementedError(f"{type(self).__name__} must define make(**parameters) -> a query strategy")

    def learner(self, case: Case) -> Any:
        """Return a fresh learner with the outputs of a case, always the same one."""
        return toy_learner(case)

    def pool(self, case: Case, **settings: Any) -> Any:
        """Return a fresh pool for a case, always the same one; the settings are those of `toy_pool`."""
        return toy_pool(case, **settings)

    def pool_in(self, case: Case, dtype: torch.dtype, **settings: Any) -> Any:
        """Return a fresh pool whose inputs are of a floating-point type, so that a run in it copies none of them."""
        inputs = self.pool(case, **settings).inputs(torch.arange(settings.get("samples", 40)))
        return self.pool(case, **{**settings, "inputs": inputs.to(dtype)})

    def build(self, folder: Path, *strategies: Any, case: Case | None = None, **settings: Any) -> ToyDriver:
        """Return a driver whose strategies have been attached, and nothing else."""
        case = case or self.case()
        given = {"pool": self.pool(case), "learner": self.learner(case), "loop": type(self).loop}
        return build_driver(folder, *(strategies or [self.make(max_samples=5)]), case=case, **{**given, **settings})

    def picks(self, folder: Path, max_samples: int = 5, **settings: Any) -> list[int]:
        """Return what a fresh strategy asks for in a fresh driver."""
        return ask(prepare(self.build(folder, self.make(max_samples=max_samples), **settings)))


def candidates_of(driver: RunContext) -> list[int]:
    """Return the ids that may be asked for now."""
    return [one for ids in driver.candidates() for one in ids.tolist()]


def next_step(driver: ToyDriver, asked: list[int], *, label: bool = True) -> None:
    """Go on to the next step; what was asked for is labeled, unless it takes longer."""
    driver.ahead += 1
    for sample in asked if label else ():
        driver.train_datapool.append(sample)


def ask_for(driver: ToyDriver, samples: Iterable[int]) -> None:
    """Ask for samples as another query strategy would."""
    driver.query_queue.begin(driver.active_learning_step_idx, float("inf"))
    driver.query_queue.begin_strategy("the one that is compared", 1)
    driver.query_queue.put_many(samples)
