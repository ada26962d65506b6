"""The label strategy whose requests are answered by workers on other machines."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from alcore.errors import UsageError
from alcore.pools import as_sample_id, cost_of, inputs_by_sample, is_choosable, named_values
from alcore.protocols import FAILURE_KINDS, Failed, Label, LabelQueue, QueryQueue, Request
from alcore.store import parse_json, write_whole
from alcore.strategies import BaseLabel
from alcore_worker import documents
from alcore_worker.exchange import Exchange, FullError
from alcore_worker.names import LONGEST_SILENCE, DocumentError, Note, is_run, request_of, task_name
from alcore_worker.opening import open_exchange
from alcore_worker.patience import Patience, sleep

_SHORTEST_WAIT = 0.01  # seconds between two looks for answers, doubled while there are none
_ATTEND = 5.0  # seconds between two signs that the driver lives
_ROOM_AGAIN = 2.0  # seconds before another try to send what the exchange had no room for
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
            if not 0 < seconds < LONGEST_SILENCE:
                _refuse(f"{name} is {seconds!r}; it must be a number of seconds above 0, and below 1e9")
        for name, number in {"most_lost": most_lost, "max_in_flight": max_in_flight}.items():
            if number < 1:
                _refuse(f"{name} is {number!r}; it must be a whole number of at least 1")
        self._answered: set[str] = set()  # ids of requests that have a label
        self._exchange: Exchange = open_exchange(where)
        self._silent_after, self._most_lost, self._most = silent_after, most_lost, max_in_flight
        self._longest_wait = longest_wait

    def label(self, queue_to_label: QueryQueue, serialize_queue: LabelQueue, *args: Any, **kwargs: Any) -> None:
        """Send each request, and put each answer as it comes."""
        if queue_to_label.empty():
            return
        hand = _Hand(serialize_queue, self._answered)
        try:
            desk = _Desk(self._exchange, self._identity(), self)
            wait = _SHORTEST_WAIT
            while True:
                room = self._most - len(hand.requests)
                taken = queue_to_label.get_many(room) if room > 0 and not queue_to_label.empty() else []
                hand.take(taken)
                self._send(desk, hand)
                if not hand.requests:
                    break
                collected = self._collect(desk, hand)
                desk.look_after(hand)
                self._heed_recall(desk, hand, queue_to_label)
                self._drop_told(desk, hand)
                if collected:
                    wait = _SHORTEST_WAIT
                elif not taken:
                    sleep(wait, self.driver.safe_point)
                    wait = min(2 * wait, self._longest_wait)
            desk.withdraw()
        except DocumentError as error:  # what is no document, such as a link in the place of a folder
            raise UsageError(f"{error}.") from error
        finally:
            for request in hand.requests.values():
                with contextlib.suppress(UsageError):  # it has been answered
                    queue_to_label.give_back(request)

    def _drop_told(self, desk: _Desk, hand: _Hand) -> None:
        """Forget the requests that were answered by somebody else: no worker is to begin them."""
        told = [_name_of(one) for one in self.driver.take_told()]
        for name in told:
            if name in hand.requests:
                hand.drop(name)
        desk.give_up(told)

    def _heed_recall(self, desk: _Desk, hand: _Hand, requests: QueryQueue) -> None:
        """Give back what is not to be begun any more, where no worker has begun it."""
        recalled = {_name_of(one): one for one in requests.recalled()}
        if not recalled:
            return
        sent = [name for name in recalled if name in hand.requests and name not in hand.unsent]
        desk.withdraw(sent)
        gone = set(sent) - desk.known()
        for name in [one for one in recalled if one in gone or one in hand.unsent]:
            requests.give_back(hand.requests[name])
            hand.drop(name)

    @property
    def limits(self) -> tuple[float, int]:
        """`silent_after` and `most_lost`."""
        return self._silent_after, self._most_lost

    def _identity(self) -> tuple[str, int]:
        """Return the name of the run in the exchange, and the seed of its workers; the same after a resume.

        A copy of the run's folder has an exchange of its own: the folder of the strategy is another one, at another
        place. One that was moved on its disk is still itself, and so is one that was restored in its place.
        """
        path = self.strategy_dir / "exchange.json"
        run_id = self.driver.run_id
        here = [socket.gethostname(), str(self.strategy_dir.absolute())]
        folder = self.strategy_dir.stat().st_ino
        if path.is_file() and not path.is_symlink():
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                known = parse_json(path.read_text("utf-8"))
                name, seed = known["run"], known["seed"]
                # a fork has another id, and its own exchange
                is_its_own = name[:-13] == run_id and (known["folder"] == folder or known["place"] == here)
                if is_run(name) and is_its_own and type(seed) is int and 0 <= seed < 2**63:
                    if known["folder"] != folder or known["place"] != here:
                        self._note_identity(name, seed, folder, here)
                    return name, seed
        seed = self.generator("workers").initial_seed() % 2**63
        place = f"{run_id} {here} {time.time_ns()}"
        name = f"{run_id}-{hashlib.sha256(place.encode()).hexdigest()[:12]}"
        self._note_identity(name, seed, folder, here)
        return name, seed

    def _note_identity(self, name: str, seed: int, folder: int, here: list[str]) -> None:
        content = {"run": name, "seed": seed, "folder": folder, "place": here}
        write_whole(self.strategy_dir / "exchange.json", json.dumps(content) + "\n", durable=True)

    def _send(self, desk: _Desk, hand: _Hand) -> None:
        """Put requests into the exchange that were not sent; what it knows of an earlier time is left as it is."""
        if not hand.unsent:
            return
        known = desk.known()
        desk.clear(known - hand.requests.keys())
        hand.sent(name for name in hand.unsent if name in known)
        if not desk.may_have_room():
            return
        # the label of an earlier attempt may be there, which was given up too early
        late = {request_of(name)[2] for name in known & set(desk.answered())} if hand.has_retries() else set()
        new = [(name, one) for name, one in hand.unsent.items() if one.id not in late]
        for start in range(0, len(new), _AT_ONCE):  # workers begin with the first ones
            some = dict(new[start : start + _AT_ONCE])
            try:
                tasks, faults = self.tasks(desk, some)
                desk.put(tasks)
            except FullError as error:
                desk.has_no_room(error)
                return
            hand.sent(some)
            for name, fault in faults.items():
                hand.fail([name], fault, 0.0)

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
        has_inputs = is_choosable(pool)
        contents = []
        for request, sample in zip(requests, samples, strict=True):
            content: dict[str, Any] = {"slot": request.slot, "sample": sample, "has_inputs": has_inputs}
            if sample is None:
                content["item"] = request.item
            else:
                content |= {
                    "values": values.get(sample, {}),
                    "input": inputs.get(sample),
                    "cost": cost_of(pool, sample),
                }
            contents.append(content)
        return contents

    def _collect(self, desk: _Desk, hand: _Hand) -> bool:
        """Deliver the answers that are there, and remove them once they are committed."""
        there = desk.answered()
        mine = [name for name in there if name in hand.requests]
        late = {name: found for name in there if name not in hand.requests and (found := hand.of_other_attempt(name))}
        for start in range(0, len(mine), _AT_ONCE):
            names = [name for name in mine[start : start + _AT_ONCE] if name in hand.requests]
            hand.deliver(desk.read_answers({name: hand.requests[name] for name in names}))
            desk.remove(names)
            self.driver.safe_point()
        for name, answer in desk.read_answers(late).items():
            # a label that is late was paid for all the same; a failure has another attempt already
            current = hand.of_other_attempt(name)
            if current is not None and isinstance(answer, Label):
                self.logger.info("request %s: the label of attempt %d came late", current.id[:8], request_of(name)[3])
                hand.deliver({_name_of(current): answer})
                desk.remove([name, _name_of(current)])
            else:
                desk.remove([name])
        step = self.driver.active_learning_step_idx
        seen = {*mine, *late}
        over = [name for name in there if name not in seen and self._is_over(name, step)]
        desk.remove(over)
        return bool(mine or late)

    def _is_over(self, name: str, step: int) -> bool:
        """Whether an answer that nobody waits for is to a request that has a label, or is one of an earlier step."""
        asked_in, _, request, _ = request_of(name)
        return request in self._answered or asked_in < step


class _Hand:
    """The requests that a labeling phase has taken out, and not answered yet.

    Parameters
    ----------
    answers
        The label queue.
    answered
        Ids of requests that have a label, or can't have one; it is added to.

    Attributes
    ----------
    requests, unsent : dict of str to Request
        Those in hand, and those of them that are not in the exchange yet, by the name of the task.
    """

    def __init__(self, answers: LabelQueue, answered: set[str]) -> None:
        self._answers, self._answered = answers, answered
        self.requests: dict[str, Request] = {}
        self.unsent: dict[str, Request] = {}
        self._by_id: dict[str, Request] = {}  # those in hand, and those that have failed and have no label since

    def take(self, requests: Sequence[Request]) -> None:
        """Add requests that were taken out."""
        for one in requests:
            self.requests[_name_of(one)] = self.unsent[_name_of(one)] = self._by_id[one.id] = one

    def drop(self, name: str) -> None:
        """Forget a request that was given back."""
        del self._by_id[self.requests.pop(name).id]
        self.unsent.pop(name, None)

    def sent(self, names: Iterable[str]) -> None:
        """Note that requests are in the exchange."""
        for name in list(names):
            self.unsent.pop(name, None)

    def has_retries(self) -> bool:
        """Tell whether an earlier attempt may have been made of one that is not sent."""
        return any(one.attempt for one in self.unsent.values())

    def of_other_attempt(self, name: str) -> Request | None:
        """Return the request that an answer to another attempt is for, as long as that has no label."""
        return self._by_id.get(request_of(name)[2])

    def deliver(self, answers: Mapping[str, Label | Failed]) -> None:
        """Put answers to requests, by name, in one transaction."""
        if not answers:
            return
        self._answers.put_many(list(answers.values()))
        for name, answer in answers.items():
            self.requests.pop(name, None)
            self.unsent.pop(name, None)
            if isinstance(answer, Label) or answer.kind == "infeasible":  # others are tried again, now or later
                key = request_of(name)[2]
                self._by_id.pop(key, None)
                self._answered.add(key)

    def fail(self, names: Iterable[str], reason: str, cost: float | None = None) -> None:
        """Report that requests have no label."""
        self.deliver({name: Failed(self.requests[name], reason, "infrastructure", cost) for name in names})


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
        self._note = Note(strategy.driver.run_id, seed, strategy.limits[0]).to_bytes()
        self._patience = Patience(strategy.logger, strategy.driver.safe_point, self._begin_again)
        self._missing: set[str] = set()
        self._began = time.monotonic()
        self._looked_for_lost = self._took_back = self._reachable_since = self._began
        self._looked_for_workers, self._told = -math.inf, False
        self._room_after, self._told_full = -math.inf, False
        self._attended = -math.inf
        self._is_cleared = False
        self._patience.call(self._begin)

    def _begin(self) -> None:
        self._exchange.begin(self._run, self._note)

    def _begin_again(self) -> None:
        self._begin()
        self._reachable_since = time.monotonic()

    def known(self) -> set[str]:
        return self._patience.call(lambda: self._exchange.known(self._run))

    def may_have_room(self) -> bool:
        """Tell whether to try to send: not at once after there was no room."""
        return time.monotonic() >= self._room_after

    def has_no_room(self, error: FullError) -> None:
        """Note that the exchange takes nothing more now; reading what is answered there makes room."""
        self._room_after = time.monotonic() + _ROOM_AGAIN
        if not self._told_full:
            self._told_full = True
            self._strategy.logger.warning("%s; requests are sent when there is room again", error)

    def put(self, tasks: Mapping[str, bytes]) -> None:
        """Add tasks; `FullError` where there is no room."""
        if tasks:
            self._patience.call(lambda: self._exchange.put(self._run, tasks), needs_room=True)
            self._told_full = False

    def put_blob(self, content: bytes) -> str:
        """Store arrays; `FullError` where there is no room."""
        return self._patience.call(lambda: self._exchange.put_blob(self._run, content), needs_room=True)

    def answered(self) -> list[str]:
        return self._patience.call(lambda: self._exchange.answered(self._run))

    def remove(self, names: Sequence[str]) -> None:
        if names:
            self._patience.call(lambda: self._exchange.remove(self._run, names))

    def withdraw(self, names: Sequence[str] | None = None) -> None:
        """Remove what waits and nobody needs any more: these, or all."""
        if names is None or names:
            self._patience.call(lambda: self._exchange.withdraw(self._run, names))

    def give_up(self, names: Sequence[str]) -> None:
        """Remove what nobody is to work on any more; an answer that is there, or comes late, stays."""
        if names:
            self._patience.call(lambda: self._exchange.give_up(self._run, names))

    def clear(self, unwanted: Iterable[str]) -> None:
        """Once: withdraw what was sent before the run was cut off, and was answered by somebody else since."""
        if not self._is_cleared:
            self._is_cleared = True
            self.withdraw(list(unwanted))

    def read_answers(self, requests: Mapping[str, Request]) -> dict[str, Label | Failed]:
        """Return answers by name; one that is damaged is a failure."""
        if not requests:
            return {}
        texts = self._patience.call(lambda: self._exchange.read_answers(self._run, list(requests)))
        return {name: self._read(texts.get(name, b""), request) for name, request in requests.items()}

    def _read(self, text: bytes, request: Request) -> Label | Failed:
        def get_blob(digest: str) -> bytes:
            return self._patience.call(lambda: self._exchange.get_blob(self._run, digest))

        try:
            if not text:
                raise DocumentError("it is a link or no regular file, or doesn't hold it")
            return _answer(documents.read(text, get_blob), request)
        except DocumentError as error:
            return Failed(request, f"the answer of a worker can't be read: {error}", "infrastructure")

    def look_after(self, hand: _Hand) -> None:
        """Now and then: take back what silent workers have, send again what is lost, and say where nobody works."""
        now = time.monotonic()
        silent_after, most_lost = self._strategy.limits
        if now - self._attended > _ATTEND:
            self._attended = now
            self._patience.call(lambda: self._exchange.attend(self._run))
        # after an outage of the exchange, workers get as long as ever to be heard of
        if now - self._took_back > min(1.0, silent_after / 4) and now - self._reachable_since > silent_after:
            self._took_back = now
            given_up = self._patience.call(lambda: self._exchange.take_back(self._run, silent_after, most_lost))
            if given_up:
                self.give_up(given_up)
                answered = set(self.answered())  # an answer that came at the last moment is taken, as others are
                hand.fail(
                    [name for name in given_up if name in hand.requests and name not in answered],
                    f"{most_lost} workers fell silent while they worked on it",
                )
        if now - self._looked_for_lost > _LOOK_FOR_LOST:
            self._looked_for_lost = now
            missing = set(hand.requests) - set(hand.unsent) - self.known()
            lost = {name: hand.requests[name] for name in missing & self._missing}
            self._missing = missing
            if lost:
                self._strategy.logger.warning("%d requests are lost in %s; sending them again", len(lost), self.where)
                self._patience.call(self._begin)
                hand.unsent |= lost
        if not self._told and now - self._began > _TELL_AFTER and now - self._looked_for_workers > 1.0:
            self._looked_for_workers = now  # again and again: a worker that was killed counts until it is found silent
            if not self._patience.call(lambda: self._exchange.workers(silent_after)):
                self._told = True
                self._strategy.logger.warning(
                    "%d requests wait in %s, and no worker is there; start one with: alcore worker %s --label NAME",
                    len(hand.requests), self.where, self.where,
                )  # fmt: skip

    @property
    def where(self) -> str:
        return self._exchange.where


def _name_of(request: Request) -> str:
    return task_name(request.step, request.ordinal, request.id, request.attempt)


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
