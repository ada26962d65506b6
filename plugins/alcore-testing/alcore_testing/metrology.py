"""The contract of metrology strategies."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import random
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_flatten

from alcore import AlcoreError, Driver, Phase, TensorPool, UsageError
from alcore.inference import evaluate
from alcore.store import Run
from alcore_testing.contract import CaseContract, requires
from alcore_testing.drivers import LATE, STEPS, ToyDriver, assert_same_run, build_driver, prepare, whole_and_resumed
from alcore_testing.plain import same, text_of
from alcore_testing.rows import rows_at_once
from alcore_testing.toys import CASES, DTYPES, Case, toy_learner, toy_loss, toy_pool
from alcore_testing.watch import Unwritten, untouched


class MetrologyContract(CaseContract):
    """What every metrology strategy promises: it measures, records what it found, and disturbs nothing.

    Override ``make(**parameters)``, and say what is claimed: `name`, `outputs`, `tasks`, `kinds`, and how its figures
    are computed plainly: `oracle`.

    Examples
    --------
    >>> class TestMyMetrology(MetrologyContract):
    ...     name = "mine"
    ...     def make(self, **parameters):
    ...         return MyMetrology(**parameters)
    """

    kind = "metrology"

    oracle: ClassVar[Any] = None
    """``oracle(outputs, targets, kind)``, see `test_records_hold_the_figures_of_the_oracle`; None leaves it out."""

    def build(self, folder: Path, *, case: Case | None = None, strategy: Any = None, **settings: Any) -> ToyDriver:
        """Return a driver that measures with one strategy."""
        case = case or self.case()
        given = {"learner": toy_learner(case), "pool": toy_pool(case), "validation": _validation(case)}
        return build_driver(folder, metrology=[strategy or self.make()], **{**given, **settings})

    def test_compute_appends_records(self, tmp_path: Path) -> None:
        """Each ``compute`` appends at least one record to ``records``, and leaves those that are there."""
        strategy = self.make()
        driver = prepare(self.build(tmp_path, strategy=strategy))
        records, before = strategy.records, list[Any]()
        assert records == [], "a fresh strategy has no records"
        for _ in range(3):
            measure(driver)
            assert strategy.records is records, "records must stay the list that it was"
            assert len(records) > len(before)
            assert same(records[: len(before)], before), "earlier records were changed"
            before = copy.deepcopy(records)
            driver.ahead += 1

    def test_records_can_be_stored_and_exported(self, tmp_path: Path) -> None:
        """Records are numbers, strings, tensors, lists and dicts: what comes back from the database is the same."""
        strategy = self.make()
        driver = self.build(tmp_path, strategy=strategy)
        driver.run(toy_loss)
        ((name, stored),) = Run(driver.log_dir).records().items()
        assert same(stored, strategy.records), f"on the disk are {stored}, and in memory {strategy.records}"
        exported = json.loads((driver.log_dir / f"{name}.json").read_text(encoding="utf-8"))
        assert len(exported) == len(strategy.records)
        for one, record in zip(exported, strategy.records, strict=True):
            if isinstance(record, dict):
                assert list(one) == list(map(str, record)), "names that are different in Python are one in JSON"

    def test_records_do_not_depend_on_chunks(self, tmp_path: Path) -> None:
        """Samples that go through the learner in several parts, the last one smaller, give the records of one part."""
        for case in filter(self.claims, CASES):
            both = []
            for rows in (1000, 7):
                driver = prepare(self._driver_in(tmp_path, case, torch.float64))
                with rows_at_once(rows):
                    both.append(measure(driver))
            _assert_alike(both[1], both[0], f"with {case}, of several parts and of one:")

    @requires("oracle")
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_records_hold_the_figures_of_the_oracle(self, tmp_path: Path, dtype: torch.dtype) -> None:
        """A record has the values that the contract's ``oracle`` computes, in single and in double precision.

        It is called as ``oracle(outputs, targets, kind)``, with the learner's outputs for all samples that are measured
        on, their targets, and ``"logits"`` or ``"probabilities"``; it returns the expected values of a record by name.
        Others may stand beside them.
        """
        for case in filter(self.claims, CASES):
            for on in ("validation", "pool"):
                driver = prepare(self._driver_in(tmp_path, case, dtype, on))
                with rows_at_once(7):
                    batches = list(evaluate(driver).batches)
                    (record,) = measure(driver)
                axis = 1 if batches[0][0].dim() == 3 else 0
                outputs = torch.cat([one for one, _ in batches], dim=axis)
                expected = self.oracle(outputs, torch.cat([targets for _, targets in batches]), case.kind)
                _assert_alike([{name: record.get(name) for name in expected}], [expected], f"with {case}:")

    @pytest.mark.parametrize("on", ["validation", "pool", "train"])
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_what_it_is_given_is_not_written_to(self, tmp_path: Path, dtype: torch.dtype, on: str) -> None:
        """Inputs, outputs and targets, which others get too, come back to the bit, in any precision."""
        for case in filter(self.claims, CASES):
            unwritten = Unwritten()
            driver = prepare(self._driver_in(tmp_path, case, dtype, on))
            unwritten.watch(driver)
            with rows_at_once(7):
                measure(driver)
            unwritten.check()

    def _driver_in(self, folder: Path, case: Case, dtype: torch.dtype, on: str = "validation") -> ToyDriver:
        """Return a driver that measures on 24 samples, the whole pool or the labeled items, in a precision."""
        pool, held_out = (_in(data, dtype) for data in (toy_pool(case), _validation(case)))
        pool = _Measured.of(pool) if on == "pool" else pool
        return self.build(
            folder, case=case, pool=pool, validation=held_out if on == "validation" else None, dtype=dtype
        )

    def test_learner_generators_and_pools_stay_as_they_were(self, tmp_path: Path) -> None:
        """Measuring changes neither the learner nor the global generators nor the data."""
        pool = _Measured.of(toy_pool(self.case()))
        for validation in (None, _validation(self.case())):
            driver = self.build(tmp_path, pool=pool, validation=validation)
            driver.learner.head.train(mode=False)
            digests = [data.digest() for data in (pool, validation) if data is not None]
            with untouched(driver):
                prepare(driver)
                measure(driver)
            assert [data.digest() for data in (pool, validation) if data is not None] == digests, "it wrote to the data"

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_outputs_are_taken_or_refused(self, tmp_path: Path, case: Case) -> None:
        """Outputs and tasks that are claimed are measured; others are a UsageError before step 0."""
        driver = self.build(tmp_path, case=case)
        if self.claims(case):
            assert measure(prepare(driver))
            return
        with pytest.raises(UsageError):
            driver.run(toy_loss)
        assert not driver.log_dir.exists(), "refused, but only after the run had begun"

    @pytest.mark.parametrize("on", ["validation", "pool", "train"])
    def test_records_say_what_was_measured_on(self, tmp_path: Path, on: str) -> None:
        """A validation pool, a pool with ``evaluation()``, or the labeled items alone: each gives a record."""
        pool = toy_pool(self.case())
        validation = _validation(self.case()) if on == "validation" else None
        driver = self.build(tmp_path, pool=_Measured.of(pool) if on == "pool" else pool, validation=validation)
        for record in measure(prepare(driver)):
            if isinstance(record, dict) and "on" in record:
                assert record["on"] == on

    def test_measuring_again_gives_the_same_records(self, tmp_path: Path) -> None:
        """The same learner and data give the same records, whatever other code drew from the global generators."""
        both = []
        with torch.random.fork_rng():
            for seed in (1, 2):
                random.seed(seed)
                np.random.seed(seed)
                torch.manual_seed(seed)
                both.append(text_of(measure(prepare(self.build(tmp_path)))))
        assert both[0] == both[1]

    def test_nan_outputs_give_records_or_an_error(self, tmp_path: Path) -> None:
        """A learner that diverged gives records that can be stored, or an error of alcore's own."""
        learner = toy_learner(self.case())
        torch.nn.init.constant_(learner.head.bias, torch.nan)
        driver = self.build(tmp_path, learner=learner, max_active_learning_steps=1, skip_training=True)
        with contextlib.suppress(AlcoreError):
            driver.run()
            assert Run(driver.log_dir).records()

    def test_serialize_records_leaves_records_and_folder_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If there is ``serialize_records``, it can be called as the driver does: with what the run was given."""
        monkeypatch.chdir(tmp_path)
        strategy = self.make()
        measure(prepare(self.build(tmp_path, strategy=strategy)))
        before = copy.deepcopy(strategy.records)
        if callable(getattr(strategy, "serialize_records", None)):
            strategy.serialize_records()
            strategy.serialize_records(unheard_of=2.0)
        assert same(strategy.records, before)
        assert not list(tmp_path.glob("*.*")), "it writes where the user stands"

    def test_arguments_of_the_run_are_accepted(self, tmp_path: Path) -> None:
        """A strategy is given those arguments of ``driver.run`` that it takes, and works whatever they are."""
        assert measure(prepare(self.build(tmp_path)), 7, unheard_of=2.0)

    def test_resumed_run_equals_uninterrupted_run(self, tmp_path: Path) -> None:
        """A run that was interrupted and resumed has the records of one that was not."""
        build = functools.partial(self.build, max_active_learning_steps=STEPS)
        whole, resumed = whole_and_resumed(build, tmp_path, LATE, Phase.LABELING, toy_loss)
        assert_same_run(resumed, whole)
        log = (resumed.log_dir / "console.log").read_text(encoding="utf-8")
        assert "measured otherwise" not in log, "replayed, it measured otherwise than before"


def measure(driver: Driver, *args: Any, **kwargs: Any) -> list[Any]:
    """Let the first metrology strategy of a driver measure, as in its metrology phase; return the new records."""
    strategy = driver.metrology_strategies[0]
    before = len(strategy.records)
    strategy.compute(*args, **kwargs)
    new: list[Any] = strategy.records[before:]
    return new


def _in(pool: TensorPool, dtype: torch.dtype) -> TensorPool:
    """Return a pool of the same samples whose floating-point numbers are of this type."""
    ids = torch.arange(pool.total)
    targets = torch.stack([pool.answer(sample)[1] for sample in ids.tolist()])
    targets = targets.to(dtype) if targets.is_floating_point() else targets
    return TensorPool(pool.inputs(ids).to(dtype), targets, labeled=pool.labeled_ids, info=pool.info)


def _assert_alike(found: list[Any], expected: list[Any], words: str) -> None:
    """Raise AssertionError unless records are equal but for rounding errors of numbers."""
    mine, theirs = (tree_flatten(side) for side in (found, expected))
    assert mine[1] == theirs[1], f"{words} {found}, not {expected}"
    for one, other in zip(mine[0], theirs[0], strict=True):
        number = isinstance(other, float | torch.Tensor | np.ndarray)
        alike = np.allclose(one, other, rtol=1e-5, atol=1e-7, equal_nan=True) if number else same(one, other)
        assert alike, f"{words} {found}, not {expected}"


def _validation(case: Case) -> TensorPool:
    return toy_pool(case, 24, range(24), seed=5)


class _Measured(TensorPool):
    """A pool that is measured as a whole."""

    everything: tuple[Any, Any]

    @classmethod
    def of(cls, pool: TensorPool) -> _Measured:
        """Return a pool of the same samples."""
        ids = torch.arange(pool.total)
        everything = pool.inputs(ids), torch.stack([pool.answer(sample)[1] for sample in ids.tolist()])
        made = cls(*everything, labeled=pool.labeled_ids, info=pool.info)
        made.everything = everything
        return made

    def evaluation(self) -> tuple[Any, Any]:
        """Return all inputs and targets, not copies."""
        return self.everything
