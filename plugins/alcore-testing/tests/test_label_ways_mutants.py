"""The contracts of the three ways to get labels find faulty strategies, and pass correct ones."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest
import torch
from alcore_testing import ElsewhereLabelContract, ImmediateLabelContract, InProcessLabelContract, ToyLabel
from alcore_testing.toys import toy_pool

from alcore import PENDING, BaseLabel, Failed, Label, Request
from alcore.errors import Waiting


def class_of(item: Any) -> int:
    return int(toy_pool("classes").answer(item)[1])


def answer_each(requests: Any, answers: Any, value: Callable[[Request], Any]) -> None:
    while not requests.empty():
        request = requests.get_request()
        is_sample = isinstance(request.item, int)
        answers.put(value(request) if is_sample else Failed(request, "only samples have a label here"))


# -- at once ----------------------------------------------------------------------------------------------------


class TestIds(ImmediateLabelContract):
    def make(self, **parameters: Any) -> Any:
        return ToyLabel(**parameters)


class Table(BaseLabel):
    """Looks the label up, and answers with it."""

    idempotent = True

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        answer_each(queue_to_label, serialize_queue, lambda request: Label(request, class_of(request.item)))


class TestTable(ImmediateLabelContract):
    def make(self, **parameters: Any) -> Any:
        return Table(**parameters)


class ImmediateMutant(ToyLabel):
    test, words = "", ""


class AnswersWithIdsInSecret(ImmediateMutant):
    """It doesn't say that the pool must know the answers."""

    test, words = "test_it_says_whether_it_answers_with_ids", "say labels_by_id = True"
    labels_by_id = False


class SaysIdsAndGivesValues(ImmediateMutant):
    """It says that it answers with ids, and answers with values."""

    test, words = "test_it_says_whether_it_answers_with_ids", "it says labels_by_id = True, and answers with Label"

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        answer_each(queue_to_label, serialize_queue, lambda request: Label(request, class_of(request.item)))


class ShufflesItsAnswers(ImmediateMutant):
    """It draws from a global generator, which nobody restores."""

    test, words = "test_labels_by_id_draw_nothing", "global generators"

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        random.random()
        torch.rand(1)
        super().label(queue_to_label, serialize_queue)


# -- in the process ----------------------------------------------------------------------------------------------


class Solver(BaseLabel):
    """Computes each label, which may be done again."""

    idempotent = True
    at_once = 1

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        answer_each(queue_to_label, serialize_queue, lambda request: Label(request, class_of(request.item)))


class TestSolver(InProcessLabelContract):
    def make(self, **parameters: Any) -> Any:
        return Solver(**parameters)


class Purchase(Solver):
    """Pays for each label, so that nothing is done again without the user's word."""

    idempotent = False


class TestPurchase(InProcessLabelContract):
    idempotent = False

    def make(self, **parameters: Any) -> Any:
        return Purchase(**parameters)


class Ledgered(Purchase):
    """It knows what it has paid for: of the test's kill, that nothing was."""

    def is_in_doubt(self, request: Request) -> bool:
        return False


class TestLedgered(InProcessLabelContract):
    idempotent = False

    def make(self, **parameters: Any) -> Any:
        return Ledgered(**parameters)


class InProcessMutant(Solver):
    test, words = "", ""
    claims: ClassVar[dict[str, Any]] = {}


class ReportsTheInterruption(InProcessMutant):
    """Whatever ends a computation is a failure of its label, the end of the run too."""

    test, words = "test_interruption_is_no_failure", "reported as a failure"

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        for request in queue_to_label.get_many(2):
            serialize_queue.put(Label(request, class_of(request.item)))
        try:
            queue_to_label.get_request()
        except BaseException:
            for request in queue_to_label.get_many(9):
                serialize_queue.put(Failed(request, "it ended", kind="infrastructure"))
            raise


class GoesOnAtAnInterruption(InProcessMutant):
    """It doesn't end before it is done."""

    test, words = "test_interruption_is_no_failure", "it went on"

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        requests: list[Request] = []
        while not queue_to_label.empty():
            with contextlib.suppress(KeyboardInterrupt):
                requests.append(queue_to_label.get_request())
        with contextlib.suppress(KeyboardInterrupt):
            serialize_queue.put_many([Label(request, class_of(request.item)) for request in requests])


class MayBeRepeatedInSecret(InProcessMutant):
    """It doesn't say that its work may be done again, so the user is asked after each kill."""

    test, words = "test_killed_work_is_done_again_or_in_doubt", "Decide with --in-doubt"
    idempotent = False


class PaysTwiceUnasked(InProcessMutant):
    """It says that its work may be done again, which costs money."""

    test, words = "test_killed_work_is_done_again_or_in_doubt", "DID NOT RAISE"
    claims: ClassVar[dict[str, Any]] = {"idempotent": False}


class WorksOnNothing(InProcessMutant):
    """It says that it works on no request at a time."""

    test, words = "test_number_at_a_time_is_a_number", "at_once is 0"
    at_once = 0


# -- elsewhere ---------------------------------------------------------------------------------------------------


class Lab:
    """A place that does what it is sent, whether a run is there or not."""

    def __init__(self) -> None:
        self.orders: list[tuple[str, int]] = []
        self.results: dict[str, int] = {}

    def work(self) -> None:
        self.results |= {key: class_of(sample) for key, sample in self.orders}


