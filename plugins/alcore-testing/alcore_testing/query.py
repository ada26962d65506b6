"""The contract of query strategies: its parts, which a test may also take one by one, and the whole."""

from __future__ import annotations

import collections
import copy
import functools
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from alcore import BaseLabel, BaseQuery, DataInfo, Phase, SetQuery, TensorPool
from alcore.errors import Interrupted, QueryError, UsageError
from alcore.protocols import RunContext
from alcore_testing.contract import CaseContract, requires
from alcore_testing.drivers import (
    LATE,
    STEPS,
    ToyDriver,
    ask,
    assert_same_run,
    build_driver,
    prepare,
    whole_and_resumed,
)
from alcore_testing.plain import same
from alcore_testing.rows import rows_at_once
from alcore_testing.toys import CASES, DTYPES, FEATURES, LABELED, Case, toy_learner, toy_loop, toy_loss, toy_pool
from alcore_testing.watch import Unwritten, peak_memory, untouched

_TWINS = 20
"""Different samples of a pool that holds each twice: sample i and sample i + 20 are twins."""
_LABELED_TWINS = (0, 1, 2, 20, 21, 22)
_SEEDS = range(8)
_ORACLE_SAMPLES, _ORACLE_PICKS = 40, 4
BALLAST = 2**22  # weights: the larger a learner, the fewer samples are in a chunk, here 32 of 200
PERIOD = 2**14
SPARSE = 8
"""One id in so many is unlabeled, so that the others fill several of the windows in which core lists ids."""


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
        pool = self.pool(self.case(), labeled=[sample for sample in range(40) if sample != 11])
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


class QueryPending(QueryBase):
    """What a strategy avoids within a batch, it avoids between batches: for those that are told what is pending."""

    def test_pending_samples_count_as_chosen(self, tmp_path: Path) -> None:
        """A duplicate of a pending sample is not requested."""
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
            again = [sample for sample in picks if sample in would]
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
        rows = torch.randn(_TWINS, FEATURES, generator=torch.Generator().manual_seed(3)) * 2
        pool = self.pool(self.case(), inputs=torch.cat([rows, rows[copied]]), labeled=_LABELED_TWINS[:3])
        strategy = self.make(max_samples=3)
        choose = strategy.choose

        @functools.wraps(choose)
        def noted(*args: Any, pending: Any, **kwargs: Any) -> Any:
            read.append("")
            return choose(*args, pending=_Noted(pending, read), **kwargs)

        strategy.choose = noted
        driver = prepare(self.build(folder, strategy, pool=pool, seed=seed))
        if copied:
            ask_for(driver, range(_TWINS, _TWINS + len(copied)))
        next_step(driver, [])
        return driver

    def _avoids_twins(self, folder: Path) -> bool:
        """Return whether it is told what is pending, and no batch holds twins."""
        strategy = self.make(max_samples=1)
        if not isinstance(strategy, SetQuery) or not strategy.takes_pending:
            return False
        batches = (ask(self._twins(folder, seed, 6)) for seed in self._seeds())
        return all(len({sample % _TWINS for sample in batch}) == len(batch) for batch in batches)

    def _seeds(self) -> Any:
        return _SEEDS if self.seeded else _SEEDS[:1]

    def _twins(self, folder: Path, seed: int, *max_samples: int) -> ToyDriver:
        rows = torch.randn(_TWINS, FEATURES, generator=torch.Generator().manual_seed(3)) * 2
        pool = self.pool(self.case(), inputs=torch.cat([rows, rows]), labeled=_LABELED_TWINS)
        strategies = [self.make(max_samples=most) for most in max_samples]
        return prepare(self.build(folder, *strategies, pool=pool, seed=seed))


