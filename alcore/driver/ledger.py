"""The ledger of requests: what state each one is in, and the one table of how it may change.

A request is in one state at a time. Open ones are ``WAITING``, ``READY``, ``TAKEN``, ``WITHHELD`` or ``RECALLED``;
the others have ended. `TRANSITIONS` says which change leads from which state to which. In the database of the run the
first five are the state ``open``, with ``taken`` for those that are with the label strategy, where that is recorded
(`alcore.strategies.label_options.is_tracked`); `RequestLedger.load` reads the ledger from there.

When a change is committed depends on its kind:

- Label, retry and give up are committed before they change the ledger.
- A request that is handed out because a query strategy asked for it is in the ledger at once, and committed with all
  others as the query phase ends. What a labeling phase hands out, or leaves, changes in the ledger alone.
- A request that the label strategy takes out changes in the ledger first and is committed as taken next; if that fails,
  the ledger takes it back. A request that the label strategy gives back, or that it never got as its ``poll`` says, is
  committed first and changes in the ledger next. If the run does not record what is taken, only the ledger changes.
- Withhold and allow are never committed: they follow from the answers and the budget.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence, Set

from alcore.driver.budget import Budget, FailureRate
from alcore.pools.tensor_pool import as_sample_id
from alcore.protocols import Queue, Request
from alcore.store.rows import AcceptedLabel, AskedRequest, LabelingState


class RequestState(enum.Enum):
    """Where a request is."""

    WAITING = enum.auto()
    """Open; not handed out in this labeling phase unless it is tried again."""
    READY = enum.auto()
    """Open; the label strategy gets it next."""
    TAKEN = enum.auto()
    """Open; with the label strategy, which has neither answered it nor given it back."""
    WITHHELD = enum.auto()
    """Open; not to be begun in this labeling phase: labels keep failing, or the budget doesn't allow it."""
    RECALLED = enum.auto()
    """Open; with the label strategy, which should not begin it any more. Its answer is accepted all the same."""
    LABELED = enum.auto()
    """It has a label."""
    GIVEN_UP = enum.auto()
    """It has no label, and is not tried again."""


class Change(enum.Enum):
    """What happens to a request, and who causes it."""

    HAND_OUT = enum.auto()
    """A query strategy asked for it, or a labeling phase begins that hands it out."""
    LEAVE = enum.auto()
    """A labeling phase begins that doesn't hand it out; or the label strategy, polled, has never got it."""
    TAKE = enum.auto()
    """The label strategy takes it out."""
    GIVE_BACK = enum.auto()
    """The label strategy gives it back, or taking it out could not be committed."""
    WITHHOLD = enum.auto()
    """Labels keep failing, or more is paid and reserved than the budget allows."""
    ALLOW = enum.auto()
    """The reason to withhold it is gone, or a labeling phase begins."""
    LABEL = enum.auto()
    """An answer is accepted as its label."""
    RETRY = enum.auto()
    """An attempt failed, and there is another one."""
    GIVE_UP = enum.auto()
    """The last attempt failed, or the request was withdrawn."""


_WAITS, _READY, _TAKEN, _HELD, _CALLED, _LABEL, _GIVEN = RequestState
OPEN = frozenset({_WAITS, _READY, _TAKEN, _HELD, _CALLED})
"""The states of requests that have no answer."""
WITH_STRATEGY = frozenset({_TAKEN, _CALLED})
"""The states of requests that are with the label strategy."""
# fmt: off
_TABLE = {
    #                 WAITING READY   TAKEN    WITHHELD RECALLED LABELED GIVEN_UP
    Change.HAND_OUT:  (_READY, _READY, _TAKEN,  _HELD,   _CALLED, _LABEL, _GIVEN),
    Change.LEAVE:     (_WAITS, _WAITS, _WAITS,  _WAITS,  _HELD,   _LABEL, _GIVEN),
    Change.TAKE:      (None,   _TAKEN, None,    None,    None,    None,   None),
    Change.GIVE_BACK: (None,   None,   _READY,  None,    _HELD,   _LABEL, _GIVEN),
    Change.WITHHOLD:  (_HELD,  _HELD,  _CALLED, _HELD,   _CALLED, _LABEL, _GIVEN),
    Change.ALLOW:     (_WAITS, _READY, _TAKEN,  _WAITS,  _TAKEN,  _LABEL, _GIVEN),
    Change.LABEL:     (_LABEL, _LABEL, _LABEL,  _LABEL,  _LABEL,  _LABEL, None),
    Change.RETRY:     (_READY, _READY, _READY,  _HELD,   _HELD,   None,   None),
    Change.GIVE_UP:   (_GIVEN, _GIVEN, _GIVEN,  _GIVEN,  _GIVEN,  None,   None),
}
# fmt: on
TRANSITIONS: dict[Change, dict[RequestState, RequestState]] = {
    change: {before: after for before, after in zip(RequestState, row, strict=True) if after is not None}
    for change, row in _TABLE.items()
}
"""The state that a change leads to, by the state before it. A pair that is not here can't happen.

Where another thread may have answered or taken a request meanwhile, it stays as it is.
"""


