"""Label strategies with one fault each, and the contract test that each fails."""

from __future__ import annotations

import contextlib
import inspect
import random
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, ClassVar

import pytest
import torch
from alcore_testing import LabelContract, ToyLabel
from alcore_testing.label import Answers, Requests
from alcore_testing.toys import toy_pool

from alcore import BaseLabel, Failed, Label, Request, TensorPool
from alcore.protocols import LabelQueue, QueryQueue


class Expert(BaseLabel):
    """Knows the class of every sample, and says of each answer what number it is."""

    idempotent = True

    def __init__(self) -> None:
        self._known: dict[str, Label] = {}
        self._pool = toy_pool("classes")
        self.given = 0

    def value(self, item: Any) -> int:
        return int(self._pool.answer(item)[1]) if isinstance(item, int) else int(item.sum() > 0)

    def answer(self, request: Request) -> Any:
        self.given += 1
        self._known[request.id] = Label(request, self.value(request.item), source="expert")
        return self._known[request.id]

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        while not queue_to_label.empty():
            serialize_queue.put(self.answer(queue_to_label.get_request()))

    def poll(self, request_id: str) -> Label | None:
        return self._known.get(request_id)

    def cost(self, item: Any) -> float:
        return 0.5

    def state_dict(self) -> Mapping[str, Any]:
        return {"given": self.given}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.given = state["given"]


class TestTheExpert(LabelContract):
    generated = idempotent = polls = True

    def make(self, **parameters: Any) -> Any:
        return Expert(**parameters)


class Slow(Expert):
    """Works on several requests at once, of which the later ones are answered first."""

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        while requests := queue_to_label.get_many(3):
            with ThreadPoolExecutor(3) as pool:
                done = [pool.submit(self.work, one, place) for place, one in enumerate(requests)]
                for future in as_completed(done):
                    serialize_queue.put(future.result())

    def work(self, request: Request, place: int) -> Any:
        time.sleep(0.002 * random.Random(request.id + str(id(self))).random() * (3 - place))
        return self.answer(request)


class TestTheSlowService(LabelContract):
    """It is correct, and its answers arrive in another order each time."""

    one_by_one = False
    generated = idempotent = polls = True

    def make(self, **parameters: Any) -> Any:
        return Slow(**parameters)


class TestTheBatch(LabelContract):
    """All answers are bought together, and it says so."""

    one_by_one, batch = False, True
    generated = idempotent = polls = True

    def make(self, **parameters: Any) -> Any:
        return DeliversAtTheEnd(**parameters)


class TestTheEcho(LabelContract):
    idempotent = True

    def make(self, **parameters: Any) -> Any:
        return _Echo(**parameters)


class SaysHowFarItIs(Expert):
    """Notes how far the labels are, as a queue of labels says."""

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        while not queue_to_label.empty():
            serialize_queue.put(self.answer(queue_to_label.get_request()))
            progress = serialize_queue.progress()
            assert 0 < progress.answered <= progress.requested


class TestOneThatSaysHowFarItIs(LabelContract):
    generated = idempotent = polls = True

    def make(self, **parameters: Any) -> Any:
        return SaysHowFarItIs(**parameters)


class Stamp(Expert):
    """Gives all the same label, and says so."""

    def value(self, item: Any) -> int:
        return 2


class TestTheStamp(LabelContract):
    generated = idempotent = polls = True
    varies = False

    def make(self, **parameters: Any) -> Any:
        return Stamp(**parameters)

    def expected(self, sample: int) -> Any:
        return None


class _Echo(ToyLabel):
    """Passes sample ids on, and can't answer anything else."""

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        while not queue_to_label.empty():
            item = queue_to_label.get()
            serialize_queue.put(item if isinstance(item, int) else Failed(item, "no sample"))


class Mutant(Expert):
    test, words = "", ""
    claims: ClassVar[dict[str, Any]] = {}


class AnswersTwice(Mutant):
    """Each answer is delivered twice, which may be charged twice."""

    test, words = "test_each_request_is_answered_once", "a repeat"

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        while not queue_to_label.empty():
            answer = self.answer(queue_to_label.get_request())
            serialize_queue.put_many([answer, answer])


