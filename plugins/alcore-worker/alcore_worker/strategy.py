"""The label strategy whose requests are answered by workers on other machines."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from alcore.errors import UsageError
from alcore.pools import as_sample_id, inputs_by_sample, is_choosable, named_values
from alcore.protocols import FAILURE_KINDS, Failed, Label, LabelQueue, QueryQueue, Request
from alcore.store import write_whole
from alcore.strategies import BaseLabel
from alcore_worker import documents
from alcore_worker.documents import DocumentError
from alcore_worker.exchange import Exchange, open_exchange
from alcore_worker.patience import Patience, sleep

_SHORTEST_WAIT = 0.02  # seconds between two looks for answers, doubled while there are none
_AT_ONCE = 256  # answers in one transaction
_LOOK_FOR_LOST = 5.0  # seconds between two looks for tasks that the exchange has lost
_TELL_AFTER = 10.0  # seconds without any worker until that is told


class WorkerLabelStrategy(BaseLabel):
    """Have workers on other machines get the labels: ``alcore worker WHERE --label NAME`` on each of them.

    Requests are sent with their values and inputs. Each is answered at least once, and one answer is accepted. A worker
    that dies costs time. If the run is cut off, workers go on; what they have done is taken in when it is resumed, and
    nothing that they have or had is sent again.

    Parameters
    ----------
    where
        A folder that the run and its workers share, and which exists; or the address of a Redis server, redis://HOST,
        whose password is in the variable ALCORE_REDIS_PASSWORD of the environment.
    silent_after
        Seconds after which the work of a worker that says nothing is given to another one.
    most_lost
        How many workers may fall silent over a request before it fails.
    max_in_flight
        How many requests are sent out at a time.
    longest_wait
        Seconds at most between two looks for answers.
    """

    idempotent = True
    """A request that is handed out again has the same name in the exchange, where it is known."""

    def __init__(
        self,
        where: str,
        silent_after: float = 60.0,
        most_lost: int = 3,
        max_in_flight: int = 10_000,
        longest_wait: float = 1.0,
    ) -> None:
        for name, seconds in {"silent_after": silent_after, "longest_wait": longest_wait}.items():
            if not 0 < seconds < math.inf:
                _refuse(f"{name} is {seconds!r}; it must be a number of seconds above 0")
        for name, number in {"most_lost": most_lost, "max_in_flight": max_in_flight}.items():
            if number < 1:
                _refuse(f"{name} is {number!r}; it must be a whole number of at least 1")
        self._exchange: Exchange = open_exchange(where)
        self._silent_after, self._most_lost, self._most = silent_after, most_lost, max_in_flight
        self._longest_wait = longest_wait

    def label(self, queue_to_label: QueryQueue, serialize_queue: LabelQueue, *args: Any, **kwargs: Any) -> None:
        """Send each request, and put each answer as it comes."""
        if queue_to_label.empty():
            return
        desk = _Desk(self._exchange, self._identity(), self)
        in_hand: dict[str, Request] = {}
        try:
            wait = _SHORTEST_WAIT
            while True:
                room = self._most - len(in_hand)
                taken = queue_to_label.get_many(room) if room > 0 and not queue_to_label.empty() else []
                if taken:
                    named = {_name_of(one): one for one in taken}
                    in_hand |= named
                    self._send(desk, named, serialize_queue, in_hand)
                if not in_hand:
                    return
                collected = self._collect(desk, in_hand, serialize_queue)
                desk.look_after(in_hand, serialize_queue)
                if collected:
                    wait = _SHORTEST_WAIT
                elif not taken:
                    sleep(wait, self.driver.safe_point)
                    wait = min(2 * wait, self._longest_wait)
        finally:
            for request in in_hand.values():
                with contextlib.suppress(UsageError):  # it has been answered
                    queue_to_label.give_back(request)

    @property
    def limits(self) -> tuple[float, int]:
        """`silent_after` and `most_lost`."""
        return self._silent_after, self._most_lost

    def _identity(self) -> tuple[str, int]:
        """Return the name of the run in the exchange, and the seed of its workers; the same after a resume."""
        path = self.strategy_dir / "exchange.json"
        run_id = self.driver.run_id
        if path.is_file() and not path.is_symlink():
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                known = json.loads(path.read_text("utf-8"))
                name, seed = known["run"], known["seed"]
                # a fork has another id, and its own exchange
                if documents.is_run(name) and name[:-13] == run_id and type(seed) is int and 0 <= seed < 2**63:
                    return name, seed
        seed = self.generator("workers").initial_seed() % 2**63
        place = f"{run_id} {self.driver.log_dir.absolute()} {time.time_ns()}"
        name = f"{run_id}-{hashlib.sha256(place.encode()).hexdigest()[:12]}"
        write_whole(path, json.dumps({"run": name, "seed": seed}) + "\n", durable=True)
        return name, seed

    def _send(
        self, desk: _Desk, requests: Mapping[str, Request], answers: LabelQueue, in_hand: dict[str, Request]
    ) -> None:
        """Put requests into the exchange; what it knows of an earlier time is left as it is."""
        known = desk.known()
        new = {name: one for name, one in requests.items() if name not in known}
        tasks, faults = self.tasks(desk, new)
        desk.put(tasks)
        for name, fault in faults.items():
            answers.put(Failed(in_hand.pop(name), fault, "infrastructure", 0.0))

    def tasks(self, desk: _Desk, requests: Mapping[str, Request]) -> tuple[dict[str, bytes], dict[str, str]]:
        """Return the tasks of requests, and why others can't be sent."""
        found: dict[str, bytes] = {}
        faults: dict[str, str] = {}
        contents = self._contents(list(requests.values()))
        for (name, request), content in zip(requests.items(), contents, strict=True):
            try:
                found[name] = documents.write(f"task {name}", content, desk.put_blob)
            except DocumentError as error:
                faults[name] = f"request {request.id[:8]} can't be sent to workers: {error}"
        return found, faults

    def _contents(self, requests: Sequence[Request]) -> list[dict[str, Any]]:
        pool: Any = self.driver.choice_pool
        samples = [as_sample_id(one.item) for one in requests]
        known = [one for one in samples if one is not None]
        values, inputs = named_values(pool, known), inputs_by_sample(pool, known)
        cost = getattr(pool, "cost", None)
        contents = []
        for request, sample in zip(requests, samples, strict=True):
            content: dict[str, Any] = {"slot": request.slot, "sample": sample, "has_inputs": is_choosable(pool)}
            if sample is None:
                content["item"] = request.item
            else:
                said = cost(sample) if callable(cost) else None
                content |= {
                    "values": values.get(sample, {}),
                    "input": inputs.get(sample),
                    "cost": None if said is None else float(said),
                }
            contents.append(content)
        return contents

    def _collect(self, desk: _Desk, in_hand: dict[str, Request], answers: LabelQueue) -> bool:
        """Deliver the answers that are there, and remove them once they are committed."""
        there = desk.answered()
        mine = [name for name in there if name in in_hand]
        for start in range(0, len(mine), _AT_ONCE):
            names = mine[start : start + _AT_ONCE]
            answers.put_many([desk.read_answer(name, in_hand[name]) for name in names])
            for name in names:
                del in_hand[name]
            desk.remove(names)
            self.driver.safe_point()
        step = self.driver.active_learning_step_idx  # of earlier steps: committed, and not removed any more
        desk.remove([name for name in there if name not in in_hand and name not in mine and _is_over(name, step, desk)])
        return bool(mine)