@dataclasses.dataclass(slots=True)
class Entry:
    """A request of the ledger.

    Attributes
    ----------
    request
        As the run directory has it.
    shown
        As the label strategy gets it: an input of the user's own class is an object of that class.
    cost
        What its label is expected to cost.
    state
        Where it is.
    ticket
        Its number in the queue of the user, where it is ready.
    label
        The answer that was accepted in the labeling phase under way.
    """

    request: Request
    shown: Request
    cost: float = 0.0
    state: RequestState = RequestState.WAITING
    ticket: int | None = None
    label: AcceptedLabel | None = None


class RequestLedger:
    """All requests that are not settled, each in one state; may be used from any thread.

    Parameters
    ----------
    transport
        Built by ``StrategiesConfig.queue_cls``. Only tickets travel through it, small integers, one for each request
        that is ready: it may be a queue between processes, last in first out, or ordered by priority (the oldest
        first).
    budget
        What may be spent. Requests that it doesn't allow any more are not handed out.
    failure_rate
        Ends the handing out of requests where labels keep failing.
    retries
        How often a request that failed is tried again.

    Attributes
    ----------
    open : dict of str to Entry
        The requests that may be answered, by id: oldest first, those that are tried again after the others.
    accepted : dict of str to Entry
        Those which the labeling phase under way has labeled, by id.
    samples : dict of int to list of str
        The requests for a sample, open or ended in this phase, by sample: one for each slot, in the order of slots.
    asked : list of AskedRequest
        What the query phase under way, or the last one, asked for.
    first_ordinal : int
        How many requests the step had made before that query phase; 0 unless phases are called by hand.
    """

    def __init__(self, transport: Queue, budget: Budget, failure_rate: FailureRate, retries: int) -> None:
        self._transport = transport
        self.budget, self.failure_rate, self.retries = budget, failure_rate, retries
        self.open: dict[str, Entry] = {}
        self.accepted: dict[str, Entry] = {}
        self.samples: dict[int, list[str]] = {}
        self.asked: list[AskedRequest] = []
        self.first_ordinal = self._step = 0
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._in_state: collections.Counter[RequestState] = collections.Counter()
        self._with_strategy: dict[str, Entry] = {}  # an index: those in a state of WITH_STRATEGY
        self._of_ticket: dict[int, Entry] = {}  # an index: those that are READY
        self._tickets = 0  # how many were given
        self._in_transport = 0  # tickets in the transport that no thread is taking out

    # -- the states ------------------------------------------------------------------------------------

    def _change(self, entry: Entry, change: Change) -> int | None:
        """Change the state of a request, and the indexes with it; return its ticket where it became ready.

        The lock is held.
        """
        before, after = entry.state, TRANSITIONS[change][entry.state]
        if after is before:
            return None
        key = entry.request.id
        self._in_state[before] -= 1
        self._in_state[after] += 1
        entry.state = after
        if entry.ticket is not None:  # it stays in the transport, and is skipped there
            del self._of_ticket[entry.ticket]
            entry.ticket = None
        if after is RequestState.READY:
            entry.ticket, self._tickets = self._tickets, self._tickets + 1
            self._of_ticket[entry.ticket] = entry
        if after in WITH_STRATEGY:
            self._with_strategy[key] = entry
        else:
            self._with_strategy.pop(key, None)
        return entry.ticket

    def _change_all(self, entries: Iterable[Entry], change: Change) -> list[int]:
        tickets = [self._change(entry, change) for entry in entries]
        return [ticket for ticket in tickets if ticket is not None]

    def _entry(self, request: Request) -> Entry:
        """Return the entry of a request, a new one where there is none; the lock is held."""
        if (entry := self._entries.get(request.id)) is None:
            entry = self._entries[request.id] = Entry(request, request)
            self._in_state[entry.state] += 1
        return entry

    def _remove(self, entry: Entry) -> None:
        if self._entries.pop(entry.request.id, None) is not None:
            self._in_state[entry.state] -= 1

    def send(self, tickets: Sequence[int]) -> None:
        """Put tickets into the transport, without the lock, since it is the user's."""
        for ticket in tickets:
            with self._lock:
                self._in_transport += 1
            self._transport.put(ticket)

    # -- what phases cause -----------------------------------------------------------------------------

    def begin_query(self, step: int) -> None:
        """Begin the query phase of a step; what has ended is forgotten."""
        with self._lock:
            self.first_ordinal = self.first_ordinal + len(self.asked) if step == self._step else 0
            self._step, self.asked = step, []
            for key, entry in list(self._entries.items()):
                if entry.state not in OPEN and key not in self.accepted:
                    self._remove(entry)

    def load(
        self,
        state: LabelingState,
        handed_over: Set[str],
        committed: float,
        failures: Iterable[bool],
    ) -> None:
        """Take over what the run directory has of a labeling phase.

        Parameters
        ----------
        state
            What it has.
        handed_over
            Ids of requests whose answers the training pool has already, so that they can't be corrected.
        committed
            What was paid, plus what the open requests are expected to cost; 0 where there is no budget.
        failures
            Whether each of the last answers was a failure, the oldest first.
        """
        accepted = {label.request.id: label for label in state.accepted if label.request.id not in handed_over}
        still_open = {request.id for request in state.open}
        with self._lock:
            for key, entry in self.open.items():
                if key not in still_open:
                    self._change(entry, Change.LABEL if key in accepted else Change.GIVE_UP)
            for key, entry in self.accepted.items():
                if key not in accepted:
                    self._remove(entry)
            self.open = {request.id: self._known(request, state) for request in state.open}
            self.accepted = {}
            for key, label in accepted.items():
                entry = self.accepted[key] = self._known(label.request, state)
                entry.label = label
                self._change(entry, Change.LABEL)
            self.samples = {sample: [key] for sample, key in state.given_up.items()}
            requests = [*state.open, *(label.request for label in accepted.values())]
            for request in sorted(requests, key=lambda request: request.slot):
                if type(request.item) is int:
                    self.samples.setdefault(request.item, []).append(request.id)
            self.budget.committed = committed
            self.failure_rate.begin(failures)

    def _known(self, request: Request, state: LabelingState) -> Entry:
        entry = self._entry(request)
        entry.request, entry.cost = request, state.expected.get(request.id, 0.0)
        return entry

    def to_hand_out(self, state: LabelingState) -> list[Request]:
        """Return the open requests that a labeling phase hands out.

        Left out are those that are with the label strategy, and those that were handed out as often as they may be in
        one phase.
        """
        requests = [
            request
            for request in state.open
            if request.id not in state.taken
            and request.id not in self._with_strategy
            and (request.id not in state.refused or request.attempt <= self.retries)
        ]
        over = set(self._over_budget([request.id for request in requests]))
        return [] if self.failure_rate.is_exceeded else [request for request in requests if request.id not in over]

    def hand_out(self, requests: Sequence[Request]) -> None:
        """Let the label strategy get these requests, too."""
        with self._lock:
            for request in requests:
                self._entry(request).shown = request
            tickets = self._change_all((self._entries[request.id] for request in requests), Change.HAND_OUT)
        self.send(tickets)

    def hand_out_only(self, requests: Sequence[Request]) -> None:
        """Let the label strategy get these requests and no others, in this order.

        Parameters
        ----------
        requests
            As the label strategy gets them: generated inputs are matched by identity.
        """
        with self._lock:
            self._allow(self._entries.values())
            if [entry.request.id for entry in self._of_ticket.values()] == [request.id for request in requests]:
                for entry, request in zip(self._of_ticket.values(), requests, strict=True):
                    entry.shown = request
                return
            for key, entry in list(self._entries.items()):
                if entry.state not in WITH_STRATEGY:
                    self._change(entry, Change.LEAVE)
                    if entry.state in OPEN and key not in self.open:
                        self._remove(entry)
        while self._in_transport:
            self._ticket()
        self.hand_out(requests)

    # -- what the label strategy causes ----------------------------------------------------------------

    def take(self) -> Request:
        """Take out the next request; raises `queue.Empty` when nothing is left."""
        while self.count_ready():
            ticket = self._ticket()
            with self._lock:
                entry = self._of_ticket.get(ticket)
                if entry is not None:
                    self._change(entry, Change.TAKE)
                    return entry.shown
        raise queue.Empty

    def _ticket(self) -> int:
        with self._lock:
            if not self._in_transport:
                raise queue.Empty
            self._in_transport -= 1  # before the wait: another thread must not wait for the same one
        try:
            return int(self._transport.get())
        except BaseException:
            with self._lock:
                self._in_transport += 1
            raise

    def give_back(self, keys: Iterable[str]) -> None:
        """Let requests that were taken out be handed out again: in this phase, or in the next one."""
        with self._lock:
            tickets = self._change_all((self._entries[key] for key in keys if key in self._entries), Change.GIVE_BACK)
        self.send(tickets)

    def leave(self, keys: Iterable[str]) -> None:
        """Note that the label strategy doesn't have these requests; they are handed out in the next phase."""
        with self._lock:
            self._change_all([self._with_strategy[key] for key in keys if key in self._with_strategy], Change.LEAVE)

    def withhold(self, keys: Iterable[str]) -> None:
        """Make these requests, and no others, those that are not to be begun any more in this phase."""
        withheld = set(keys)
        with self._lock:
            self._allow(entry for key, entry in self._entries.items() if key not in withheld)
            self._change_all((self._entries[key] for key in withheld & self._entries.keys()), Change.WITHHOLD)

    def _allow(self, entries: Iterable[Entry]) -> None:
        if self._in_state[RequestState.WITHHELD] or self._in_state[RequestState.RECALLED]:
            self._change_all(entries, Change.ALLOW)

    def withhold_what_is_not_allowed(self) -> None:
        """Withhold all that is open where labels keep failing, else the last ones over the budget."""
        if self.failure_rate.is_exceeded:
            self.withhold(self.open)
        elif self.budget.is_exceeded:
            self.withhold(self._over_budget(sorted(self.open, key=lambda key: key not in self._with_strategy)))
        else:
            self.withhold(())

    def _over_budget(self, keys: Sequence[str]) -> list[str]:
        """Return which of these requests, of the last ones first, the budget doesn't allow."""
        over, missing = [], -self.budget.left
        for key in reversed(keys) if self.budget.is_exceeded else ():
            if missing <= 0:
                break
            over.append(key)
            missing -= self.open[key].cost if key in self.open else 0.0
        return over

    # -- answers ---------------------------------------------------------------------------------------

    def apply(self, batch: AnswerBatch) -> list[int]:
        """Change what the answers of a batch change, which are committed; return tickets to `send`."""
        with self._lock:
            ready: dict[str, int] = {}
            for change, decided in batch.changes:
                entry = self._entries[decided.request.id]
                entry.request, entry.label = decided.request, decided.label
                if change is Change.RETRY:
                    entry.shown = dataclasses.replace(entry.shown, attempt=decided.request.attempt, handle=None)
                if (ticket := self._change(entry, change)) is not None:
                    ready[decided.request.id] = ticket
            for key in batch.in_new_order:
                entry = self._entries[key]
                self.open.pop(key, None)
                if entry.state in OPEN:
                    self.open[key] = entry
                elif entry.label is not None:
                    self.accepted[key] = entry
            self.budget.committed = batch.budget.committed
            for failed in batch.failures:
                self.failure_rate.add(failed=failed)
            return [ticket for ticket in ready.values() if ticket in self._of_ticket]

    def close(self) -> list[AcceptedLabel]:
        """End a labeling phase; return its labels in the order of the requests."""
        labels = [entry.label for entry in self.accepted.values() if entry.label is not None]
        with self._lock:
            for entry in self.accepted.values():
                entry.label = None
            self.accepted = {}
        return sorted(labels, key=lambda label: (label.request.step, label.request.ordinal))

    # -- what is asked of it -----------------------------------------------------------------------------

    def count_ready(self) -> int:
        """Return how many requests the label strategy can take out."""
        return min(self._in_transport, len(self._of_ticket))

    def is_taken(self, key: str) -> bool:
        """Return whether a request is with the label strategy: taken out, and neither answered nor given back."""
        with self._lock:
            return key in self._with_strategy

    def taken(self) -> dict[str, Request]:
        """Return the requests that are with the label strategy, by id."""
        with self._lock:
            return {key: entry.shown for key, entry in self._with_strategy.items()}

    def find_taken(self, named: object) -> Request | None:
        """Return the request that is with the label strategy for what names it: a request, a sample id, an input."""
        with self._lock:
            if isinstance(named, Request):
                entry = self._with_strategy.get(named.id)
                return None if entry is None else entry.shown
            sample = as_sample_id(named)
            for entry in self._with_strategy.values():
                item = entry.shown.item
                if item is named or (type(item) is int and item == sample):
                    return entry.shown
            return None

    def recalled(self) -> list[Request]:
        """Return the requests that are with the label strategy and should not be begun any more."""
        with self._lock:
            if not self._in_state[RequestState.RECALLED]:
                return []
            return [entry.shown for entry in self._with_strategy.values() if entry.state is RequestState.RECALLED]

    @property
    def open_and_taken(self) -> int:
        """How many of the requests that may be answered are with the label strategy."""
        with self._lock:
            return len(self.open.keys() & self._with_strategy.keys())


