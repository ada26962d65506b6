"""The contracts of the three ways to get labels: at once, by work in the process of the run, by work elsewhere."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from alcore import PENDING, Failed, Label, UsageError
from alcore.errors import Waiting
from alcore.store import Run
from alcore.strategies import labels_by_id, most_at_once
from alcore_testing.contract import requires
from alcore_testing.drivers import ROUNDS, ToyDriver, prepare
from alcore_testing.label import SAMPLES, Answers, LabelContract, Requests
from alcore_testing.watch import untouched


class ImmediateLabelContract(LabelContract):
    """What a label strategy promises whose labels are there at once: it may always be asked again.

    Examples
    --------
    >>> class TestMyLabels(ImmediateLabelContract):
    ...     def make(self, **parameters):
    ...         return MyLabels(**parameters)
    """

    one_by_one, batch = False, True
    idempotent = True

    def test_it_says_whether_it_answers_with_ids(self, tmp_path: Path) -> None:
        """``labels_by_id`` is True if all answers are bare sample ids, and only then."""
        strategy = self.make()
        answers = [answer for answer in self.answers(tmp_path, strategy)[1] if not isinstance(answer, Failed)]
        values = [answer for answer in answers if type(answer) is not int]
        if labels_by_id(strategy):
            assert not values, f"it says labels_by_id = True, and answers with {values[0]!r:.80}"
        else:
            assert values, "all its answers are sample ids; say labels_by_id = True"

    def test_labels_by_id_draw_nothing(self, tmp_path: Path) -> None:
        """Where it says ``labels_by_id``, the global generators stay as they were; core doesn't restore them."""
        strategy = self.make()
        driver = prepare(self.build(tmp_path, strategy=strategy))
        if labels_by_id(strategy):
            with untouched(driver):
                self.answer_all(strategy, Requests(SAMPLES), Answers(len(SAMPLES)))


class InProcessLabelContract(LabelContract):
    """What a label strategy promises that works inside ``label``: it ends when it is asked to, and says what is lost.

    Say by `idempotent` whether its work may be done again.

    Examples
    --------
    >>> class TestMySolver(InProcessLabelContract):
    ...     def make(self, **parameters):
    ...         return MySolver(**parameters)
    """

    idempotent = True

    def test_interruption_is_no_failure(self, tmp_path: Path) -> None:
        """Asked to end, the run ends; what was delivered stays, the rest is open, and nothing counts as failed."""
        transport = _Calls(3)
        driver = self.build(tmp_path, queue_cls=lambda: transport)
        transport.then = driver.interrupt
        with pytest.raises(KeyboardInterrupt):
            driver.run()
        run = Run(driver.log_dir)
        assert [refusal["reason"] for refusal in run.refused()] == [], "an interruption was reported as a failure"
        states = [request["state"] for request in run.requests()]
        assert set(states) <= {"labeled", "open"}
        if self.one_by_one:
            assert states == ["labeled", "labeled", "open", "open"], f"asked to end at the third, it went on: {states}"

    def test_killed_work_is_done_again_or_in_doubt(self, tmp_path: Path) -> None:
        """After a kill between work and answer, a resumed run does the work again if that is claimed, else it asks."""
        run_id = self._kill_at_second_answer(tmp_path)
        resumed = self.build(tmp_path, run_id=run_id, max_active_learning_steps=1)
        asks = not self.idempotent and not callable(getattr(self.make(), "is_in_doubt", None))
        if not asks:  # by is_in_doubt() it finds out whether its work was done
            resumed.restore()
            resumed.run()
            assert [request["state"] for request in Run(resumed.log_dir).requests(0)] == ["labeled"] * len(SAMPLES)
            return
        with pytest.raises(UsageError, match="--in-doubt"):
            resumed.restore()
        resumed = self.build(tmp_path, run_id=run_id, max_active_learning_steps=1)
        resumed.restore(in_doubt="drop")
        resumed.run()
        states = [request["state"] for request in Run(resumed.log_dir).requests(0)]
        assert set(states) == {"labeled", "failed"}, f"what was dropped as in doubt must not be done again: {states}"

    def test_number_at_a_time_is_a_number(self, tmp_path: Path) -> None:
        """If it says how many requests it works on ``at_once``, that is an integer of at least 1."""
        strategy = self.make()
        prepare(self.build(tmp_path, strategy=strategy))
        most = most_at_once(strategy)
        assert most is None or (type(most) is int and most >= 1), f"at_once is {most!r}"

    def _kill_at_second_answer(self, folder: Path) -> str:
        """Begin a run that is killed when the second answer is checked; return its id."""
        pool = self.pool()
        seen: list[Any] = []

        def check(value: Any) -> None:
            seen.append(value)
            if len(seen) == 2:
                raise KeyboardInterrupt("killed")

        pool.check = check
        driver = self.build(folder, pool=pool, max_active_learning_steps=1)
        with pytest.raises(KeyboardInterrupt):
            driver.run()
        return driver.run_id


