"""Metrology strategies with one fault each, and the contract test that each fails."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from alcore_testing import MetrologyContract

from alcore import BaseMetrology, UsageError
from alcore.inference import evaluate
from alcore.outputs import check_outputs, kind_of, predicted_classes


class Accuracy(BaseMetrology):
    """Records the share of right answers, and how often it measured."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def check(self) -> None:
        if self.driver.info is not None and self.driver.info.task != "classification":
            raise UsageError("accuracy is of classes, and this is a regression")
        check_outputs(self.driver.probe())

    def compute(self, *args: Any, **kwargs: Any) -> None:
        on, batches = evaluate(self.driver)
        kind = kind_of(self.driver.learner)
        right = [(predicted_classes(outputs, kind) == targets).double() for outputs, targets in batches]
        self.count += 1
        self.append_record(on=on, accuracy=float(torch.cat(right).mean()), count=self.count)

    def state_dict(self) -> Mapping[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]


class TestTheCorrectOne(MetrologyContract):
    def make(self, **parameters: Any) -> Any:
        return Accuracy(**parameters)

    def oracle(self, outputs: torch.Tensor, targets: torch.Tensor, kind: str) -> dict[str, Any]:
        outputs = outputs if outputs.dim() == 3 else outputs.reshape(1, len(targets), -1)
        if outputs.shape[2] == 1:
            outputs = torch.cat([0 * outputs if kind == "logits" else 1 - outputs, outputs], dim=2)
        rows = (outputs.softmax(dim=2) if kind == "logits" else outputs).mean(dim=0).tolist()
        right = [row.index(max(row)) == target for row, target in zip(rows, targets.tolist(), strict=True)]
        return {"accuracy": sum(right) / len(right)}


class Mutant(Accuracy):
    test, words = "", ""


class RecordsNothing(Mutant):
    """It measures, and keeps what it found to itself."""

    test, words = "test_compute_appends_records", "assert"

    def append_record(self, **values: Any) -> None:
        pass


class KeepsTheLastAlone(Mutant):
    """Each measurement replaces the one before."""

    test, words = "test_compute_appends_records", "assert"

    def compute(self, *args: Any, **kwargs: Any) -> None:
        self.records.clear()
        super().compute()


class MakesANewList(Mutant):
    """``records`` is another list each time, and the driver looks at the first."""

    test, words = "test_compute_appends_records", "the list that it was"

    def compute(self, *args: Any, **kwargs: Any) -> None:
        self.records = list(self.records)
        super().compute()


class ChangesEarlierRecords(Mutant):
    """The best so far is marked in the records that are there."""

    test, words = "test_compute_appends_records", "earlier records were changed"

    def compute(self, *args: Any, **kwargs: Any) -> None:
        super().compute()
        self.records[0]["latest"] = self.count


class RecordsAnObject(Mutant):
    """A record holds an object that can't be stored."""

    test, words = "test_records_can_be_stored_and_exported", "EncodingError"

    def append_record(self, **values: Any) -> None:
        super().append_record(**values, by=self)


class RecordsItsCounter(Mutant):
    """Every record holds one list, which goes on growing after the record was stored."""

    test, words = "test_records_can_be_stored_and_exported", "on the disk are"

    def append_record(self, **values: Any) -> None:
        self.seen = [*getattr(self, "seen", ()), 0]
        super().append_record(**values, seen=self.seen)
        for record in self.records:
            record["seen"].append(1)


class NamesThatAreOneInJson(Mutant):
    """A record has the names 1 and "1"."""

    test, words = "test_records_can_be_stored_and_exported", "are one in JSON"

    def append_record(self, **values: Any) -> None:
        super().append_record(**values)
        self.records[-1] |= {1: 0.5, "1": 0.25}


class MeansOfChunks(Mutant):
    """The mean of the chunks' shares of right answers, in which the samples of a small chunk count more."""

    test, words = "test_records_do_not_depend_on_chunks", "of several parts and of one"

    def compute(self, *args: Any, **kwargs: Any) -> None:
        on, batches = evaluate(self.driver)
        kind = kind_of(self.driver.learner)
        shares = [float((predicted_classes(one, kind) == targets).double().mean()) for one, targets in batches]
        self.append_record(on=on, accuracy=sum(shares) / len(shares), count=1)


class LooksAtTheFirstChunk(Mutant):
    """It measures on the first chunk alone."""

    test, words = "test_records_do_not_depend_on_chunks", "of several parts and of one"

    def compute(self, *args: Any, **kwargs: Any) -> None:
        outputs, targets = next(evaluate(self.driver).batches)
        right = predicted_classes(outputs, kind_of(self.driver.learner)) == targets
        self.append_record(on="validation", accuracy=float(right.double().mean()), count=1)


class RecordsTheError(Mutant):
    """The share of wrong answers goes by the name of accuracy."""

    test, words = "test_records_hold_the_figures_of_the_oracle", "not"

    def append_record(self, **values: Any) -> None:
        super().append_record(**{**values, "accuracy": 1 - values["accuracy"]})


class SortsOutputsInPlace(Mutant):
    """The outputs that it was given are sorted where they are."""

    test, words = "test_what_it_is_given_is_not_written_to", "wrote to the outputs of the learner"

    def compute(self, *args: Any, **kwargs: Any) -> None:
        for outputs, _ in evaluate(self.driver).batches:
            outputs.copy_(outputs.sort(dim=0).values)
        super().compute()