class ForgetsTheLast(Mutant):
    """One request is left unanswered."""

    test, words = "test_each_request_is_answered_once", "'open'"

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        while queue_to_label.qsize() > 1:
            serialize_queue.put(self.answer(queue_to_label.get_request()))
        queue_to_label.get()


class AnswersWhatNobodyAsked(Mutant):
    """The neighbor of each sample is labeled too."""

    test, words = "test_each_request_is_answered_once", "nobody asked for it"

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        while not queue_to_label.empty():
            request = queue_to_label.get_request()
            serialize_queue.put_many([self.answer(request), Label(request.item + 1, 0)])


class MixesUpTheOrder(Mutant):
    """Values are paired with requests in the wrong order."""

    test, words = "test_labels_belong_to_their_requests", "of sample"

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        requests = []
        while not queue_to_label.empty():
            requests.append(queue_to_label.get_request())
        for request, other in zip(requests, reversed(requests), strict=True):
            serialize_queue.put(Label(request, self.value(other.item)))


class GivesOneAnswer(Mutant):
    """All samples get one label, and nobody knows what it must be."""

    test, words = "test_different_samples_get_different_labels", "all 4 requests got the same label, 2"
    claims: ClassVar[dict[str, Any]] = {"expected": lambda _self, _sample: None}

    def value(self, item: Any) -> int:
        return 2


class GivesGeneratedInputsOneAnswer(Mutant):
    """Samples have labels of their own, and all generated inputs get one."""

    test, words = "test_different_samples_get_different_labels", "all 5 requests got the same label, 1"

    def value(self, item: Any) -> int:
        return super().value(item) if isinstance(item, int) else 1


class KnowsOneClass(Mutant):
    """Its labels are right, and the samples that it is asked for are of one class, so that nothing shows."""

    test, words = "test_different_samples_get_different_labels", "override pool() or generated_inputs()"
    claims: ClassVar[dict[str, Any]] = {"pool": lambda _self: TensorPool(torch.zeros(40, 4), torch.zeros(40).long())}

    def value(self, item: Any) -> int:
        return 0


class TiresAfterTenAnswers(Mutant):
    """From its eleventh answer on it gives another class, and how many it gave is no part of its state."""

    test, words = "test_resumed_run_equals_uninterrupted_run", "it differs from the run without a break"
    state_dict = load_state_dict = None  # type: ignore[assignment]

    def value(self, item: Any) -> int:
        return (super().value(item) + (self.given > 20)) % 3


class AnswersWithAnObject(Mutant):
    """An answer is an object that can't be stored."""

    test, words = "test_one_answer_is_put_for_each_request", "TypeError"

    def answer(self, request: Request) -> Any:
        return Label(request, object())


class ReportsProgressThere(Mutant):
    """What isn't an answer is put into the queue of answers."""

    test, words = "test_one_answer_is_put_for_each_request", "8 == 4"

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        while not queue_to_label.empty():
            serialize_queue.put("working on it")
            serialize_queue.put(self.answer(queue_to_label.get_request()))


class WaitsForRequests(Mutant):
    """It takes a request before it looks whether there is one."""

    test, words = "test_no_requests_give_no_answers", "Empty"

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        serialize_queue.put(self.answer(queue_to_label.get_request()))
        super().label(queue_to_label, serialize_queue)


class AppendsByItself(Mutant):
    """It gives the pool the label, and so does the driver."""

    test, words = "test_learner_and_pools_stay_as_they_were", "pools"

    def answer(self, request: Request) -> Any:
        self.driver.train_datapool.append(request.item)
        return super().answer(request)


class StopsAtAGeneratedInput(Mutant):
    """Something that is no sample is an error, and the requests behind it stay open."""

    test, words = "test_generated_inputs_are_answered_or_fail", "AttributeError"

    def value(self, item: Any) -> int:
        return int(self._pool.answer(item.bit_length() and item)[1])


class SaysNothingOfAGeneratedInput(Mutant):
    """Something that is no sample gets no answer at all."""

    test, words = "test_generated_inputs_are_answered_or_fail", "'open'"

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        while not queue_to_label.empty():
            request = queue_to_label.get_request()
            if isinstance(request.item, int):
                serialize_queue.put(self.answer(request))


