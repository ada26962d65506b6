"""Which samples a query strategy may ask for, and how many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from alcore import BaseQuery
from alcore.errors import Interrupted, UsageError
from alcore_testing.drivers import ask, prepare
from alcore_testing.query_base import QueryBase, candidates_of, next_step
from alcore_testing.toys import FEATURES, toy_loss


class QueryPicks(QueryBase):
    """Picks are unique, unlabeled, and as many as were asked for."""

    def test_rounds_empty_the_pool(self, tmp_path: Path) -> None:
        """Each round asks for min(n, available) different samples, never for labeled or requested ones."""
        driver = prepare(self.build(tmp_path, self.make(max_samples=7)))
        left = set(candidates_of(driver))
        for step in range(7):
            asked = ask(driver)
            assert len(asked) == len(set(asked)) == min(7, len(left)), f"{len(asked)} of {len(left)} in step {step}"
            assert set(asked) <= left
            left -= set(asked)
            next_step(driver, asked, label=step % 2 == 0)
        assert not left

    def test_wanting_too_many_picks_all(self, tmp_path: Path) -> None:
        """All candidates are asked for then, each once."""
        driver = prepare(self.build(tmp_path, self.make(max_samples=1000)))
        there = candidates_of(driver)
        assert sorted(ask(driver)) == there

    def test_requested_samples_are_not_picked_again(self, tmp_path: Path) -> None:
        """Samples that were asked for, and are not labeled yet, are not candidates."""
        driver = prepare(self.build(tmp_path, _AsksForHalf(), self.make(max_samples=12)))
        half = set(candidates_of(driver)[::2])
        asked = ask(driver)
        assert set(asked[: len(half)]) == half
        assert len(set(asked[len(half) :]) - half) == 12

    def test_empty_pool_gives_no_picks(self, tmp_path: Path) -> None:
        """With no candidate nothing is asked for, and nothing raises."""
        pool = self.pool(self.case(), labeled=range(40))
        assert ask(prepare(self.build(tmp_path, pool=pool))) == []

    def test_only_candidate_is_picked(self, tmp_path: Path) -> None:
        """The only candidate is asked for."""
        pool = self.pool(self.case(), labeled=[one for one in range(40) if one != 11])
        assert ask(prepare(self.build(tmp_path, pool=pool))) == [11]

    def test_max_samples_of_zero_gives_no_picks(self, tmp_path: Path) -> None:
        """With ``max_samples=0`` nothing is asked for."""
        assert self.picks(tmp_path, 0) == []

    def test_negative_max_samples_is_refused(self) -> None:
        """A negative ``max_samples`` is a UsageError of the constructor."""
        with pytest.raises(UsageError, match=r"max_samples|negative"):
            self.make(max_samples=-1)

    @pytest.mark.parametrize(("max_samples", "share"), [(2, 5), (9, 3)])
    def test_share_of_a_step_takes_the_place_of_max_samples(self, tmp_path: Path, max_samples: int, share: int) -> None:
        """With ``samples_per_step`` its share counts, ``self.wanted``, in place of ``max_samples``."""
        assert len(self.picks(tmp_path, max_samples, samples_per_step=share)) == share

    def test_two_strategies_of_a_step_pick_different_samples(self, tmp_path: Path) -> None:
        """Of two strategies in a step, the second asks for other samples than the first."""
        both = [self.make(max_samples=4), self.make(max_samples=4)]
        asked = ask(prepare(self.build(tmp_path, *both, samples_per_step=9)))
        assert len(asked) == len(set(asked)) == 9

    def test_separate_pool_is_chosen_from(self, tmp_path: Path) -> None:
        """Where the pool to choose from isn't the training pool, ids are those of the former."""
        other = self.pool(self.case(), labeled=[0, 2, 4], seed=1)
        driver = prepare(self.build(tmp_path, self.make(max_samples=1000), unlabeled=other))
        assert sorted(ask(driver)) == [1, 3, *range(5, 40)]

    def test_duplicated_samples_are_different_picks(self, tmp_path: Path) -> None:
        """A pool that holds each sample three times: picks are different ids, as many as wanted."""
        rows = torch.randn(14, FEATURES, generator=torch.Generator().manual_seed(2)).repeat_interleave(3, dim=0)
        asked = self.picks(tmp_path, 20, pool=self.pool(self.case(), inputs=rows))
        assert len(asked) == len(set(asked)) == 20

    def test_ties_are_broken_by_id(self, tmp_path: Path) -> None:
        """Ties are the same everywhere: of equal samples the lowest ids are asked for, unless they are drawn."""
        pool = self.pool(self.case(), scale=0.0)
        driver = prepare(self.build(tmp_path, self.make(max_samples=6), pool=pool))
        there = candidates_of(driver)
        asked = ask(driver)
        assert len(asked) == len(set(asked)) == 6
        if not self.seeded:
            assert asked == there[:6], "equal samples must be asked for by ascending id"

    def test_pool_without_labels_gives_picks_or_is_refused(self, tmp_path: Path) -> None:
        """Without a label it chooses all the same, or refuses that before step 0 (`needs_labels`)."""
        driver = self.build(tmp_path, pool=self.pool(self.case(), labeled=()), skip_training=True)
        if self.needs_labels:
            with pytest.raises(UsageError):
                driver.run()
            assert not driver.log_dir.exists()
        else:
            assert len(ask(prepare(driver))) == 5

    def test_arguments_of_the_run_are_accepted(self, tmp_path: Path) -> None:
        """A strategy is given those arguments of ``driver.run`` that it takes, and works whatever they are."""
        assert len(ask(prepare(self.build(tmp_path)), 7, unheard_of=2.0)) == 5

    def test_interruption_ends_the_choice(self, tmp_path: Path) -> None:
        """It comes to a safe point while it looks at the pool."""
        driver = prepare(self.build(tmp_path))
        driver.interrupt()
        with pytest.raises(Interrupted):
            ask(driver)

    def test_pool_that_lists_nothing_is_refused(self, tmp_path: Path) -> None:
        """A pool without ``unlabeled_indices`` and ``inputs`` is refused with the remedy, before step 0."""
        pool: Any = _Items([(torch.ones(FEATURES), torch.tensor(0))] * 4)
        driver = self.build(tmp_path, pool=pool)
        with pytest.raises(UsageError, match="unlabeled_indices"):
            driver.run(toy_loss)
        assert not driver.log_dir.exists()


class _AsksForHalf(BaseQuery):
    """Asks for every second candidate."""

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        """Ask for them."""
        query_queue.put_many(candidates_of(self.driver)[::2])


class _Items(list[Any]):
    """A pool of labeled items, and of nothing that could be chosen from."""