class ScalesDoublesInPlace(Mutant):
    """A copy in double precision is scaled; where outputs are in double precision already it is no copy."""

    test, words = "test_what_it_is_given_is_not_written_to", "wrote to the outputs of the learner"

    def compute(self, *args: Any, **kwargs: Any) -> None:
        for outputs, _ in evaluate(self.driver).batches:
            outputs.double().mul_(0.5)
        super().compute()


class WritesToTargets(Mutant):
    """Targets are clamped in place."""

    test, words = "test_what_it_is_given_is_not_written_to", "wrote to the inputs and targets of a pool"

    def compute(self, *args: Any, **kwargs: Any) -> None:
        for _, targets in evaluate(self.driver).batches:
            targets.clamp_(max=0)
        super().compute()


class LeavesEvalMode(Mutant):
    """The learner stays in eval mode."""

    test, words = "test_learner_generators_and_pools_stay_as_they_were", "learner's modes"

    def compute(self, *args: Any, **kwargs: Any) -> None:
        self.driver.learner.eval()
        super().compute()


class DrawsFromTorch(Mutant):
    """It draws from the global generator."""

    test, words = "test_learner_generators_and_pools_stay_as_they_were", "global generators"

    def compute(self, *args: Any, **kwargs: Any) -> None:
        torch.rand(3)
        super().compute()


class WritesToThePool(Mutant):
    """The targets that it compares with are changed in place."""

    test, words = "test_learner_generators_and_pools_stay_as_they_were", "wrote to the data"

    def compute(self, *args: Any, **kwargs: Any) -> None:
        for _, targets in evaluate(self.driver).batches:
            targets.clamp_(max=1)
        super().compute()


class TakesAnything(Mutant):
    """A regression is found out when the first figure is computed."""

    test, words = "test_outputs_are_taken_or_refused", "DID NOT RAISE"

    def check(self) -> None:
        pass

    def compute(self, *args: Any, **kwargs: Any) -> None:
        self.append_record(accuracy=0.0)


class KnowsNoPosterior(Mutant):
    """Posterior samples are claimed, and break it."""

    test, words = "test_outputs_are_taken_or_refused", "no posterior"

    def check(self) -> None:
        super().check()
        if self.driver.probe().dim() == 3:
            raise UsageError("no posterior")


class NeedsAValidationPool(Mutant):
    """Without a validation pool it breaks."""

    test, words = "test_records_say_what_was_measured_on", "NoneType"

    def compute(self, *args: Any, **kwargs: Any) -> None:
        assert len(self.driver.val_datapool)
        super().compute()


class SaysTheWrongSource(Mutant):
    """It says that it measured on held-out samples, wherever it did."""

    test, words = "test_records_say_what_was_measured_on", "assert"

    def append_record(self, **values: Any) -> None:
        super().append_record(**{**values, "on": "validation"})


class MeasuresADrawnPart(Mutant):
    """Which samples it looks at is drawn from the global generator, which it puts back."""

    test, words = "test_measuring_again_gives_the_same_records", "assert"

    def append_record(self, **values: Any) -> None:
        with torch.random.fork_rng():
            super().append_record(**values, noise=float(torch.rand(1)))


class BreaksOnNaN(Mutant):
    """A learner of NaN breaks it."""

    test, words = "test_nan_outputs_give_records_or_an_error", "ZeroDivisionError"

    def append_record(self, **values: Any) -> None:
        if any(bool(parameter.isnan().any()) for parameter in self.driver.learner.parameters()):
            raise ZeroDivisionError
        super().append_record(**values)


class WritesWhereTheUserStands(Mutant):
    """Its file goes to the current folder."""

    test, words = "test_serialize_records_leaves_records_and_folder_alone", "where the user stands"

    def serialize_records(self, *args: Any, **kwargs: Any) -> None:
        Path("accuracy.json").write_text("{}", encoding="utf-8")


class SerializesAway(Mutant):
    """What was written is dropped from the records."""

    test, words = "test_serialize_records_leaves_records_and_folder_alone", "assert"

    def serialize_records(self, *args: Any, **kwargs: Any) -> None:
        self.records.clear()


class TakesNoArguments(Mutant):
    """Arguments of the run are not for it."""

    test, words = "test_arguments_of_the_run_are_accepted", "TypeError"

    def compute(self) -> None:
        super().compute()


class ForgetsItsState(Mutant):
    """How often it measured isn't taken back."""

    test, words = "test_resumed_run_equals_uninterrupted_run", "it differs from the run without a break"

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class DriftsSlowly(Mutant):
    """From its sixth measurement on it measures something else, and how often it measured is no part of its state."""

    test, words = "test_resumed_run_equals_uninterrupted_run", "it differs from the run without a break"
    state_dict = load_state_dict = None  # type: ignore[assignment]
    measured = 0

    def append_record(self, **values: Any) -> None:
        self.measured += 1
        values["accuracy"] += self.measured > 5
        super().append_record(**{**values, "count": 0})


MUTANTS: list[Any] = Mutant.__subclasses__()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.__name__)
def test_contract_finds_the_mutant(mutant: Any, check_mutant: Any) -> None:
    check_mutant(TestTheCorrectOne, mutant)


def test_each_test_has_a_mutant(check_each_test_has_a_mutant: Any) -> None:
    check_each_test_has_a_mutant(MetrologyContract, MUTANTS)