class _Desk:
    """The run's side of the exchange, as long as a labeling phase is under way.

    Parameters
    ----------
    exchange
        The exchange.
    identity
        The name of the run in it, and the seed of its workers.
    strategy
        The label strategy.
    """

    def __init__(self, exchange: Exchange, identity: tuple[str, int], strategy: WorkerLabelStrategy) -> None:
        self._exchange, self._strategy = exchange, strategy
        self._run, seed = identity
        self._note = documents.note(strategy.driver.run_id, seed)
        self._patience = Patience(strategy.logger, strategy.driver.safe_point, self._begin_again)
        self._missing: set[str] = set()
        self.removed: set[str] = set()
        self._began = time.monotonic()
        self._looked_for_lost = self._took_back = self._reachable_since = self._began
        self._looked_for_workers, self._told = -math.inf, False
        self._patience.call(self._begin)

    def _begin(self) -> None:
        self._exchange.begin(self._run, self._note)

    def _begin_again(self) -> None:
        self._begin()
        self._reachable_since = time.monotonic()

    def known(self) -> set[str]:
        return self._patience.call(lambda: self._exchange.known(self._run))

    def put(self, tasks: Mapping[str, bytes]) -> None:
        if tasks:
            self._patience.call(lambda: self._exchange.put(self._run, tasks))

    def put_blob(self, content: bytes) -> str:
        return self._patience.call(lambda: self._exchange.put_blob(self._run, content))

    def answered(self) -> list[str]:
        return self._patience.call(lambda: self._exchange.answered(self._run))

    def remove(self, names: Sequence[str]) -> None:
        if names:
            self._patience.call(lambda: self._exchange.remove(self._run, names))
            self.removed.update(names)

    def read_answer(self, name: str, request: Request) -> Label | Failed:
        """Return an answer; one that is damaged is a failure."""
        try:
            text = self._patience.call(lambda: self._exchange.read_answer(self._run, name))
            content = documents.read(
                text, lambda digest: self._patience.call(lambda: self._exchange.get_blob(self._run, digest))
            )
            return _answer(content, request)
        except DocumentError as error:
            return Failed(request, f"the answer of a worker can't be read: {error}", "infrastructure")

    def look_after(self, in_hand: dict[str, Request], answers: LabelQueue) -> None:
        """Now and then: take back what silent workers have, send again what is lost, and say where nobody works."""
        now = time.monotonic()
        silent_after, most_lost = self._strategy.limits
        # after an outage of the exchange, workers get as long as ever to be heard of
        if now - self._took_back > min(1.0, silent_after / 4) and now - self._reachable_since > silent_after:
            self._took_back = now
            given_up = self._patience.call(lambda: self._exchange.take_back(self._run, silent_after, most_lost))
            for name in given_up:
                if name in in_hand:
                    reason = f"{most_lost} workers fell silent while they worked on it"
                    answers.put(Failed(in_hand.pop(name), reason, "infrastructure"))
                self.remove([name])
        if now - self._looked_for_lost > _LOOK_FOR_LOST:
            self._looked_for_lost = now
            missing = set(in_hand) - self.known()
            lost = {name: in_hand[name] for name in missing & self._missing}
            self._missing = missing
            if lost:
                self._strategy.logger.warning("%d requests are lost in %s; sending them again", len(lost), self.where)
                self._patience.call(self._begin)
                self.put(self._strategy.tasks(self, lost)[0])
        if not self._told and now - self._began > _TELL_AFTER and now - self._looked_for_workers > 1.0:
            self._looked_for_workers = now  # again and again: a worker that was killed counts until it is found silent
            if not self._patience.call(lambda: self._exchange.workers(silent_after)):
                self._told = True
                self._strategy.logger.warning(
                    "%d requests wait in %s, and no worker is there; start one with: alcore worker %s --label NAME",
                    len(in_hand), self.where, self.where,
                )  # fmt: skip

    @property
    def where(self) -> str:
        return self._exchange.where


def _name_of(request: Request) -> str:
    return documents.task_name(request.step, request.ordinal, request.id, request.attempt)


def _is_over(name: str, step: int, desk: _Desk) -> bool:
    """Whether an answer that nobody waits for is one of an earlier step, or to a task that was answered before."""
    return documents.request_of(name)[0] < step or name in desk.removed


def _answer(content: Mapping[str, Any], request: Request) -> Label | Failed:
    kind, cost = content.get("kind"), content.get("cost")
    if cost is not None and not (isinstance(cost, int | float) and 0 <= cost <= sys.float_info.max):
        raise DocumentError(f"its cost is {cost!r:.40}")
    if kind == "label" and "value" in content:
        return Label(request, content["value"], str(content.get("source", ""))[:500], cost)
    if kind in FAILURE_KINDS:
        return Failed(request, str(content.get("reason", ""))[:2000] or "no reason was given", kind, cost)
    raise DocumentError(f"its kind is {kind!r:.40}")


def _refuse(fault: str) -> NoReturn:
    raise UsageError(f"WorkerLabelStrategy: {fault}.")