class AnswerBatch:
    """What some answers change: it is decided on copies, committed, and then applied to the ledger.

    Parameters
    ----------
    ledger
        The ledger.

    Attributes
    ----------
    changes : list of tuple
        The changes in their order, each with the request after it.
    budget : Budget
        As it is after them.
    failures : list of bool
        Whether each answer was a failure.
    """

    def __init__(self, ledger: RequestLedger) -> None:
        self._ledger = ledger
        self.changes: list[tuple[Change, Entry]] = []
        self.budget = ledger.budget.copy()
        self.failures: list[bool] = []
        self._open: dict[str, Entry] = {}  # those that were changed and are open, in the order of the last change
        self._ended: dict[str, Entry] = {}
        self._untouched = iter(ledger.open)  # advances over those that were changed
        self._next: str | None = next(self._untouched, None)

    def open(self, key: str) -> Entry | None:
        """Return an open request, with what the answers before have changed; None where it is none."""
        if key in self._ended:
            return None
        return self._open.get(key) or self._ledger.open.get(key)

    def accepted(self, key: str) -> Entry | None:
        """Return a request that this labeling phase has labeled; None where it is none."""
        if (entry := self._ended.get(key)) is not None:
            return entry if entry.label is not None else None
        return self._ledger.accepted.get(key)

    def first_open(self) -> str | None:
        """Return the open request that is the first in order; None where there is none."""
        while self._next is not None and (self._next in self._ended or self._next in self._open):
            self._next = next(self._untouched, None)
        return next(iter(self._open), None) if self._next is None else self._next

    def of_sample(self, sample: int) -> str | None:
        """Return the request that an answer to a sample is for: of its slots the first that is open, else the first."""
        slots = self._ledger.samples.get(sample, [])
        return next((key for key in slots if self.open(key) is not None), slots[0] if slots else None)

    def known(self) -> Iterator[Request]:
        """Yield the requests that may be answered: the open ones, and those that this phase has labeled."""
        ledger = self._ledger
        for key, entry in ledger.open.items():
            if key not in self._ended and key not in self._open:
                yield entry.request
        yield from (entry.request for entry in self._open.values())
        for key in [*ledger.accepted, *(key for key in self._ended if key not in ledger.accepted)]:
            if (entry_of_label := self.accepted(key)) is not None:
                yield entry_of_label.request

    def label(self, entry: Entry, label: AcceptedLabel, reserved: float) -> None:
        """Give a request its label, which frees what was reserved for it or paid for its label before."""
        self._end(dataclasses.replace(entry, label=label), Change.LABEL)
        self.budget.committed += label.cost - reserved

    def retry(self, entry: Entry) -> None:
        """Try a request again, after the others."""
        key = entry.request.id
        again = dataclasses.replace(entry.request, attempt=entry.request.attempt + 1, handle=None)
        self._open.pop(key, None)
        self._open[key] = dataclasses.replace(entry, request=again)
        self.changes.append((Change.RETRY, self._open[key]))

    def give_up(self, entry: Entry) -> None:
        """Give a request up."""
        self._end(dataclasses.replace(entry, label=None), Change.GIVE_UP)

    def _end(self, entry: Entry, change: Change) -> None:
        key = entry.request.id
        self._open.pop(key, None)
        self._ended[key] = entry
        self.changes.append((change, entry))

    @property
    def in_new_order(self) -> list[str]:
        """The requests that were changed, in the order in which they stand from now on."""
        return [*self._ended, *self._open]
