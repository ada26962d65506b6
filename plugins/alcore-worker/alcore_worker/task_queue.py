"""The two queues that a label strategy is given in a worker: they claim tasks, and write answers."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from alcore.errors import UsageError
from alcore.pools import as_sample_id
from alcore.protocols import Failed, Label, LabelingProgress, Request
from alcore_worker import documents
from alcore_worker.context import Sent
from alcore_worker.exchange import AwayError, Claim, Exchange, calling_by
from alcore_worker.names import DocumentError, request_of
from alcore_worker.retry import ExchangeRetry
from alcore_worker.scheduling import TimeSlice

_LOOK_AGAIN = 0.2  # seconds until the next look, after one that found nothing


class Task(NamedTuple):
    """A task that was claimed, and could be read.

    Parameters
    ----------
    claim
        The claim.
    request
        The request as the strategy gets it.
    sample
        The id of its sample; None for a generated input.
    sent
        What was sent of the sample; None for a generated input.
    has_inputs
        Whether that is an input, too.
    """

    claim: Claim
    request: Request
    sample: int | None
    sent: Sent | None
    has_inputs: bool


class _Answer:
    """An answer that is not written yet; its document is None until it is made."""

    def __init__(self, task: Task, content: dict[str, Any]) -> None:
        self.task, self.content = task, content
        self.document: bytes | None = None


class TaskQueue:
    """The query queue of a worker: it claims a task when the strategy takes a request out.

    Parameters
    ----------
    exchange, run, worker
        What is claimed, where and by whom.
    retry
        Makes calls of the exchange, but for those that are tried once.
    logger
        Told what can't be read.
    time_slice
        Says when nothing more is to be claimed.

    Attributes
    ----------
    sent : dict of int to Sent
        What was sent of the samples in hand.
    labeled, failed : int
        How many answers there were.
    """

    def __init__(
        self,
        exchange: Exchange,
        run: str,
        worker: str,
        retry: ExchangeRetry,
        logger: logging.Logger,
        time_slice: TimeSlice,
    ) -> None:
        self._exchange, self._run, self._worker = exchange, run, worker
        self._retrying = calling_by(retry.call, exchange)
        self._logger, self._time_slice = logger, time_slice
        self._claiming = threading.RLock()  # held while tasks are claimed
        self._lock = threading.Lock()  # of what follows; never held in a call of the exchange
        self._next: Task | None = None  # claimed, and not taken out yet
        self._out: dict[str, Task] = {}  # taken out, and not answered yet, by request
        self._unwritten: dict[str, _Answer] = {}  # by request
        self._look_after = 0.0
        self.sent: dict[int, Sent] = {}
        self.labeled = self.failed = 0

    # -- what the strategy calls as a query queue ------------------------------------------------------

    def empty(self) -> bool:
        """Return whether nothing waits; what waits is claimed, and taken out next."""
        return self.peek() is None

    def get_many(self, n: int) -> list[Request]:
        """Take out up to `n` requests; none when nothing waits."""
        requests: list[Request] = []
        with self._claiming:
            while len(requests) < n and (task := self.peek()) is not None:
                with self._lock:
                    self._out[task.request.id] = task
                    self._next = None
                requests.append(task.request)
        return requests

    def get_request(self) -> Request:
        """Take out the next request; `queue.Empty` when nothing waits."""
        for request in self.get_many(1):
            return request
        raise queue.Empty

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take out the next item; `queue.Empty` when nothing waits."""
        del block, timeout
        return self.get_request().item

    def get_nowait(self) -> Any:
        """Take out the next item."""
        return self.get()

    def give_back(self, request: Any) -> None:
        """Let a request, or an item, be claimed again, by any worker."""
        with self._lock:
            task = self._find(request)
            del self._out[task.request.id]
            self._forget_sample(task)
        self._release(task.claim)

    def recalled(self) -> list[Request]:
        """Return nothing: the run takes back what no worker has claimed."""
        return []

    def qsize(self) -> int:
        """Return about how many requests wait."""
        return (self._next is not None) + self._retrying.waiting(self._run)

    def put(self, item: Any, block: bool = True, timeout: float | None = None, *, score: float | None = None) -> None:
        """Refuse it: a worker asks for nothing."""
        del item, block, timeout, score
        raise UsageError("a worker can't ask for labels; it answers what a run asks for.")

    def put_many(self, items: Iterable[Any], scores: Sequence[float] | None = None) -> None:
        """Refuse them: a worker asks for nothing."""
        del scores
        self.put(items)

    # -- claims ----------------------------------------------------------------------------------------

    def peek(self) -> Task | None:
        """Return the task that is taken out next, which is claimed; None when nothing waits."""
        with self._claiming:
            while self._next is None and time.monotonic() >= self._look_after and not self._time_slice.is_over():
                claim = self._retrying.claim(self._run, self._worker)
                if claim is None:
                    self._look_after = time.monotonic() + _LOOK_AGAIN
                else:
                    self._take(claim)
            return self._next

    def _take(self, claim: Claim) -> None:
        """Make the task of a claim the one that is taken out next; one that can't be read fails."""
        try:
            task = self._read_or_refuse(claim)
        except BaseException:
            self._release(claim)
            raise
        with self._lock:
            self._next = task
            if task is not None and task.sample is not None and task.sent is not None:
                self.sent[task.sample] = task.sent

    def _read_or_refuse(self, claim: Claim) -> Task | None:
        try:
            return self._read(claim)
        except DocumentError as error:
            self._logger.warning("task %s: %s", claim.name, error)
            document = self._document(claim, _failure(f"a worker can't read it: {error}"))
            self._retrying.answer(self._run, claim, document)
            self.failed += 1
            return None

    def _read(self, claim: Claim) -> Task:
        if claim.fault:
            raise DocumentError(claim.fault)
        content = documents.read(claim.document, lambda digest: self._retrying.get_blob(self._run, digest))
        step, ordinal, request_id, attempt = request_of(claim.name)
        slot, sample = content.get("slot"), content.get("sample")
        if type(slot) is not int or not (sample is None or (type(sample) is int and sample >= 0)):
            raise DocumentError("its sample or slot is damaged")
        has_inputs = content.get("has_inputs") is True
        if sample is None:
            request = Request(request_id, step, ordinal, content.get("item"), attempt, slot)
            return Task(claim, request, None, None, has_inputs)
        values, cost = content.get("values"), content.get("cost")
        if not isinstance(values, dict) or not (cost is None or isinstance(cost, float)):
            raise DocumentError("its values or cost are damaged")
        request = Request(request_id, step, ordinal, sample, attempt, slot)
        return Task(claim, request, sample, Sent(values, content.get("input"), cost), has_inputs)

    def _release(self, claim: Claim) -> None:
        """Give a claim back, where that goes; else this worker claims it again, or gives it back when it leaves."""
        with contextlib.suppress(AwayError, DocumentError):
            self._exchange.give_back(self._run, claim)

    def give_all_back(self) -> None:
        """Write what is answered, and let everything else be claimed again; each is tried once."""
        with self._claiming:
            for key, answer in list(self._unwritten.items()):
                if answer.document is not None:
                    with contextlib.suppress(AwayError, DocumentError):
                        self._exchange.answer(self._run, answer.task.claim, answer.document)
                        self._is_written(key)
            lost = [answer.task for answer in self._unwritten.values()]
            for task in [*self._out.values(), *([] if self._next is None else [self._next]), *lost]:
                self._release(task.claim)
            self._out.clear()
            self._next = None

    # -- answers ---------------------------------------------------------------------------------------

    def deliver(self, answer: Any) -> None:
        """Answer the request that an answer names; that is durable when this returns."""
        content = _content(answer)
        with self._lock:
            task = self._find(answer.item) if isinstance(answer, Label | Failed) else self._oldest()
            key = task.request.id
            del self._out[key]
            self._unwritten[key] = unwritten = _Answer(task, content)
        try:
            document = self._document(task.claim, content)
        except DocumentError as error:
            unwritten.content = _failure(f"its label can't be sent: {error}", content["cost"])
            document = self._document(task.claim, unwritten.content)
        unwritten.document = document
        self._retrying.answer(self._run, task.claim, document)
        self._is_written(key)

    def _document(self, claim: Claim, content: Mapping[str, Any]) -> bytes:
        return documents.write(f"answer to {claim.name}", content, lambda raw: self._retrying.put_blob(self._run, raw))

    def _is_written(self, key: str) -> None:
        with self._lock:
            answer = self._unwritten.pop(key)
            self._forget_sample(answer.task)
            if answer.content["kind"] == "label":
                self.labeled += 1
            else:
                self.failed += 1

    def _find(self, item: Any) -> Task:
        """Return the task that is out of what an answer names."""
        if isinstance(item, Request) and item.id in self._out:
            return self._out[item.id]
        sample = as_sample_id(item)
        for task in self._out.values():
            if task.request.item is item or (sample is not None and task.sample == sample):
                return task
        shown = item.id if isinstance(item, Request) else item
        raise UsageError(f"an answer names {shown!r:.100}, which this worker didn't take, or has answered.")

    def _oldest(self) -> Task:
        for task in self._out.values():
            return task
        raise UsageError("there is an answer, and no request that was taken and has none.")

    def _forget_sample(self, task: Task) -> None:
        """Forget what was sent of a sample, unless another task is of the same sample."""
        others = [*self._out.values(), *(answer.task for answer in self._unwritten.values()), self._next]
        if task.sample is not None and not any(other is not None and other.sample == task.sample for other in others):
            self.sent.pop(task.sample, None)

    def progress(self) -> LabelingProgress:
        """Return how many requests were taken, and how many were answered."""
        with self._lock:
            done = self.labeled + self.failed
            return LabelingProgress(done + len(self._unwritten) + len(self._out) + (self._next is not None), done)

    @property
    def unwritten(self) -> int:
        """How many answers are not written."""
        return len(self._unwritten)

    def fail_unanswered(self) -> None:
        """Report what the strategy took and returned without."""
        for task in list(self._out.values()):
            reason = "the label strategy returned without an answer to it"
            self.deliver(Failed(task.request, reason, "infrastructure"))


