"""The label queue: each answer is checked, matched with its request, and durable when `put` returns."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Iterable, Sequence, Set
from typing import Any

from alcore.codec import dumps
from alcore.driver.answers import AnswerCheck, BadAnswerError, accepted_label, as_text, paid_for, withdrawal
from alcore.driver.budget import Budget, FailureRate
from alcore.driver.request_queue import RequestQueue
from alcore.errors import EncodingError, UsageError
from alcore.pools.tensor_pool import as_sample_id
from alcore.protocols import FAILURE_KINDS, Failed, Label, LabelingProgress, Request
from alcore.store.inbox import Inbox
from alcore.store.run import RunStore
from alcore.store.tables import AcceptedLabel, LabelingState

_WITH_ITEM = (Label, Failed)
"""Answers that name what they answer."""
_UNKNOWN = "nobody asked for it, or it was labeled or given up before"


class AnswerQueue:
    """Where a label strategy delivers answers; `put` may be called from any thread.

    While `LabelStrategy.label` runs, an answer is committed to the database. At any other time it is written to the
    inbox of the run directory, and taken in at the next labeling phase, or at the end of a step without one.

    Parameters
    ----------
    store
        The run that the answers are committed to.
    requests
        Where a request goes back to when it is to be tried again.
    check
        Refuses what can't be a label of the data.
    retries
        How often a request that failed is tried again.
    budget
        What may be spent. Requests that it doesn't allow any more are not handed out.
    failure_rate
        Ends the handing out of requests where labels keep failing.
    strategy_state
        Returns what of the label strategy's state is to be committed with each answer, or None.
    after_commit
        Called when answers are committed, in the thread that put them.
    """

    def __init__(
        self,
        store: RunStore,
        requests: RequestQueue,
        check: AnswerCheck,
        retries: int,
        budget: Budget,
        failure_rate: FailureRate,
        *,
        strategy_state: Callable[[], str | None] = lambda: None,
        after_commit: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._requests = store, requests
        self._check, self._retries = check, retries
        self._budget, self._failure_rate = budget, failure_rate
        self._strategy_state, self._after_commit = strategy_state, after_commit
        self._lock, self._process = threading.RLock(), os.getpid()
        self._step, self._is_open = 0, False
        self._open: dict[str, Request] = {}
        self._expected: dict[str, float] = {}  # costs, by request
        self._samples: dict[int, str] = {}  # the requests of samples that may be answered
        self._accepted: dict[str, AcceptedLabel] = {}
        self._handed_over: Set[str] = frozenset()
        self._asks_for_samples = False  # whether the run ever asked for a sample, so that a bare integer is an id
        self._stale = False  # what is in memory is to be read again, since a commit failed
        self._faults: dict[threading.Thread, BaseException] = {}  # of threads whose last put failed

    # -- the labeling phase ----------------------------------------------------------------------------

    def open(self, step: int, state: LabelingState, handed_over: Set[str] = frozenset()) -> None:
        """Begin a labeling phase, or go on with one that was cut off; answers are committed from now on.

        Parameters
        ----------
        step
            Its step.
        state
            What the store has of the phase. Answers that it holds already are counted in.
        handed_over
            Ids of requests whose answers the training pool has already, so that they can't be corrected.
        """
        with self._lock:
            self._step, self._is_open, self._handed_over = step, True, handed_over
            self._load(state)

    def to_hand_out(self, state: LabelingState) -> list[Request]:
        """Return the open requests that a phase hands out.

        Left out are those that are with the label strategy, and those that were handed out as often as they may be in
        one phase.
        """
        found = [
            one
            for one in state.open
            if one.id not in state.taken
            and not self._requests.is_taken(one.id)
            and (one.id not in state.refused or one.attempt <= self._retries)
        ]
        over = set(self._over_budget([one.id for one in found]))
        return [] if self._failure_rate.is_exceeded else [one for one in found if one.id not in over]

    @property
    def keeps_failing(self) -> str | None:
        """Why no more requests are handed out, where labels keep failing."""
        failed, answers = self._failure_rate.counts
        return f"{failed} of the last {answers} answers" if self._failure_rate.is_exceeded else None

    @property
    def with_the_strategy(self) -> int:
        """How many open requests of the phase under way are with the label strategy."""
        return sum(map(self._requests.is_taken, self._open))

    def close(self) -> list[AcceptedLabel]:
        """End a labeling phase; return its answers in the order of the requests.

        Raises
        ------
        BaseException
            The error of a `put` that its thread did not repeat with success: the thread may hold an answer that is
            nowhere else.
        """
        with self._lock:
            self._is_open = False
            for fault in self._faults.values():
                raise fault
            if self._stale:
                self._load(self._store.labeling(self._step))
            accepted, self._accepted = self._accepted, {}
        return sorted(accepted.values(), key=lambda one: (one.request.step, one.request.ordinal))

    def take_inbox(self) -> bool:
        """Commit what the inbox holds; return whether it held anything. A file that can't be read is set aside."""
        found, inbox, committed = False, self._store.inbox, None
        for path, answers, fault in inbox.read():
            committed = committed if found else self._store.inbox_file()
            found = True
            if path.name == committed:  # the run was cut off before the file was removed
                pass
            elif answers is None:
                with self._store.answering(self._step) as writer:
                    writer.refuse(None, path.name, fault)
                    writer.note_inbox_file(path.name)
            else:
                self._commit_many(answers, path.name, told=inbox.is_told(path))
            if answers is None:
                inbox.set_aside(path)
            else:
                inbox.remove(path)
        return found

    @property
    def has_unanswered(self) -> bool:
        """Whether requests are open in the phase under way."""
        return bool(self._open)

    # -- what a label strategy calls -------------------------------------------------------------------

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Deliver one answer; it is on the disk when this returns.

        Parameters
        ----------
        item
            A bare sample id (the pool knows the answer), `Label`, `Failed`, or any value that can be stored,
            which answers the oldest open request; one that is tried again comes after the others.
        block, timeout
            As in `queue.Queue`; this never waits for a free place.
        """
        del block, timeout
        self.put_many([item])

    def put_many(self, items: Iterable[Any]) -> None:
        """Deliver several answers in one transaction; one that is refused doesn't keep the others from it.

        When this raises, none of them is on the disk, unless it was interrupted; they may be put again. If `items` is
        a generator that raises, what it gave before is committed, and its error is raised then.
        """
        answers, failure = [], None
        try:
            for item in items:  # before anything is locked, since a generator may take requests
                answers.append(item)
        except BaseException as error:  # noqa: BLE001 - raised below
            failure = error
        if answers or failure is None:
            self._deliver(answers)
        if failure is not None:
            raise failure

    def put_nowait(self, item: Any) -> None:
        """Do as `put` does, which never waits."""
        self.put(item)

    def submitted(self, request: Request, handle: str) -> None:
        """Commit the name of the job that answers a request, which a later `Request.handle` of it shows.

        Parameters
        ----------
        request
            From `alcore.protocols.QueryQueue.get_request`.
        handle
            The name, at a scheduler for instance; it takes the place of an earlier one.

        Raises
        ------
        UsageError
            If the request is not open, or the handle is no text; in a forked child.
        """
        if not isinstance(handle, str) or not handle or not _is_text(handle):
            raise UsageError(f"the handle of a request is {handle!r:.100}; it must be a text that is not empty.")
        if not isinstance(request, Request) or not self._store.set_handle(request, handle):
            shown = getattr(request, "id", request)
            raise UsageError(
                f"there is no open request {shown!r:.100} for the handle {handle!r:.100}; give the Request that "
                "get_request() returned, before it is answered."
            )

    def progress(self) -> LabelingProgress:
        """Return how many requests the step made, and how many of them were labeled or given up so far."""
        requested = self._requests.first_ordinal + len(self._requests.asked)
        with self._lock:
            return LabelingProgress(requested, requested - sum(one.step == self._step for one in self._open.values()))

    def qsize(self) -> int:
        """Return how many answers this phase has accepted."""
        return len(self._accepted)

    def empty(self) -> bool:
        """Tell whether this phase has accepted nothing yet."""
        return not self._accepted

    def _deliver(self, answers: list[Any]) -> None:
        """Commit answers in one transaction, or publish them in the inbox where no label strategy is at work."""
        if os.getpid() != self._process:  # a forked child, in which the locks may be held by threads that it lacks
            Inbox(self._store.inbox.folder).publish(answers)
            return
        with self._lock:
            if not self._is_open:
                self._store.inbox.publish(answers)
                self._faults.pop(threading.current_thread(), None)
                return
            try:
                self._commit_many(answers)
            except BaseException as error:
                self._faults[threading.current_thread()] = error
                raise
            self._faults.pop(threading.current_thread(), None)
        self._after_commit()

    # -- how it is done --------------------------------------------------------------------------------

    def _load(self, state: LabelingState) -> None:
        """Take over what the store has of the phase."""
        accepted = [one for one in state.accepted if one.request.id not in self._handed_over]
        known = [*state.open, *(one.request for one in accepted)]
        self._requests.settle(self._open.keys() - {one.id for one in state.open})
        self._asks_for_samples = self._asks_for_samples or state.asks_for_samples
        self._open = {one.id: one for one in state.open}
        self._accepted = {one.request.id: one for one in accepted}
        self._expected = state.expected
        self._budget.committed = self._store.committed_cost() if self._budget.is_limited else 0.0
        self._failure_rate.begin(self._store.last_answers(FailureRate.window))
        self._samples = {one.item: one.id for one in known if type(one.item) is int} | state.given_up
        self._stale = False

    def _commit_many(self, items: Iterable[Any], inbox_file: str | None = None, *, told: bool = False) -> None:
        """Commit answers, those of a file of the inbox perhaps; put up again what is to be tried again."""
        with self._lock:
            if self._stale:
                self._load(self._store.labeling(self._step))
            settled: list[str] = []
            self._stale = True  # until the transaction has ended
            with self._store.answering(self._step) as writer:
                taken_in = [self._take_in(item, writer, settled, told) for item in items]
                if (state := self._strategy_state()) is not None:
                    writer.keep_state(state)
                if inbox_file is not None:
                    writer.note_inbox_file(inbox_file)
            self._stale = False
            self._requests.settle(settled)
        for request in filter(None, taken_in):
            self._requests.requeue(request)
        self._withhold()

    def _withhold(self) -> None:
        """Say which requests are not to be begun: all where labels keep failing, else the last ones over the budget."""
        if self._failure_rate.is_exceeded:
            self._requests.withhold(self._open)
        elif self._budget.is_exceeded:
            taken = self._requests.taken()
            taken_first = sorted(self._open, key=lambda key: key not in taken)
            self._requests.withhold(self._over_budget(taken_first))
        else:
            self._requests.withhold(())

    def _over_budget(self, keys: Sequence[str]) -> list[str]:
        """Return which of these requests, of the last ones first, the budget doesn't allow."""
        over, missing = [], -self._budget.left
        for key in reversed(keys) if self._budget.is_exceeded else ():
            if missing <= 0:
                break
            over.append(key)
            missing -= self._expected.get(key, 0.0)
        return over

    def _take_in(self, item: Any, writer: Any, settled: list[str], told: bool) -> Request | None:
        """Store one answer; return its request if that is to be tried again.

        One that can't be a label is an attempt that failed; unless a person told it, who can correct it.
        """
        key = self._match(item)
        if key is None or (key not in self._open and key not in self._accepted):
            writer.refuse(None, as_text(item), _UNKNOWN)
            return None
        before = self._accepted.get(key)
        request = before.request if before is not None else self._open[key]
        try:
            if isinstance(item, Failed):
                return self._fail(writer, request, item, settled)
            answer = accepted_label(request, item, self._check, self._expected[key])
        except (EncodingError, BadAnswerError) as error:
            if told and before is None:
                writer.refuse(key, as_text(item), str(error))
                return None
            return self._end_attempt(writer, request, item, str(error), settled)
        if before is None:
            writer.accept(request, answer)
            self._close(key, settled)
            self._budget.committed += answer.cost - self._expected[key]
            self._failure_rate.add(failed=False)
        elif (before.kind, before.source, before.value) == (answer.kind, answer.source, answer.value):
            writer.refuse(request.id, as_text(item), "a repeat of the answer that is there", kind="repeat")
            return None
        elif before.source != answer.source:
            writer.refuse(request.id, as_text(item), f"{before.source or 'another answer'!r} was first")
            return None
        else:  # a correction by the same source: the old answer is kept beside the new one
            writer.accept(request, answer, corrects=True)
            self._budget.committed += answer.cost - before.cost
        self._accepted[key] = answer
        return None

    def _match(self, item: Any) -> str | None:
        """Return the id of the request that an answer is for."""
        named = item.item if isinstance(item, _WITH_ITEM) else item
        if isinstance(named, Request):
            return named.id
        sample = as_sample_id(named)
        if sample is not None and sample in self._samples:
            return self._samples[sample]
        if isinstance(item, _WITH_ITEM):
            return self._match_generated(named)
        if sample is not None and self._asks_for_samples:
            return None
        return next(iter(self._open), None)

    def _match_generated(self, named: Any) -> str | None:
        known = [*self._open.values(), *(one.request for one in self._accepted.values())]
        for request in known:
            if request.item is named:
                return request.id
        try:
            text = dumps(named)
        except EncodingError:
            return None
        return next((request.id for request in known if dumps(request.item) == text), None)

    def _fail(self, writer: Any, request: Request, failed: Failed, settled: list[str]) -> Request | None:
        """Store that a request could not be labeled; return it if it is to be tried again."""
        if failed.kind not in FAILURE_KINDS:
            kinds = ", ".join(FAILURE_KINDS)
            raise BadAnswerError(f"its kind is {failed.kind!r}, which is none of {kinds}")
        if failed.kind == "withdrawn" and request.id not in self._accepted:
            self._withdraw(writer, request, failed, settled)
            return None
        return self._end_attempt(writer, request, failed, str(failed.reason), settled, failed.kind)

    def _withdraw(self, writer: Any, request: Request, failed: Failed, settled: list[str]) -> None:
        """Give a request up that nobody tries any more; that is no failure."""
        expected = self._expected[request.id]
        paid = None if failed.cost is None else paid_for(failed, expected)
        writer.refuse(request.id, as_text(failed), withdrawal(str(failed.reason)), kind="dropped", cost=paid)
        writer.give_up(request.id)
        self._close(request.id, settled)
        self._budget.committed += (paid or 0.0) - expected

    def _end_attempt(
        self, writer: Any, request: Request, item: Any, reason: str, settled: list[str], kind: str = "refused"
    ) -> Request | None:
        """Store an attempt that brought no label; return its request for the next one, or give it up."""
        if request.id in self._accepted:
            writer.refuse(request.id, as_text(item), f"{reason}; the answer that is there stays")
            return None
        expected = self._expected[request.id]
        try:
            paid = paid_for(item, expected)
        except BadAnswerError:
            paid = expected
        writer.refuse(request.id, as_text(item), reason, kind=kind, cost=paid)
        self._budget.committed += paid
        self._failure_rate.add(failed=kind != "infeasible")
        again = dataclasses.replace(request, attempt=request.attempt + 1, handle=None)
        writer.retry(request.id, again.attempt)
        if kind != "infeasible" and again.attempt <= self._retries and not self._budget.is_exceeded:
            del self._open[request.id]  # its next attempt comes after the others
            self._open[request.id] = again
            self._requests.release([request.id])
            return again
        writer.give_up(request.id)
        self._close(request.id, settled)
        self._budget.committed -= expected
        return None

    def _close(self, key: str, settled: list[str]) -> None:
        del self._open[key]
        settled.append(key)


def _is_text(text: str) -> bool:
    """Tell whether a text can be stored: half of a pair of surrogates can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
