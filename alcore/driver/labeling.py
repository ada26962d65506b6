"""The labeling phase: requests are handed out, answers are committed and appended to the training pool."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

from alcore.codec import dumps, loads
from alcore.driver.agreement import compare_labels, share_labels
from alcore.driver.answer_queue import AnswerQueue
from alcore.driver.answers import append_labels, as_text
from alcore.driver.in_flight import poll_in_flight
from alcore.driver.interruption import Interruption
from alcore.driver.item_types import with_types
from alcore.driver.ledger import RequestLedger
from alcore.driver.pool_set import PoolSet
from alcore.driver.rank_scope import RankScope
from alcore.driver.request_queue import RequestQueue
from alcore.errors import Waiting, raised_by
from alcore.protocols import Request
from alcore.randomness import preserve_rng_state
from alcore.store.rows import AcceptedLabel
from alcore.store.run import RunStore
from alcore.strategies.label_options import is_tracked, labels_by_id, may_wait, poll_of
from alcore.training.extra_arguments import accepted

_LOOK = 1.0  # seconds between two looks into the inbox while a label strategy works


class LabelStrategyState:
    """The state of a label strategy, committed with each answer, since a label strategy is never replayed.

    Parameters
    ----------
    strategy
        The label strategy, or None.
    saved
        What `to_store` returned last, where the run is resumed.
    """

    def __init__(self, strategy: Any, saved: str | None = None) -> None:
        self._strategy = strategy
        self._has_state = callable(getattr(strategy, "state_dict", None))
        self._step = -1
        state = None if saved is None else with_types(loads(saved))
        if state is not None:
            self._step = state["step"]
            if state["strategy"]:
                with raised_by(f"load_state_dict() of {type(strategy).__name__}"):
                    strategy.load_state_dict(state["strategy"])

    def begin(self, step: int) -> None:
        """Note the step whose answers come next."""
        self._step = step

    def to_store(self) -> str | None:
        """Return what to store with an answer, or None where there is nothing."""
        if not self._has_state:
            return None
        with raised_by(f"state_dict() of {type(self._strategy).__name__}"):
            state = dict(self._strategy.state_dict())
            return dumps({"step": self._step, "strategy": state}) if state else None


class LabelingPhase:
    """Runs the label strategy on rank 0, and gives the training pools of all ranks the same labels.

    Parameters
    ----------
    strategy
        The label strategy, or None.
    store
        The open run.
    ledger
        The state of each request.
    requests, answers
        The two queues.
    state
        Of the label strategy.
    pools
        The training pool gets the labels.
    scope
        The processes of the run.
    interruption
        Ends the label strategy at once where the run was asked to end.
    stand_in
        A function to call in place of the label strategy's ``label``, or None. It is called even if there is nothing
        to hand out, while requests have no answer.

    Attributes
    ----------
    waits_for : str or None
        What the label strategy waits for; None where the last phase came to its end.
    """

    def __init__(
        self,
        strategy: Any,
        store: RunStore,
        *,
        ledger: RequestLedger,
        requests: RequestQueue,
        answers: AnswerQueue,
        state: LabelStrategyState,
        pools: PoolSet,
        scope: RankScope,
        interruption: Interruption,
        stand_in: Callable[..., None] | None = None,
    ) -> None:
        self._strategy, self._store, self._ledger = strategy, store, ledger
        self._requests, self._answers, self._strategy_state = requests, answers, state
        self._pools, self._scope, self._interruption = pools, scope, interruption
        self._tracks, self._by_id = is_tracked(strategy), labels_by_id(strategy)
        self._is_polled = poll_of(strategy) is not None
        if self._tracks:
            requests.on_take = store.requests.mark_taken
            requests.on_give_back = store.requests.mark_given_back
        self._stand_in = stand_in
        self._waits = stand_in is not None or may_wait(strategy)
        self.waits_for: str | None = None
        self._step = -1  # the last step whose labels the training pool has
        self._handed_over: set[str] = set()  # the requests of that step whose answers it has
        self._is_open = False
        self._looked = -math.inf

    def run(self, step: int, replaying: bool, *args: Any, **kwargs: Any) -> dict[str, int]:
        """Get labels for the open requests, and append them to the training pool in the order of the requests.

        Parameters
        ----------
        step
            The step under way.
        replaying
            Whether it was run before, up to some point; what is on record is not asked for again.
        *args, **kwargs
            Passed on to the label strategy.

        Returns
        -------
        dict
            ``labeled``, ``failed`` and ``refused``: how many requests and answers; ``taken``: how many requests are
            with a label strategy that can't be polled.
        """
        self._begin(step)
        waits: list[str] = []

        def get_labels() -> None:
            requests = self._open(replaying)
            if requests is None:
                return
            self._ledger.hand_out_only([self._with_types(request) for request in requests])
            while (wait := self._label(*args, **kwargs)) is not None:
                if not self._answers.take_inbox():
                    waits.append(wait)
                    return
            self._answers.take_inbox()
            if self._answers.has_unanswered:  # or a resumed run would ask for these again in this step
                self._store.labels.end_labeling(step)

        shared = False
        try:
            self._scope.current.on_rank_0(get_labels, lambda: self._interruption.requested)
            self.waits_for = self._scope.current.share(lambda: waits[0] if waits else None)
            shared = True
        finally:
            counts = self._set_down() if shared and self.waits_for is not None else self._hand_over(shared=shared)
        is_followed = self._is_polled or not self._is_open
        return counts | {"taken": 0 if is_followed else self._ledger.open_and_taken}

    def take_told(self) -> list[Request]:
        """Take in what the inbox holds; return the requests that are with the label strategy no more."""
        if not self._is_open or time.monotonic() - self._looked < _LOOK:
            return []
        self._looked = time.monotonic()
        before = self._ledger.taken()
        if not self._answers.take_inbox():
            return []
        return [answer for key, answer in before.items() if not self._ledger.is_taken(key)]

    def _with_types(self, request: Request) -> Request:
        """Return a request with the input as it was put."""
        item = with_types(request.item, self._pools)
        return request if item is request.item else dataclasses.replace(request, item=item)

    def _label(self, *args: Any, **kwargs: Any) -> str | None:
        """Call the label strategy; return what it waits for, if it does and its time is not over."""
        if self._requests.empty() and not self._may_wait():
            return None
        named = raised_by(f"label() of {type(self._strategy).__name__}")
        try:
            with (
                self._generators_preserved(),
                self._interruption.immediate(lambda: self._store.committing),
                self._scope.by_itself(),
                named,
            ):
                label = self._stand_in or self._strategy.label
                given, keywords = accepted(label, 2, args, kwargs)
                label(self._requests, self._answers, *given, **keywords)
        except Waiting as wait:
            if wait.max_wait is None or self._waited() < wait.max_wait:
                return str(wait)
        return None

    def _may_wait(self) -> bool:
        """Whether the label strategy is to be asked although nothing is left to hand out."""
        return self._waits and self._answers.has_unanswered and self._answers.keeps_failing is None

    def _waited(self) -> float:
        """Return for how many seconds the step under way has waited, which is committed when it begins to."""
        since, now = self._store.meta().get("waits") or {}, time.time()
        if since.get("step") != self._step:
            self._store.set_meta(waits={"step": self._step, "since": now})
            return 0.0
        return now - float(since["since"])

    def _set_down(self) -> dict[str, int]:
        """Suspend the phase; the training pool gets the labels in request order once all have arrived."""
        if self._is_open:
            self._answers.close()
        return self._store.labels.counts(self._step)

    def take_late_answers(self, step: int) -> dict[str, int] | None:
        """Append what came through the inbox, in a step that has no labeling phase of its own.

        Returns
        -------
        dict or None
            As `run` does; None where the step had a labeling phase.
        """
        if self._step == step:
            return None
        self._begin(step)
        if self._scope.current.main:
            state = self._store.labels.labeling(step)
            if not state.committed:
                self._answers.open(step, state)
                self._is_open = True
                self._answers.take_inbox()
        return self._hand_over(shared=True)

    def _begin(self, step: int) -> None:
        if step != self._step:
            self._step, self._handed_over = step, set()
        self._is_open = False

    def _open(self, replaying: bool) -> list[Request] | None:
        """Open the label queue; return the requests to label, or None where the phase is on record as a whole."""
        step, state = self._step, self._store.labels.labeling(self._step)
        if state.ended and (replaying or state.committed):
            return None
        if state.ended:  # the phases are called by hand, and this one once more
            self._store.labels.reopen_labeling()
        self._strategy_state.begin(step)
        self._answers.open(step, state, self._handed_over)
        self._is_open = True
        changed = self._answers.take_inbox()
        if self._tracks and poll_in_flight(self._strategy, self._store, self._ledger, self._answers):
            changed = True
        if changed:
            state = self._store.labels.labeling(step)
            self._answers.open(step, state, self._handed_over)
        return self._ledger.to_hand_out(state)

    @contextlib.contextmanager
    def _generators_preserved(self) -> Iterator[None]:
        """Keep what the label strategy draws from the global generators from what comes after it."""
        if self._by_id:
            yield
            return
        with preserve_rng_state():
            yield

    def _hand_over(self, *, shared: bool) -> dict[str, int]:
        """Append the step's answers to the training pool; what it refuses is set aside, and tried again at a resume."""
        ranks, step = self._scope.current, self._step
        closed = self._answers.close() if self._is_open else None
        if ranks.main:
            refused = self._append(closed)
            if refused:
                with self._store.answering(step) as writer:
                    for label, error in refused:
                        writer.set_aside(label.request.id, as_text(label.item), f"{type(error).__name__}: {error}")
        if shared:
            share_labels(ranks, self._store, step)
        if not ranks.main:
            self._ledger.hand_out_only([])
            self._append(None)
        if shared:
            compare_labels(ranks, self._store, step, self._pools.train)
        return self._store.labels.counts(step)

    def _append(self, closed: list[AcceptedLabel] | None) -> list[tuple[AcceptedLabel, Exception]]:
        """Append what was answered, and isn't in the training pool yet; return what the pool refused."""
        answered = self._store.labels.accepted(self._step) if closed is None else closed
        decided = self._handed_over | self._store.labels.second_opinions(self._step)
        new = [label for label in answered if label.request.id not in decided]
        self._handed_over.update(label.request.id for label in new)
        return append_labels(self._pools, new)
