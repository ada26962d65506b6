"""The contract of label strategies."""

from __future__ import annotations

import collections
import contextlib
import functools
import hashlib
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from alcore import BaseQuery, Failed, Label, Phase, Request, UsageError
from alcore.protocols import LabelingProgress
from alcore.store import Run
from alcore_testing.contract import Contract, requires
from alcore_testing.drivers import LATE, STEPS, ToyDriver, assert_same_run, build_driver, prepare, whole_and_resumed
from alcore_testing.plain import same, text_of
from alcore_testing.queues import in_time
from alcore_testing.toys import toy_loss, toy_pool
from alcore_testing.watch import Unwritten, untouched

SAMPLES = (9, 2, 30, 17)


class LabelContract(Contract):
    """What every label strategy promises: each request is answered once, and nothing that was paid for gets lost.

    What it promises beyond that depends on the way by which it gets labels: inherit from `ImmediateLabelContract`,
    `InProcessLabelContract` or `ElsewhereLabelContract`.

    Override ``make(**parameters)``, and say what is claimed: `name`, `one_by_one`, `batch`, `generated`, `idempotent`,
    `polls`.
    The requests are samples of `toy_pool`, or of the pool that ``pool()`` returns.

    Examples
    --------
    >>> class TestMyLabels(LabelContract):
    ...     name = "mine"
    ...     def make(self, **parameters):
    ...         return MyLabels(**parameters)
    """

    kind = "label"

    one_by_one: ClassVar[bool] = True
    """Each answer is delivered before the next request is taken. False where several are worked on at once."""
    batch: ClassVar[bool] = False
    """All requests are taken before the first answer is delivered, as where a batch is bought as a whole; then
    `one_by_one` must be False. What ends the run meanwhile loses all answers."""
    generated: ClassVar[bool] = False
    """It answers generated inputs; otherwise each of them must get a `Failed`."""
    varies: ClassVar[bool] = True
    """What it answers depends on what is asked for. False where all answers are equal, as of a stand-in."""
    idempotent: ClassVar[bool] = False
    """Asked again for the same request, it gives the same answer, and says so by ``idempotent`` or
    ``labels_by_id``."""
    polls: ClassVar[bool] = False
    """It has ``poll(request_id)``."""

    def pool(self) -> Any:
        """Return a fresh pool; at least the samples 2, 9, 17 and 30 must be unlabeled."""
        return toy_pool("classes")

    def generated_input(self) -> Any:
        """Return an input that is no sample of the pool."""
        return torch.tensor([0.5, 0.25, -1.0, 2.0])

    def generated_inputs(self) -> list[Any]:
        """Return inputs that are no samples of the pool, and whose labels are not all equal."""
        given = self.generated_input()
        if not isinstance(given, torch.Tensor):
            raise NotImplementedError(
                f"generated_input() is a {type(given).__name__}; {type(self).__name__} must define generated_inputs() "
                "too, which returns several with different labels"
            )
        return [given * factor for factor in (1.0, -1.0, 0.0, 3.0, -3.0)]

    def expected(self, sample: int) -> Any:
        """Return the value that a sample's label must have; None where it isn't known."""
        return self.pool().answer(sample)[1]

    def build(self, folder: Path, *, ask: Sequence[Any] = SAMPLES, strategy: Any = None, **settings: Any) -> ToyDriver:
        """Return a driver that asks for these items in step 0, and for the first candidates later."""
        given: dict[str, Any] = {"pool": self.pool(), "label": strategy or self.make(), "skip_training": True}
        return build_driver(folder, _Asks(list(ask)), **{"max_active_learning_steps": 2, **given, **settings})

    def answer_all(self, strategy: Any, requests: Requests, answers: Answers) -> None:
        """Let a strategy answer what was requested, outside of any run."""
        strategy.label(requests, answers)

    def answers(self, folder: Path, strategy: Any, ask: Sequence[Any] = SAMPLES) -> tuple[list[Request], list[Any]]:
        """Return requests for these items and what a strategy answers, outside of any run."""
        driver = prepare(self.build(folder, ask=ask, strategy=strategy))
        requests, answers, unwritten = Requests(ask), Answers(len(ask)), Unwritten()
        made = list(requests.items)
        unwritten.given("requested inputs", [request.item for request in made])
        with untouched(driver, generators=False):
            in_time(lambda: self.answer_all(strategy, requests, answers))
        unwritten.check()
        assert requests.empty(), f"{requests.qsize()} requests were not taken"
        return made, answers.items

    def test_each_request_is_answered_once(self, tmp_path: Path) -> None:
        """All requests of a run get an answer that fits, none is answered twice, and nothing else is."""
        driver = self.build(tmp_path)
        driver.run()
        run = Run(driver.log_dir)
        assert [(request["sample"], request["state"]) for request in run.requests(0)] == [
            (sample, "labeled") for sample in SAMPLES
        ]
        assert {request["state"] for request in run.requests()} == {"labeled"}
        assert [refusal["reason"] for refusal in run.refused()] == []

    def test_labels_belong_to_their_requests(self, tmp_path: Path) -> None:
        """Each label has the value of its own sample, in whatever order answers arrive."""
        driver = self.build(tmp_path)
        before = len(driver.train_datapool)
        driver.run()
        for place, one in enumerate(Run(driver.log_dir).requests()):
            target, expected = driver.train_datapool[before + place][1], self.expected(one["sample"])
            if expected is not None:
                assert torch.equal(torch.as_tensor(target), torch.as_tensor(expected)), f"of sample {one['sample']}"

    @requires("varies")
    def test_different_samples_get_different_labels(self, tmp_path: Path) -> None:
        """The labels of all samples that a run asks for are not equal, and neither are those of generated inputs."""
        for items in [list(SAMPLES), *([self.generated_inputs()] if self.generated else [])]:
            folder = tmp_path / type(items[0]).__name__
            driver = self.build(folder, ask=items, max_active_learning_steps=1)
            before = len(driver.train_datapool)
            driver.run()
            targets = [driver.train_datapool[place][1] for place in range(before, len(driver.train_datapool))]
            assert len(targets) > 1, f"{len(targets)} of {len(items)} requests got a label"
            assert len({text_of(target) for target in targets}) > 1, (
                f"all {len(targets)} requests got the same label, {targets[0]}; where their labels are equal, override "
                "pool() or generated_inputs(), and where it can give only one, say varies = False"
            )

    def test_one_answer_is_put_for_each_request(self, tmp_path: Path) -> None:
        """Ids and `Label` name a request; everything else that is put is an answer, so there is one a request."""
        made, answers = self.answers(tmp_path, self.make())
        assert len(answers) == len(made)
        names = {request.id for request in made} | {request.item for request in made}
        for answer in answers:
            if isinstance(answer, Label | Failed):
                item = answer.item
                assert (item.id if isinstance(item, Request) else item) in names
            assert _content(answer), "an answer must be something that can be stored"

    def test_no_requests_give_no_answers(self, tmp_path: Path) -> None:
        """With nothing to label it returns at once, and delivers nothing."""
        assert self.answers(tmp_path, self.make(), []) == ([], [])

    def test_learner_and_pools_stay_as_they_were(self, tmp_path: Path) -> None:
        """It appends nothing itself: what it delivers is appended by the driver, in the order of the requests."""
        self.answers(tmp_path, self.make())
        driver = self.build(tmp_path, max_active_learning_steps=1)
        before = len(driver.train_datapool)
        driver.run()
        assert len(driver.train_datapool) == before + len(SAMPLES)

    def test_generated_inputs_are_answered_or_fail(self, tmp_path: Path) -> None:
        """A generated input is answered or `Failed` with a reason, and the other requests are answered."""
        driver = self.build(tmp_path, ask=[9, self.generated_input(), 2], max_active_learning_steps=1)
        driver.run()
        run = Run(driver.log_dir)
        middle = "labeled" if self.generated else "failed"
        assert [request["state"] for request in run.requests()] == ["labeled", middle, "labeled"]
        assert all(refusal["reason"].strip() for refusal in run.refused())

    def test_answers_are_not_held_back(self, tmp_path: Path) -> None:
        """Of many requests, one is answered before the last is taken; unless they are answered as a `batch`."""
        if self.batch:
            assert not self.one_by_one, "a batch is not one by one; say one_by_one = False"
            return
        strategy = self.make()
        prepare(self.build(tmp_path, strategy=strategy))
        answers = Answers(len(SAMPLES * 10))
        requests = Requests(SAMPLES * 10, on_last=lambda: len(answers.items))
        in_time(lambda: self.answer_all(strategy, requests, answers))
        assert len(answers.items) == 40, f"{len(answers.items)} answers to 40 requests"
        assert requests.at_last, "all answers are held back until the last request is taken; say batch = True"

    @requires("generated")
    def test_what_it_is_given_is_not_written_to(self, tmp_path: Path) -> None:
        """A generated input, which is appended with its label, comes back to the bit."""
        self.answers(tmp_path, self.make(), [self.generated_input()])

    def test_error_loses_no_answer(self, tmp_path: Path) -> None:
        """An error gets through; what was delivered stays, and a resumed run labels the rest, each request once."""
        transport = _Breaks(3)
        driver = self.build(tmp_path, queue_cls=lambda: transport)
        with pytest.raises(ConnectionError, match="the line is dead"):
            driver.run()
        states = [request["state"] for request in Run(driver.log_dir).requests()]
        if self.one_by_one:
            assert states == ["labeled", "labeled", "open", "open"], "answers were held back, and are lost"
        assert Run(driver.log_dir).refused() == []
        resumed = self.build(tmp_path, run_id=driver.run_id)
        resumed.restore(in_doubt="ask")
        resumed.run()
        run = Run(resumed.log_dir)
        assert [request["state"] for request in run.requests(0)] == ["labeled"] * len(SAMPLES)
        assert [refusal for refusal in run.refused() if "repeat" not in refusal["reason"]] == []
        assert set(SAMPLES) & set(resumed.train_datapool.unlabeled_indices().tolist()) == set()

    def test_arguments_of_the_run_are_accepted(self, tmp_path: Path) -> None:
        """A strategy is given those arguments of ``driver.run`` that it takes, and works whatever they are."""
        driver = self.build(tmp_path, max_active_learning_steps=1)
        driver.run(None, None, 7, unheard_of=2.0)
        assert {request["state"] for request in Run(driver.log_dir).requests()} == {"labeled"}

    def test_cost_is_finite_and_not_negative(self, tmp_path: Path) -> None:
        """If it has ``cost(item)``, that is a finite amount."""
        strategy = self.make()
        prepare(self.build(tmp_path, strategy=strategy))
        if callable(getattr(strategy, "cost", None)):
            for sample in SAMPLES:
                cost = strategy.cost(sample)
                assert 0 <= cost < float("inf"), f"the cost of sample {sample} is {cost}"

    def test_resumed_run_equals_uninterrupted_run(self, tmp_path: Path) -> None:
        """A run that was interrupted and resumed has the answers and the state of one that was not."""
        build = functools.partial(self.build, max_active_learning_steps=STEPS)
        whole, resumed = whole_and_resumed(build, tmp_path, LATE, Phase.LABELING, toy_loss)
        assert_same_run(resumed, whole)

    @requires("idempotent")
    def test_repeated_request_gets_the_same_answer(self, tmp_path: Path) -> None:
        """Another object, asked for the same requests, gives the same answers, in any order; so it may be asked again.

        A bare value answers the oldest open request, so the order of those counts.
        """
        strategy = self.make()
        assert getattr(strategy, "idempotent", False) or getattr(strategy, "labels_by_id", False)
        first, again = (_by_request(*self.answers(tmp_path, asked)) for asked in (strategy, self.make()))
        assert first == again, f"asked again, it answers {again}, not {first}"

    @requires("polls")
    def test_poll_returns_the_answer(self, tmp_path: Path) -> None:
        """``poll`` gives the answer to a request that it worked on, and None for one that it never got."""
        strategy = self.make()
        assert strategy.poll("0" * 32) is None
        made, answers = self.answers(tmp_path, strategy)
        given = {(answer.item.id if isinstance(answer.item, Request) else answer.item): answer for answer in answers}
        for request in made:
            polled, answer = strategy.poll(request.id), given.get(request.id, given.get(request.item))
            value = polled.value if isinstance(polled, Label) else polled
            assert answer is not None
            assert same(value, answer.value), f"polled, sample {request.item} has another answer"