class WritesToAGeneratedInput(Mutant):
    """A generated input is clamped to the range of the machine that labels it, in place."""

    test, words = "test_what_it_is_given_is_not_written_to", "wrote to the requested inputs"

    def answer(self, request: Request) -> Any:
        if isinstance(request.item, torch.Tensor):
            request.item.clamp_(-0.5, 0.5)
        return super().answer(request)


class HoldsAnswersBack(Mutant):
    """Answers are delivered at the end, and an error on the way loses all that were bought."""

    test, words = "test_error_loses_no_answer", "held back"

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        answers = []
        while not queue_to_label.empty():
            answers.append(self.answer(queue_to_label.get_request()))
        serialize_queue.put_many(answers)


class DeliversAtTheEnd(Mutant):
    """It says that it works on several requests at once, and delivers nothing before it has answered all."""

    test, words = "test_answers_are_not_held_back", "held back until the last request is taken"
    claims: ClassVar[dict[str, Any]] = {"one_by_one": False}

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        serialize_queue.put_many([self.answer(request) for request in queue_to_label.get_many(queue_to_label.qsize())])


class IsABatchOneByOne(Mutant):
    """It claims both that answers come one by one and that they come as a batch."""

    test, words = "test_answers_are_not_held_back", "a batch is not one by one"
    claims: ClassVar[dict[str, Any]] = {"batch": True}


class SwallowsErrors(Mutant):
    """An error ends the labeling in silence."""

    test, words = "test_error_loses_no_answer", "DID NOT RAISE"

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        with contextlib.suppress(ConnectionError):
            super().label(queue_to_label, serialize_queue)


class NeedsAnArgument(Mutant):
    """An argument of the run that nobody has to give is needed."""

    test, words = "test_arguments_of_the_run_are_accepted", "TypeError"

    def label(self, queue_to_label: Any, serialize_queue: Any, *, scale: float) -> None:
        super().label(queue_to_label, serialize_queue)


class CostsNothingKnown(Mutant):
    """The price of a label is NaN."""

    test, words = "test_cost_is_finite_and_not_negative", "cost of sample 9 is nan"

    def cost(self, item: Any) -> float:
        return float("nan")


class ForgetsItsState(Mutant):
    """What it counts isn't taken back."""

    test, words = "test_resumed_run_equals_uninterrupted_run", "strategies.forgets_its_state"

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class ChangesItsMind(Mutant):
    """Asked again, it says something else."""

    test, words = "test_repeated_request_gets_the_same_answer", "assert"
    made = 0

    def __init__(self) -> None:
        super().__init__()
        ChangesItsMind.made += 1
        self.mood = self.made % 3

    def value(self, item: Any) -> int:
        return self.mood


class IsIdempotentInSecret(Mutant):
    """It doesn't say that it may be asked again."""

    test, words = "test_repeated_request_gets_the_same_answer", "idempotent"
    idempotent = False


class PollsForAnything(Mutant):
    """Polled for a request that it never got, it has an answer."""

    test, words = "test_poll_returns_the_answer", "is None"

    def poll(self, request_id: str) -> Label | None:
        return Label(request_id, 0)


class PollsForSomethingElse(Mutant):
    """Polled, it has another answer than the one that it gave."""

    test, words = "test_poll_returns_the_answer", "another answer"

    def poll(self, request_id: str) -> Label | None:
        label = self._known.get(request_id)
        return None if label is None else Label(label.item, 7)


@pytest.mark.parametrize(("queue", "protocol"), [(Requests, QueryQueue), (Answers, LabelQueue)])
def test_queues_of_the_contract_have_what_strategies_may_call(queue: Any, protocol: Any) -> None:
    for name, member in vars(protocol).items():
        if inspect.isfunction(member) and not name.startswith("_"):
            parameters = list(inspect.signature(member).parameters)
            assert list(inspect.signature(getattr(queue, name)).parameters) == parameters, name


MUTANTS: list[Any] = Mutant.__subclasses__()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.__name__)
def test_contract_finds_the_mutant(mutant: Any, check_mutant: Any) -> None:
    check_mutant(TestTheExpert, mutant, **mutant.claims)


def test_each_test_has_a_mutant(check_each_test_has_a_mutant: Any) -> None:
    check_each_test_has_a_mutant(LabelContract, MUTANTS)