class LabLabels(BaseLabel):
    """Sends what is asked for to a lab, and asks the lab what has become of it."""

    waits = True
    told = False

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        while not queue_to_label.empty():
            request = queue_to_label.get_request()
            if isinstance(request.item, int):
                self.send(request)
            else:
                serialize_queue.put(Failed(request, "the lab has samples alone"))
        self.wait(serialize_queue)

    def send(self, request: Request) -> None:
        self.lab.orders.append((request.id, request.item))

    def wait(self, answers: Any) -> None:
        requested, answered = answers.progress()
        if answered < requested:
            raise Waiting(f"{answered} of {requested} are answered")

    def poll(self, request_id: str) -> Any:
        if request_id in self.lab.results:
            return self.lab.results[request_id]
        return PENDING if any(request_id == key for key, _ in self.lab.orders) else None


class TestLab(ElsewhereLabelContract):
    @property
    def lab(self) -> Lab:
        return self.__dict__.setdefault("_lab", Lab())

    def make(self, **parameters: Any) -> Any:
        return LabLabels(self.lab, **parameters)

    def work(self) -> None:
        self.lab.work()

    def sent(self) -> Sequence[str]:
        return [key for key, _ in self.lab.orders]


class TakesUpByHandle(LabLabels):
    """It has no ``poll``: it gives back what is under way, and asks for it when that is handed out again."""

    idempotent = True
    poll = None  # type: ignore[assignment]

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        left = []
        for request in queue_to_label.get_many(2**31 - 1):
            if not isinstance(request.item, int):
                serialize_queue.put(Failed(request, "the lab has samples alone"))
                continue
            if request.handle is None:
                self.send(request)
                serialize_queue.submitted(request, f"order {len(self.lab.orders) - 1}")
                left.append(request)
                continue
            order, sample = self.lab.orders[int(request.handle.split()[1])]
            assert sample == request.item
            if order in self.lab.results:
                serialize_queue.put(Label(request, self.lab.results[order]))
            else:
                left.append(request)
        for request in left:
            queue_to_label.give_back(request)
        if left:
            raise Waiting("for the lab")


class TestTakesUpByHandle(TestLab):
    polls = False
    idempotent = True

    def make(self, **parameters: Any) -> Any:
        return TakesUpByHandle(self.lab, **parameters)


class ElsewhereMutant(LabLabels):
    test, words = "", ""


class DoesNotWait(ElsewhereMutant):
    """It sends, and returns as if that were all."""

    test, words = "test_run_waits_until_the_work_is_done", "the run doesn't wait"

    def wait(self, answers: Any) -> None:
        pass


class WaitsInSecret(ElsewhereMutant):
    """It doesn't say that it may wait, so it isn't asked once all is sent, and the run goes on without labels."""

    test, words = "test_run_waits_until_the_work_is_done", "the run doesn't wait"
    waits = False


class RemembersWhatItSent(ElsewhereMutant):
    """What it has sent is in its memory alone, so another process sends it again."""

    test, words = "test_work_that_ended_without_a_run_is_taken_in", "requests were sent"

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.mine: set[str] = set()

    def send(self, request: Request) -> None:
        super().send(request)
        self.mine.add(request.id)

    def poll(self, request_id: str) -> Any:
        return super().poll(request_id) if request_id in self.mine else None


class AsksTheUser(ElsewhereMutant):
    """It can't tell what has become of a request, so a run that was killed needs a decision."""

    test, words = "test_killed_run_sends_nothing_twice", "Decide with --in-doubt"
    poll = None  # type: ignore[assignment]


class CallsPendingUnknown(ElsewhereMutant):
    """What isn't done yet is said to be unknown, and sent again."""

    test, words = "test_poll_tells_what_is_pending_from_what_is_unknown", "polled before it is done"

    def poll(self, request_id: str) -> Any:
        return self.lab.results.get(request_id)


MUTANTS: dict[type, list[Any]] = {
    ImmediateLabelContract: ImmediateMutant.__subclasses__(),
    InProcessLabelContract: InProcessMutant.__subclasses__(),
    ElsewhereLabelContract: ElsewhereMutant.__subclasses__(),
}


@pytest.mark.parametrize("mutant", MUTANTS[ImmediateLabelContract], ids=lambda one: one.__name__)
def test_contract_of_labels_at_once_finds_the_mutant(mutant: Any, check_mutant: Any) -> None:
    check_mutant(TestIds, mutant)


@pytest.mark.parametrize("mutant", MUTANTS[InProcessLabelContract], ids=lambda one: one.__name__)
def test_contract_of_work_in_the_process_finds_the_mutant(mutant: Any, check_mutant: Any) -> None:
    check_mutant(TestSolver, mutant, **mutant.claims)


@pytest.mark.parametrize("mutant", MUTANTS[ElsewhereLabelContract], ids=lambda one: one.__name__)
def test_contract_of_work_elsewhere_finds_the_mutant(mutant: Any, check_mutant: Any) -> None:
    check_mutant(TestLab, mutant, make=lambda self, **parameters: mutant(self.lab, **parameters))


@pytest.mark.parametrize("contract", MUTANTS, ids=lambda one: one.__name__)
def test_each_test_has_a_mutant(contract: type, check_each_test_has_a_mutant: Any) -> None:
    check_each_test_has_a_mutant(contract, MUTANTS[contract])