class TaskAnswerQueue:
    """The label queue of a worker.

    Parameters
    ----------
    tasks
        What the answers are for.
    """

    def __init__(self, tasks: TaskQueue) -> None:
        self._tasks = tasks

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Deliver one answer, from any thread."""
        del block, timeout
        self._tasks.deliver(item)

    def put_nowait(self, item: Any) -> None:
        """Deliver one answer."""
        self._tasks.deliver(item)

    def put_many(self, items: Iterable[Any]) -> None:
        """Deliver several answers."""
        for item in items:
            self._tasks.deliver(item)

    def qsize(self) -> int:
        """Return how many answers there were."""
        return self._tasks.progress().answered

    def empty(self) -> bool:
        """Return whether there was none."""
        return not self.qsize()

    def submitted(self, request: Request, handle: str) -> None:
        """Do nothing: a worker doesn't come back to a job that it started."""

    def progress(self) -> LabelingProgress:
        """Return how many requests were taken, and how many were answered."""
        return self._tasks.progress()


def _failure(reason: str, cost: float | None = 0.0) -> dict[str, Any]:
    return {"kind": "infrastructure", "reason": reason, "cost": cost}


def _content(answer: Any) -> dict[str, Any]:
    """Return an answer as it is sent."""
    if isinstance(answer, Failed):
        return {"kind": answer.kind, "reason": str(answer.reason), "cost": answer.cost}
    if isinstance(answer, Label):
        cost = None if answer.cost is None else float(answer.cost)
        return {"kind": "label", "value": answer.value, "source": str(answer.source), "cost": cost}
    return {"kind": "label", "value": answer, "source": "", "cost": None}