class QueryOracle(QueryBase):
    """Each pick is compared with what the definition gives, computed in the plainest way."""

    oracle: ClassVar[Any] = None
    """``oracle(driver, candidates, asked)``, see `test_picks_are_those_of_the_oracle`; None leaves it out."""

    @requires("oracle")
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_picks_are_those_of_the_oracle(self, tmp_path: Path, dtype: torch.dtype) -> None:
        """In three steps, in single and in double precision, the picks are what the contract's ``oracle`` says.

        The labels of the first step are outstanding in the others.

        It is called as ``oracle(driver, candidates, asked)``: a driver of fresh parts that stands where the strategy
        chose, so that nothing the strategy did to what it was given can be found there; the ids it chose from; and what
        it asked for, a list of `AskedRequest`. It returns the expected ids, best first; or it compares by itself, for
        instance with `assert_best_first`, and returns None.
        """
        for case in filter(self.claims, CASES):
            driver, twin = (self._driver_in(tmp_path, case, dtype) for _ in range(2))
            with rows_at_once(16):
                for place in range(3):
                    asked = driver.choose()
                    twin.position.phase = Phase.QUERY
                    expected = self.oracle(twin, candidates_of(twin), asked)
                    twin.position.phase = None
                    chosen = [int(request.request.item) for request in asked]
                    assert len(set(chosen)) == _ORACLE_PICKS, f"with {case} it asked for {chosen}"
                    if expected is not None:
                        assert chosen == list(expected), f"with {case} it asked for {chosen}, not for {expected}"
                    ask_for(twin, chosen)
                    for each in (driver, twin):
                        next_step(each, chosen, label=place != 0)

    def _driver_in(self, folder: Path, case: Case, dtype: torch.dtype) -> ToyDriver:
        strategy, pool = self.make(max_samples=_ORACLE_PICKS), self.pool_in(case, dtype, samples=_ORACLE_SAMPLES)
        return prepare(self.build(folder, strategy, case=case, pool=pool, dtype=dtype))


class QueryOutputs(QueryBase):
    """What is claimed works, at any scale; what is not claimed is refused before anything is trained."""

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_outputs_are_taken_or_refused(self, tmp_path: Path, case: Case) -> None:
        """Outputs that are claimed give picks; others are a UsageError before step 0."""
        driver = self.build(tmp_path, case=case)
        if self.claims(case):
            asked = ask(prepare(driver))
            assert len(asked) == len(set(asked)) == 5
            return
        with pytest.raises(UsageError):
            driver.run(toy_loss)
        assert not driver.log_dir.exists(), "refused, but only after the run had begun"

    @pytest.mark.parametrize("scale", [1e-20, 1e12], ids=["tiny", "huge"])
    def test_extreme_values_give_picks(self, tmp_path: Path, scale: float) -> None:
        """Inputs, features and outputs may be tiny or huge, and probabilities exactly 0 and 1."""
        for case in filter(self.claims, CASES):
            driver = prepare(self.build(tmp_path, case=case, pool=self.pool(case, scale=scale)))
            asked = ask(driver)
            assert len(asked) == len(set(asked)) == 5, f"with {case}"
            scores = [request.score for request in driver.query_queue.asked if request.score is not None]
            assert all(score == score for score in scores), f"NaN among the scores with {case}: {scores}"

    def test_nan_outputs_are_refused_by_sample_id(self, tmp_path: Path) -> None:
        """A sample for which the learner returns NaN is named in a QueryError, unless outputs make no difference."""
        driver = prepare(self.build(tmp_path))
        probed = candidates_of(driver)[:2]
        asked = ask(driver)
        bad = next(sample for sample in asked if sample not in probed)
        inputs = self.pool(self.case()).inputs(torch.arange(40))
        inputs[bad] = torch.nan
        broken = prepare(self.build(tmp_path, pool=self.pool(self.case(), inputs=inputs)))
        message, again = "", asked
        try:
            again = ask(broken)
        except QueryError as error:
            message = f"{error} "
        assert not message or re.search(rf"\b{bad}\b", message), f"sample {bad} isn't named: {message}"
        assert again == asked, f"sample {bad} has NaN outputs, and nobody is told"

    def test_picks_do_not_depend_on_chunks(self, tmp_path: Path) -> None:
        """Picks are the same whether the pool goes through the learner at once or in parts."""
        picks = []
        for ballast in (0, BALLAST):
            learner = self.learner(self.case())
            if isinstance(learner, torch.nn.Module):
                learner.register_parameter("ballast", torch.nn.Parameter(torch.zeros(ballast), requires_grad=False))
            picks.append(self.picks(tmp_path, 12, learner=learner, pool=self.pool(self.case(), samples=200)))
        assert picks[0] == picks[1]


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
            differ = any(sorted(picks) != sorted(first) for picks in others)
            if self.seeded:
                assert differ, f"the picks don't depend on the {what}, and seeded says so; draw from self.generator()"
            else:
                assert all(picks == first for picks in others), f"the picks depend on the {what}; say seeded = True"

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


