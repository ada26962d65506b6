"""Whether a query strategy counts samples as chosen that were asked for and have no answer yet."""

from __future__ import annotations

import collections
import functools
from pathlib import Path
from typing import Any, ClassVar

import torch

from alcore import SetQuery
from alcore_testing.drivers import ToyDriver, ask, prepare
from alcore_testing.query_base import QueryBase, ask_for, next_step
from alcore_testing.toys import FEATURES

_ROWS = 20
"""Different samples of a pool that holds each twice: sample i and sample i + 20 are twins."""
_LABELED = (0, 1, 2, 20, 21, 22)
_SEEDS = range(8)


class QueryPending(QueryBase):
    """What a strategy avoids within a batch, it avoids between batches: for those that are told what is pending."""

    def test_pending_samples_count_as_chosen(self, tmp_path: Path) -> None:
        """Of twins both of which no batch holds, it doesn't ask for one while the label of the other is outstanding."""
        if not self._avoids_twins(tmp_path):
            return
        for seed in self._seeds():
            driver = self._twins(tmp_path, seed, 3)
            first = ask(driver)
            next_step(driver, first, label=False)
            _assert_no_twins(first, ask(driver), "in the step before, and is still to be labeled")

    def test_picks_of_other_strategies_count_as_chosen(self, tmp_path: Path) -> None:
        """Nor does it ask for the twin of a sample that another strategy asked for in the same step."""
        if not self._avoids_twins(tmp_path):
            return
        for seed in self._seeds():
            asked = ask(self._twins(tmp_path, seed, 3, 3))
            _assert_no_twins(asked[:3], asked[3:], "by another strategy of this step")

    counts_pending: ClassVar[bool] = True
    """Where ``choose`` has the argument ``pending``, it looks at it; False where it is ignored on purpose."""

    def test_copies_of_what_it_would_choose_count_as_chosen(self, tmp_path: Path) -> None:
        """What is outstanding are copies of just what it would ask for: then it asks for other samples.

        No candidate has a copy among the candidates, pending or not, so that it makes no difference how it weighs
        density. A strategy of which a batch may hold equal samples must look at what is pending at all.
        """
        strategy = self.make(max_samples=1)
        if not isinstance(strategy, SetQuery) or not strategy.takes_pending:
            return
        avoids_twins, changes, read = self._avoids_twins(tmp_path), False, list[str]()
        for seed in self._seeds():
            would = ask(self._with_copies(tmp_path, seed, [], read))
            picks = ask(self._with_copies(tmp_path, seed, would, read))
            again = [one for one in picks if one in would]
            assert not avoids_twins or not again, (
                f"it asked for sample {again[0]}, a copy of which was asked for in the step before, and is still to be "
                "labeled"
            )
            changes |= picks != would
        unread = {*read} and not {"features", "outputs", "take"} & {*read}
        assert avoids_twins or changes or not unread or not self.counts_pending, (
            "choose has the argument pending, and doesn't look at the features or outputs in it; leave it out, or say "
            "counts_pending = False"
        )

    def _with_copies(self, folder: Path, seed: int, copied: list[int], read: list[str]) -> ToyDriver:
        """Return a driver at step 1 of a pool of different samples and copies of some, whose labels are outstanding.

        What its strategy reads of what is pending is added to `read`, and "" for each choice.
        """
        rows = torch.randn(_ROWS, FEATURES, generator=torch.Generator().manual_seed(3)) * 2
        pool = self.pool(self.case(), inputs=torch.cat([rows, rows[copied]]), labeled=_LABELED[:3])
        strategy = self.make(max_samples=3)
        choose = strategy.choose

        @functools.wraps(choose)
        def noted(*args: Any, pending: Any, **kwargs: Any) -> Any:
            read.append("")
            return choose(*args, pending=_Noted(pending, read), **kwargs)

        strategy.choose = noted
        driver = prepare(self.build(folder, strategy, pool=pool, seed=seed))
        if copied:
            ask_for(driver, range(_ROWS, _ROWS + len(copied)))
        next_step(driver, [])
        return driver

    def _avoids_twins(self, folder: Path) -> bool:
        """Tell whether it is told what is pending, and no batch holds twins."""
        strategy = self.make(max_samples=1)
        if not isinstance(strategy, SetQuery) or not strategy.takes_pending:
            return False
        batches = (ask(self._twins(folder, seed, 6)) for seed in self._seeds())
        return all(len({one % _ROWS for one in batch}) == len(batch) for batch in batches)

    def _seeds(self) -> Any:
        return _SEEDS if self.seeded else _SEEDS[:1]

    def _twins(self, folder: Path, seed: int, *max_samples: int) -> ToyDriver:
        rows = torch.randn(_ROWS, FEATURES, generator=torch.Generator().manual_seed(3)) * 2
        pool = self.pool(self.case(), inputs=torch.cat([rows, rows]), labeled=_LABELED)
        strategies = [self.make(max_samples=one) for one in max_samples]
        return prepare(self.build(folder, *strategies, pool=pool, seed=seed))


class _Noted:
    """What is pending; which of its attributes are read is noted."""

    def __init__(self, pending: Any, read: list[str]) -> None:
        self._pending, self._read = pending, read

    def __getattr__(self, name: str) -> Any:
        self._read.append(name)
        return getattr(self._pending, name)


def _assert_no_twins(first: list[int], then: list[int], words: str) -> None:
    counts = collections.Counter(one % _ROWS for one in [*first, *then])
    twins = [one for one in then if counts[one % _ROWS] > 1]
    assert not twins, f"it asked for sample {twins[0]}, whose twin was asked for {words}"
