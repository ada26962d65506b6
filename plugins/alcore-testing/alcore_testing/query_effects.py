"""What a query strategy leaves behind: nothing, and how much memory it takes meanwhile."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from alcore import DataInfo, SetQuery
from alcore_testing.contract import requires
from alcore_testing.drivers import ask, prepare
from alcore_testing.query_base import QueryBase, next_step
from alcore_testing.rows import rows_at_once
from alcore_testing.toys import CASES, DTYPES, FEATURES, LABELED, Case
from alcore_testing.watch import Unwritten, peak_memory, untouched

PERIOD = 2**14
SPARSE = 8
"""One id in so many is unlabeled, so that the others fill several of the windows in which core lists ids."""


class QueryEffects(QueryBase):
    """Everything that isn't its own stays as it was, and a large pool costs no more memory than a small one."""

    def test_learner_and_generators_stay_as_they_were(self, tmp_path: Path) -> None:
        """Weights, buffers, gradients, hooks, the mode of each module, and the global generators stay as they were."""
        learner = self.learner(self.case())
        _make_uneven(learner)
        driver = self.build(tmp_path, learner=learner)
        with untouched(driver):
            prepare(driver)
            ask(driver)

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_what_it_is_given_is_not_written_to(self, tmp_path: Path, dtype: torch.dtype) -> None:
        """Ids, inputs, outputs, features and targets, which others get too, come back to the bit, in any precision.

        In double precision ``.double()`` of a tensor is that tensor, and ``.float()`` is in single precision.
        """
        for case in filter(self.claims, CASES):
            strategy, unwritten = self.make(max_samples=5), Unwritten()
            driver = prepare(self.build(tmp_path, strategy, case=case, pool=self.pool_in(case, dtype), dtype=dtype))
            unwritten.watch(driver)
            if isinstance(strategy, SetQuery):
                _watch_choose(strategy, unwritten)
            try:
                with rows_at_once(16):
                    for step in range(3):
                        next_step(driver, ask(driver), label=step != 0)
            finally:
                unwritten.check()

    @requires("streams")
    def test_memory_does_not_grow_with_the_pool(self, tmp_path: Path) -> None:
        """A pool of twice the size takes no more memory: of samples that aren't chosen nothing is kept."""
        sizes = (10_000, 140_000, 280_000)  # the first loads what is loaded when it is used
        peaks = []
        for size in sizes:
            driver = prepare(self.build(tmp_path, pool=_EndlessPool(self.case(), size)))
            with peak_memory() as memory:
                assert len(ask(driver)) == 5
            peaks.append(memory.peak)
        growth = (peaks[2] - peaks[1]) / (sizes[2] - sizes[1])
        assert growth < 0.5, f"memory grows by {growth:.1f} bytes a sample of the pool, from {peaks[1]} to {peaks[2]}"


def _watch_choose(strategy: SetQuery, unwritten: Unwritten) -> None:
    """Remember what `SetQuery.choose` is given."""
    choose = strategy.choose

    @functools.wraps(choose)
    def watched(candidates: Any, labeled: Any, n: int, **more: Any) -> Any:
        unwritten.given("features and outputs of the candidates", candidates)
        unwritten.given("features and targets of the labeled samples", labeled)
        unwritten.given("features and outputs of the pending samples", more)
        return choose(candidates, labeled, n, **more)

    strategy.choose = watched  # type: ignore[method-assign]


def _make_uneven(learner: Any) -> None:
    """Give a module what is easily lost: parts in different modes, gradients, a parameter that needs none."""
    if not isinstance(learner, torch.nn.Module):
        return
    for place, module in enumerate(learner.modules()):
        module.training = place % 3 != 1
    for place, parameter in enumerate(learner.parameters()):
        parameter.requires_grad_(place != 0)
        parameter.grad = torch.full_like(parameter, 0.5) if place != 1 else None


class _EndlessPool:
    """A pool of any size that holds nothing: inputs are made of the ids."""

    def __init__(self, case: Case, total: int) -> None:
        self.total = SPARSE * total
        self.info = DataInfo(case.task, case.classes, FEATURES, (FEATURES,))
        self._case = case
        self._labeled = torch.tensor(LABELED)

    def __len__(self) -> int:
        return len(self._labeled)

    def __getitem__(self, index: int) -> Any:
        target = torch.tensor(float(index)) if self._case.task == "regression" else torch.tensor(index % 2)
        return self.inputs(self._labeled[index : index + 1])[0], target

    def append(self, item: Any) -> None:
        """Never called."""
        raise NotImplementedError

    def unlabeled_indices(self, start: int, stop: int) -> torch.Tensor:
        """Return every eighth id; none of `LABELED` is among them."""
        return torch.arange(start + (3 - start) % SPARSE, stop, SPARSE)

    def inputs(self, ids: torch.Tensor) -> torch.Tensor:
        """Return four waves of the ids, which begin anew at each period, so that each chunk is like the others."""
        return torch.sin((ids // SPARSE % PERIOD)[:, None] * torch.tensor([0.37, 0.71, 1.3, 2.9]))