def _by_request(made: Sequence[Request], answers: Sequence[Any]) -> dict[str, str]:
    """Return answers as text, by the id of their request."""
    ids: dict[Any, str] = {request.item: request.id for request in made if isinstance(request.item, int)}
    ids |= {request.id: request.id for request in made}
    content_of: dict[str, str] = {}
    others: list[Any] = []
    for answer in answers:
        item = answer.item if isinstance(answer, Label | Failed) else answer
        key = item.id if isinstance(item, Request) else item
        if isinstance(key, int | str) and key in ids:
            content_of[ids[key]] = _content(answer)
        else:
            others.append(answer)
    left = (request.id for request in made if request.id not in content_of)
    return dict(sorted([*content_of.items(), *zip(left, map(_content, others), strict=False)]))


class Requests:
    """A query queue outside of any run: gives each request once, in order.

    Parameters
    ----------
    items
        What is asked for.
    on_last
        Called when the last one is taken; `at_last` is what it returned.
    """

    def __init__(self, items: Sequence[Any], on_last: Callable[[], int] = lambda: 0) -> None:
        self._on_last, self.at_last, self._lock = on_last, 0, threading.Lock()
        self.items = collections.deque(
            Request(hashlib.sha256(f"{place} {item}".encode()).hexdigest()[:32], 0, place, item)
            for place, item in enumerate(items)
        )

    def put(self, item: Any, block: bool = True, timeout: float | None = None, *, score: float | None = None) -> None:
        """Refuse it: it is for query strategies."""
        del item, block, timeout, score
        raise UsageError("a label strategy answers what was asked for; it doesn't ask.")

    def put_many(self, items: Iterable[Any], scores: Sequence[float] | None = None) -> None:
        """Refuse them: it is for query strategies."""
        del scores
        self.put(items)

    def get_request(self) -> Request:
        """Take out the next request."""
        with self._lock:
            if not self.items:
                raise queue.Empty
            if len(self.items) == 1:
                self.at_last = self._on_last()
            return self.items.popleft()

    def get_many(self, n: int) -> list[Request]:
        """Take out up to `n` requests."""
        found: list[Request] = []
        with contextlib.suppress(queue.Empty):
            while len(found) < n:
                found.append(self.get_request())
        return found

    def give_back(self, request: Request) -> None:
        """Let a request be taken again."""
        with self._lock:
            self.items.append(request)

    def recalled(self) -> list[Request]:
        """Return nothing: all that was taken out may be begun."""
        return []

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take out what was asked for."""
        del block, timeout
        return self.get_request().item

    def get_nowait(self) -> Any:
        """Take out what was asked for."""
        return self.get()

    def empty(self) -> bool:
        """Return whether all requests were taken."""
        return not self.items

    def qsize(self) -> int:
        """Return how many requests are left."""
        return len(self.items)


class Answers:
    """Takes in what a label strategy delivers; usable from several threads.

    Parameters
    ----------
    requested
        How many requests there are.
    """

    def __init__(self, requested: int = 0) -> None:
        self.items: list[Any] = []
        self.handles: dict[str, str] = {}
        self._requested = requested

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Take in one answer."""
        del block, timeout
        self.items.append(item)

    def put_nowait(self, item: Any) -> None:
        """Take in one answer."""
        self.items.append(item)

    def put_many(self, items: Any) -> None:
        """Take in several answers."""
        self.items += list(items)

    def submitted(self, request: Request, handle: str) -> None:
        """Take in the handle of a job."""
        self.handles[request.id] = handle

    def progress(self) -> LabelingProgress:
        """Return how many requests there are, and how many answers were delivered."""
        return LabelingProgress(self._requested, len(self.items))

    def empty(self) -> bool:
        """Return whether nothing was delivered."""
        return not self.items

    def qsize(self) -> int:
        """Return how many answers were delivered."""
        return len(self.items)


class _Asks(BaseQuery):
    """Asks for given items in step 0, and for the first three candidates later."""

    def __init__(self, items: list[Any]) -> None:
        self._items = items

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        """Ask for them."""
        if self.driver.active_learning_step_idx:
            query_queue.put_many(next(self.driver.candidates())[:3].tolist())
        else:
            query_queue.put_many(self._items)


class _Breaks(queue.Queue[Any]):
    """A queue that breaks when a request is taken out for the n-th time."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._left = at

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take an item out, or raise."""
        self._left -= 1
        if self._left == 0:
            raise ConnectionError("the line is dead")
        return super().get(block, timeout)


def _content(answer: Any) -> str:
    if isinstance(answer, Label):
        item = answer.item.id if isinstance(answer.item, Request) else answer.item
        return text_of({"item": item, "value": answer.value, "source": answer.source})
    if isinstance(answer, Failed):
        return text_of({"failed": answer.item.id if isinstance(answer.item, Request) else answer.item})
    return text_of(answer)
