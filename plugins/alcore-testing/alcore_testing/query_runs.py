"""What the picks of a query strategy depend on, and how it goes on after an interruption."""

from __future__ import annotations

import copy
import functools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alcore import BaseLabel, Phase, TensorPool
from alcore_testing.drivers import LATE, STEPS, ToyDriver, ask, assert_same_run, prepare, whole_and_resumed
from alcore_testing.plain import same
from alcore_testing.query_base import QueryBase, next_step
from alcore_testing.toys import CASES, toy_loss


class QueryRuns(QueryBase):
    """The same run gives the same picks: seed, state and pool decide, and nothing else."""

    def test_same_seed_gives_same_picks(self, tmp_path: Path) -> None:
        """Two runs of one seed ask for the same samples in the same order."""
        assert self.picks(tmp_path, seed=3) == self.picks(tmp_path, seed=3)

    def test_picks_do_not_depend_on_global_generators(self, tmp_path: Path) -> None:
        """What other code drew from the generators of python, numpy and torch doesn't change the picks."""
        with torch.random.fork_rng():
            both = []
            for seed in (1, 2):
                random.seed(seed)
                np.random.seed(seed)
                torch.manual_seed(seed)
                both.append(self.picks(tmp_path))
        assert both[0] == both[1]

    def test_picks_do_not_depend_on_hidden_answers(self, tmp_path: Path) -> None:
        """Where a pool knows the answers of unlabeled samples, other answers give the same picks, in each of two steps.

        Those of simulations that need them say so (`looks_up_answers`), and must depend on them then.
        """
        for case in filter(self.claims, CASES):
            picks = []
            for wrong in (False, True):
                pool = _with_answers(self.pool(case), wrong)
                driver = prepare(self.build(tmp_path, case=case, **({} if pool is None else {"pool": pool})))
                picks.append([ask(driver)])
                next_step(driver, picks[-1][0], label=False)
                picks[-1].append(ask(driver))
            differ = picks[0] != picks[1]
            if self.looks_up_answers:
                assert differ, "the picks don't depend on hidden answers, and looks_up_answers says so"
            else:
                assert not differ, f"with {case} the picks depend on answers that nobody has given yet"

    def test_seed_and_step_decide_random_picks(self, tmp_path: Path) -> None:
        """Another seed, and another step, give other picks where it draws (`seeded`), and the same where it doesn't."""
        first = self.picks(tmp_path, seed=0)
        by_seed = [self.picks(tmp_path, seed=seed) for seed in range(1, 6)]
        by_step = []
        for step in range(1, 6):
            driver = prepare(self.build(tmp_path, seed=0))
            driver.ahead = step
            by_step.append(ask(driver))
        for what, others in (("seed", by_seed), ("step", by_step)):
            differ = any(sorted(one) != sorted(first) for one in others)
            if self.seeded:
                assert differ, f"the picks don't depend on the {what}, and seeded says so; draw from self.generator()"
            else:
                assert all(one == first for one in others), f"the picks depend on the {what}; say seeded = True"

    def test_restored_state_continues_the_same_way(self, tmp_path: Path) -> None:
        """Its ``state_dict`` gives a fresh object the same next picks; without one it has nothing to remember.

        It is saved after eight steps, so that a state shows that matters after several.
        """
        strategy = self.make(max_samples=2)
        driver = prepare(self.build(tmp_path, strategy))
        asked = _ask_in_steps(driver, 8)
        has_state = callable(getattr(strategy, "state_dict", None))
        state = copy.deepcopy(dict(strategy.state_dict())) if has_state else None
        expected = _ask_in_steps(driver, 4)

        fresh = self.make(max_samples=2)
        other = prepare(self.build(tmp_path, fresh))
        for samples in asked:
            next_step(other, samples)
        if state is not None:
            fresh.load_state_dict(copy.deepcopy(state))
            assert same(dict(fresh.state_dict()), state)
        assert _ask_in_steps(other, 4) == expected, "a strategy that was saved and loaded asks for other samples"

    def test_resumed_run_whose_labels_are_late_equals_uninterrupted_run(self, tmp_path: Path) -> None:
        """So does a run whose labels arrive a step late, resumed while some of them are outstanding."""

        def build(folder: Path, **settings: Any) -> ToyDriver:
            return self.build(
                folder, label=_OneStepLate(), max_active_learning_steps=4, checkpoint_interval=2, **settings
            )

        whole, resumed = whole_and_resumed(build, tmp_path, 3, Phase.QUERY, toy_loss)
        assert_same_run(resumed, whole)
        log = (resumed.log_dir / "console.log").read_text(encoding="utf-8")
        assert "asked for other samples" not in log, "replayed, it asked for other samples than before"

    @pytest.mark.parametrize(("step", "phase"), [(1, Phase.QUERY), (LATE, Phase.LABELING)])
    def test_resumed_run_equals_uninterrupted_run(self, tmp_path: Path, step: int, phase: Phase) -> None:
        """A run that was interrupted before its second query, or after a late one, equals one that was not."""
        steps: dict[str, Any] = {"max_active_learning_steps": step + STEPS - LATE, "samples_per_step": 4}
        whole, resumed = whole_and_resumed(functools.partial(self.build, **steps), tmp_path, step, phase, toy_loss)
        assert_same_run(resumed, whole)
        log = (resumed.log_dir / "console.log").read_text(encoding="utf-8")
        assert "asked for other samples" not in log, "replayed, it asked for other samples than before"


def _ask_in_steps(driver: ToyDriver, steps: int) -> list[list[int]]:
    """Return what is asked for in so many steps; all of it is labeled."""
    asked = []
    for _ in range(steps):
        asked.append(ask(driver))
        next_step(driver, asked[-1])
    return asked


class _OneStepLate(BaseLabel):
    """Answers what earlier steps asked for; what this one asked for takes longer."""

    labels_by_id = True

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        """Answer what is older than the step, and give the rest back."""
        for request in queue_to_label.get_many(queue_to_label.qsize()):
            if request.step < self.driver.active_learning_step_idx:
                serialize_queue.put(request.item)
            else:
                queue_to_label.give_back(request)


def _with_answers(pool: Any, wrong: bool) -> TensorPool | None:
    """Return a pool of the same samples, perhaps with other answers where none was given; None where it knows none."""
    if not isinstance(pool, TensorPool) or not pool.knows_answers:
        return None
    ids = torch.arange(pool.total)
    targets = torch.stack([pool.answer(one)[1] for one in ids.tolist()])
    if wrong:
        hidden = ids[~torch.isin(ids, pool.labeled_ids)]
        order = torch.randperm(len(hidden), generator=torch.Generator().manual_seed(7))
        targets[hidden] = targets[hidden[order]]
    return TensorPool(pool.inputs(ids), targets, labeled=pool.labeled_ids, info=pool.info)
