"""The label queue: each answer is checked, matched with its request, and durable when `put` returns."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence, Set
from typing import Any

from alcore.codec import dumps
from alcore.driver.answers import AnswerCheck, BadAnswerError, accepted_label, as_text, paid_for, withdrawal
from alcore.driver.budget import FailureRate
from alcore.driver.ledger import AnswerBatch, Entry, RequestLedger
from alcore.errors import EncodingError, UsageError
from alcore.pools.tensor_pool import as_sample_id
from alcore.protocols import FAILURE_KINDS, Failed, Label, LabelingProgress, Request
from alcore.store.answers import AnswerWriter
from alcore.store.inbox import Inbox
from alcore.store.rows import AcceptedLabel, LabelingState
from alcore.store.run import RunStore

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
    ledger
        Keeps the state of each request.
    check
        Refuses what can't be a label of the data.
    strategy_state
        Returns what of the label strategy's state is to be committed with each answer, or None.
    after_commit
        Called when answers are committed, in the thread that put them.
    """

    def __init__(
        self,
        store: RunStore,
        ledger: RequestLedger,
        check: AnswerCheck,
        *,
        strategy_state: Callable[[], str | None] = lambda: None,
        after_commit: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._ledger, self._check = store, ledger, check
        self._strategy_state, self._after_commit = strategy_state, after_commit
        self._lock, self._process = threading.RLock(), os.getpid()
        self._step, self._is_open = 0, False
        self._handed_over: Set[str] = frozenset()
        self._asks_for_samples = False  # whether the run ever asked for a sample, so that a bare integer is an id
        self._stale = False  # the ledger is to be read again, since a commit failed
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

    @property
    def keeps_failing(self) -> str | None:
        """Why no more requests are handed out, where labels keep failing."""
        rate = self._ledger.failure_rate
        failed, answers = rate.counts
        return f"{failed} of the last {answers} answers" if rate.is_exceeded else None

    def close(self) -> list[AcceptedLabel]:
        """End a labeling phase; return its answers in the order of the requests.

        Raises
        ------
        BaseException
            The error of the last `put` of a thread, if that one failed: its answer may be stored nowhere.
        """
        with self._lock:
            self._is_open = False
            for fault in self._faults.values():
                raise fault
            if self._stale:
                self._load(self._store.labels.labeling(self._step))
            return self._ledger.close()

    def take_inbox(self) -> bool:
        """Commit what the inbox holds; return whether it held anything. A file that can't be read is set aside."""
        has_file, inbox, committed = False, self._store.inbox, None
        for path, answers, fault in inbox.read():
            committed = committed if has_file else self._store.labels.inbox_file()
            has_file = True
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
        return has_file

    @property
    def has_unanswered(self) -> bool:
        """Whether requests are open in the phase under way."""
        return bool(self._ledger.open)

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
        if not isinstance(request, Request) or not self._store.requests.set_handle(request, handle):
            shown = getattr(request, "id", request)
            raise UsageError(
                f"there is no open request {shown!r:.100} for the handle {handle!r:.100}; give the Request that "
                "get_request() returned, before it is answered."
            )

    def progress(self) -> LabelingProgress:
        """Return how many requests the step made, and how many of them were labeled or given up so far."""
        requested = self._ledger.first_ordinal + len(self._ledger.asked)
        with self._lock:
            still_open = sum(entry.request.step == self._step for entry in self._ledger.open.values())
        return LabelingProgress(requested, requested - still_open)

    def qsize(self) -> int:
        """Return how many answers this phase has accepted."""
        return len(self._ledger.accepted)

    def empty(self) -> bool:
        """Return whether this phase has accepted nothing yet."""
        return not self._ledger.accepted

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
        self._asks_for_samples = self._asks_for_samples or state.asks_for_samples
        committed = self._store.costs.committed() if self._ledger.budget.is_limited else 0.0
        self._ledger.load(state, self._handed_over, committed, self._store.labels.last_answers(FailureRate.window))
        self._stale = False

    def _commit_many(self, items: Iterable[Any], inbox_file: str | None = None, *, told: bool = False) -> None:
        """Commit answers, those of a file of the inbox perhaps, and change the ledger then."""
        with self._lock:
            if self._stale:
                self._load(self._store.labels.labeling(self._step))
            batch = AnswerBatch(self._ledger)
            self._stale = True  # until the transaction has ended
            with self._store.answering(self._step) as writer:
                for item in items:
                    self._take_in(item, writer, batch, told)
                if (state := self._strategy_state()) is not None:
                    writer.keep_state(state)
                if inbox_file is not None:
                    writer.note_inbox_file(inbox_file)
            tickets = self._ledger.apply(batch)
            self._stale = False
        self._ledger.send(tickets)
        self._ledger.withhold_what_is_not_allowed()

    def _take_in(self, item: Any, writer: AnswerWriter, batch: AnswerBatch, told: bool) -> None:
        """Store one answer.

        One that can't be a label is an attempt that failed; unless a person told it, who can correct it.
        """
        key = self._match(item, batch)
        before = None if key is None else batch.accepted(key)
        entry = before if key is None or before is not None else batch.open(key)
        if entry is None:
            writer.refuse(None, as_text(item), _UNKNOWN)
            return
        try:
            if isinstance(item, Failed):
                self._fail(writer, batch, entry, item)
                return
            answer = accepted_label(entry.request, item, self._check, entry.cost)
        except (EncodingError, BadAnswerError) as error:
            if told and before is None:
                writer.refuse(key, as_text(item), str(error))
            else:
                self._end_attempt(writer, batch, entry, item, str(error))
            return
        if before is None:
            self._accept(writer, batch, entry, answer)
        else:
            self._accept_again(writer, batch, entry, item, answer)

    def _accept(self, writer: AnswerWriter, batch: AnswerBatch, entry: Entry, answer: AcceptedLabel) -> None:
        writer.accept(entry.request, answer)
        batch.label(entry, answer, reserved=entry.cost)
        batch.failures.append(False)

    def _accept_again(
        self, writer: AnswerWriter, batch: AnswerBatch, entry: Entry, item: Any, answer: AcceptedLabel
    ) -> None:
        """Keep an answer to a request that has one: a repeat, one that came second, or a correction."""
        before, key = entry.label, entry.request.id
        assert before is not None
        if (before.kind, before.source, before.value) == (answer.kind, answer.source, answer.value):
            writer.refuse(key, as_text(item), "a repeat of the answer that is there", kind="repeat")
        elif before.source != answer.source:
            writer.refuse(key, as_text(item), f"{before.source or 'another answer'!r} was first")
        else:  # a correction by the same source: the old answer is kept beside the new one
            writer.accept(entry.request, answer, corrects=True)
            batch.label(entry, answer, reserved=before.cost)

    def _match(self, item: Any, batch: AnswerBatch) -> str | None:
        """Return the id of the request that an answer is for."""
        named = item.item if isinstance(item, _WITH_ITEM) else item
        if isinstance(named, Request):
            return named.id
        sample = as_sample_id(named)
        if sample is not None and (key := batch.of_sample(sample)) is not None:
            return key
        if isinstance(item, _WITH_ITEM):
            return _match_generated(named, list(batch.known()))
        if sample is not None and self._asks_for_samples:
            return None
        return batch.first_open()

    def _fail(self, writer: AnswerWriter, batch: AnswerBatch, entry: Entry, failed: Failed) -> None:
        """Store that a request could not be labeled."""
        if failed.kind not in FAILURE_KINDS:
            kinds = ", ".join(FAILURE_KINDS)
            raise BadAnswerError(f"its kind is {failed.kind!r}, which is none of {kinds}")
        if failed.kind == "withdrawn" and entry.label is None:
            self._withdraw(writer, batch, entry, failed)
        else:
            self._end_attempt(writer, batch, entry, failed, str(failed.reason), failed.kind)

    def _withdraw(self, writer: AnswerWriter, batch: AnswerBatch, entry: Entry, failed: Failed) -> None:
        """Give a request up that nobody tries any more; that is no failure."""
        key = entry.request.id
        paid = None if failed.cost is None else paid_for(failed, entry.cost)
        writer.refuse(key, as_text(failed), withdrawal(str(failed.reason)), kind="dropped", cost=paid)
        writer.give_up(key)
        batch.give_up(entry)
        batch.budget.committed += (paid or 0.0) - entry.cost

    def _end_attempt(
        self, writer: AnswerWriter, batch: AnswerBatch, entry: Entry, item: Any, reason: str, kind: str = "refused"
    ) -> None:
        """Store an attempt that brought no label: the request is tried again, or given up."""
        request = entry.request
        if entry.label is not None:
            writer.refuse(request.id, as_text(item), f"{reason}; the answer that is there stays")
            return
        try:
            paid = paid_for(item, entry.cost)
        except BadAnswerError:
            paid = entry.cost
        writer.refuse(request.id, as_text(item), reason, kind=kind, cost=paid)
        batch.budget.committed += paid
        batch.failures.append(kind != "infeasible")
        writer.retry(request.id, request.attempt + 1)
        if kind != "infeasible" and request.attempt < self._ledger.retries and not batch.budget.is_exceeded:
            batch.retry(entry)
            return
        writer.give_up(request.id)
        batch.give_up(entry)
        batch.budget.committed -= entry.cost


def _match_generated(named: Any, requests: Sequence[Request]) -> str | None:
    """Return the id of the request for a generated input: the same object, else one that is stored alike."""
    for request in requests:
        if request.item is named:
            return request.id
    try:
        text = dumps(named)
    except EncodingError:
        return None
    return next((request.id for request in requests if dumps(request.item) == text), None)


def _is_text(text: str) -> bool:
    """Return whether a text can be stored: half of a pair of surrogates can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