class QueryContract(QueryPicks, QueryPending, QueryOracle, QueryOutputs, QueryEffects, QueryRuns):
    """What every query strategy promises that chooses samples of a pool.

    Override ``make(**parameters)``, and say what is claimed: `name`, `outputs`, `tasks`, `kinds`, `streams`,
    `needs_labels`, `seeded`; and how picks are computed plainly: `oracle`. A strategy that needs a learner of its own
    kind overrides ``learner(case)`` too.

    Examples
    --------
    >>> class TestMyQuery(QueryContract):
    ...     name = "mine"
    ...     outputs = ("binary", "classes")
    ...     def make(self, **parameters):
    ...         return MyQuery(**parameters)
    """


def candidates_of(driver: RunContext) -> list[int]:
    """Return the ids that may be asked for now."""
    return [sample for ids in driver.candidates() for sample in ids.tolist()]


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


class _AsksForHalf(BaseQuery):
    """Asks for every second candidate."""

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        """Ask for them."""
        query_queue.put_many(candidates_of(self.driver)[::2])


class _Items(list[Any]):
    """A pool of labeled items, and of nothing that could be chosen from."""


class _Noted:
    """What is pending; which of its attributes are read is noted."""

    def __init__(self, pending: Any, read: list[str]) -> None:
        self._pending, self._read = pending, read

    def __getattr__(self, name: str) -> Any:
        self._read.append(name)
        return getattr(self._pending, name)


def _assert_no_twins(first: list[int], then: list[int], words: str) -> None:
    counts = collections.Counter(sample % _TWINS for sample in [*first, *then])
    twins = [sample for sample in then if counts[sample % _TWINS] > 1]
    assert not twins, f"it asked for sample {twins[0]}, whose twin was asked for {words}"


def assert_best_first(
    asked: Sequence[Any], scores: Mapping[int, float], *, rtol: float = 1e-9, atol: float = 1e-12
) -> None:
    """Raise AssertionError unless these are the samples with the highest scores, best first.

    Parameters
    ----------
    asked
        Requests, as ``Driver.choose`` returns them. Scores that they hold are compared too.
    scores
        The score of each candidate, by id, computed in the plainest way.
    rtol, atol
        Scores that differ by less, in proportion to the larger and absolutely, count as equal.
    """
    best = sorted(scores.values(), reverse=True)
    for place, one in enumerate(asked):
        score = scores[one.sample]
        assert score == pytest.approx(best[place], rel=rtol, abs=atol), (
            f"pick {place} is sample {one.sample}, whose score is {score}; the best one left has {best[place]}"
        )
        if one.score is not None:
            assert one.score == pytest.approx(score, rel=rtol, abs=atol), f"of sample {one.sample}"


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
    targets = torch.stack([pool.answer(sample)[1] for sample in ids.tolist()])
    if wrong:
        hidden = ids[~torch.isin(ids, pool.labeled_ids)]
        order = torch.randperm(len(hidden), generator=torch.Generator().manual_seed(7))
        targets[hidden] = targets[hidden[order]]
    return TensorPool(pool.inputs(ids), targets, labeled=pool.labeled_ids, info=pool.info)