class ElsewhereLabelContract(LabelContract):
    """What a label strategy promises whose work goes on elsewhere: the run waits, and nothing is sent out twice.

    Override ``make(**parameters)``, which is called several times in a test and must connect all its strategies with
    the same place; ``work()``, which does there what was sent; and ``sent()``, which says what was. A strategy whose
    answers are told to the run, as those of ``ask`` are, sends nothing, and has no place here.

    Examples
    --------
    >>> class TestMyLab(ElsewhereLabelContract):
    ...     @pytest.fixture(autouse=True)
    ...     def _lab(self, tmp_path):
    ...         self.lab = Lab(tmp_path)
    ...     def make(self, **parameters):
    ...         return MyLabels(self.lab.folder, **parameters)
    ...     def work(self):
    ...         self.lab.measure_all()
    ...     def sent(self):
    ...         return self.lab.orders()
    """

    one_by_one, batch = False, True
    polls: ClassVar[bool] = True

    def work(self) -> None:
        """Let everything be done that was sent so far."""
        raise NotImplementedError(f"{type(self).__name__} must define work(), which does what was sent")

    def sent(self) -> Sequence[str]:
        """Return the ids of the requests that were sent, one for each time."""
        raise NotImplementedError(f"{type(self).__name__} must define sent(), the ids of the requests that were sent")

    def build(self, folder: Path, *, ask: Sequence[Any] = SAMPLES, strategy: Any = None, **settings: Any) -> ToyDriver:
        """Return a driver that asks for these items in step 0; where its run waits, the work is done."""
        driver = super().build(folder, ask=ask, strategy=strategy, **settings)
        driver.while_waiting = self.work
        return driver

    def answer_all(self, strategy: Any, requests: Requests, answers: Answers) -> None:
        """Let a strategy answer what was requested, outside of any run; work is done and polled where it waits."""
        made = list(requests.items)
        for _ in range(ROUNDS):
            try:
                strategy.label(requests, answers)
            except Waiting:
                self.work()
                polled = [(request, strategy.poll(request.id)) for request in made if self.polls]
                answered = [(one, answer) for one, answer in polled if answer is not None and answer is not PENDING]
                answers.put_many(one if isinstance(one, Label | Failed) else Label(of, one) for of, one in answered)
                made = [request for request in made if request.id not in {of.id for of, _ in answered}]
                for place, one in enumerate(requests.items):  # what was given back shows its handle
                    requests.items[place] = dataclasses.replace(one, handle=answers.handles.get(one.id, one.handle))
            else:
                return
        raise AssertionError(f"it still waits, after {ROUNDS} rounds of work()")

    def test_run_waits_until_the_work_is_done(self, tmp_path: Path) -> None:
        """The run ends as waiting, as often as it is called, with all requests sent; it goes on when they are done."""
        driver = self.build(tmp_path, max_active_learning_steps=1)
        driver.while_waiting = None
        for _ in range(2):
            driver.run()
            reason = driver.end_reason
            assert reason is not None
            assert reason.kind.status == "waiting", f"nothing is answered, and the run doesn't wait: {reason}"
            assert len(self.sent()) == len(SAMPLES)
        self.work()
        driver.run()
        self._check_all_labeled_once(driver)

    def test_work_that_ended_without_a_run_is_taken_in(self, tmp_path: Path) -> None:
        """What was done while no process ran is taken in by a new one, which needs no decision and sends nothing."""
        driver = self.build(tmp_path, max_active_learning_steps=1)
        driver.while_waiting = None
        driver.run()
        self.work()
        self._check_all_labeled_once(self._resume(tmp_path, driver.run_id))

    def test_killed_run_sends_nothing_twice(self, tmp_path: Path) -> None:
        """A run that is killed when all was sent, and one while it is sent, is resumed without sending it again."""
        for place, kill in enumerate((self._kill_after_label, self._kill_at_third_request)):
            before = len(self.sent())
            run_id = kill(tmp_path / str(place))
            self._check_all_labeled_once(self._resume(tmp_path / str(place), run_id), before)

    @requires("polls")
    def test_poll_tells_what_is_pending_from_what_is_unknown(self, tmp_path: Path) -> None:
        """``poll`` gives ``PENDING`` for what was sent and not done, of another object too, and None for the rest."""
        strategy = self.make()
        prepare(self.build(tmp_path, strategy=strategy))
        requests = Requests(SAMPLES)
        made = list(requests.items)
        with contextlib.suppress(Waiting):
            strategy.label(requests, Answers(len(SAMPLES)))
        other = self.make()
        prepare(self.build(tmp_path, strategy=other))
        for asked in (strategy, other):
            assert asked.poll("0" * 32) is None
            polled = [asked.poll(request.id) for request in made]
            assert all(answer is PENDING for answer in polled), f"polled before it is done: {polled}"

    def _check_all_labeled_once(self, driver: ToyDriver, before: int = 0) -> None:
        run = Run(driver.log_dir)
        assert [request["state"] for request in run.requests(0)] == ["labeled"] * len(SAMPLES)
        assert [refusal["reason"] for refusal in run.refused()] == []
        sent = list(self.sent())[before:]
        assert len(sent) == len(set(sent)), f"{len(sent) - len(set(sent))} requests were sent twice"
        assert len(sent) == len(SAMPLES), f"{len(sent)} of {len(SAMPLES)} requests were sent"

    def _resume(self, folder: Path, run_id: str) -> ToyDriver:
        resumed = self.build(folder, run_id=run_id, max_active_learning_steps=1)
        resumed.restore()
        resumed.run()
        return resumed

    def _kill_after_label(self, folder: Path) -> str:
        """Begin a run that is killed as ``label`` ends; return its id."""
        strategy = self.make()
        label = strategy.label

        def killed(*args: Any, **kwargs: Any) -> None:
            with contextlib.suppress(Waiting):
                label(*args, **kwargs)
            raise KeyboardInterrupt("killed")

        strategy.label = killed
        driver = self.build(folder, strategy=strategy, max_active_learning_steps=1)
        with pytest.raises(KeyboardInterrupt):
            driver.run()
        return driver.run_id

    def _kill_at_third_request(self, folder: Path) -> str:
        """Begin a run that is killed when the third request is taken out; return its id."""
        transport = _Calls(3)

        def kill() -> None:
            raise KeyboardInterrupt("killed")

        transport.then = kill
        driver = self.build(folder, queue_cls=lambda: transport, max_active_learning_steps=1)
        with pytest.raises(KeyboardInterrupt):
            driver.run()
        return driver.run_id


class _Calls(queue.Queue[Any]):
    """A queue that calls something when a request is taken out for the n-th time."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._left = at
        self.then: Callable[[], None] = lambda: None

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take an item out."""
        self._left -= 1
        if self._left == 0:
            self.then()
        return super().get(block, timeout)
