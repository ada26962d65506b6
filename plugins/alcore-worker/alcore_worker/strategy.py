"""The label strategy whose requests are answered by workers on other machines."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from alcore.errors import UsageError
from alcore.pools import as_sample_id, cost_of, inputs_by_sample, is_choosable, named_values
from alcore.protocols import Label, LabelQueue, QueryQueue, Request
from alcore.store import parse_json, write_whole
from alcore.strategies import BaseLabel
from alcore_worker import documents
from alcore_worker.exchange import Exchange, FullError
from alcore_worker.monitor import Monitor
from alcore_worker.names import LONGEST_SILENCE, DocumentError, Note, is_run, request_of
from alcore_worker.open_requests import OpenRequests, name_of
from alcore_worker.opening import open_exchange
from alcore_worker.retry import sleep
from alcore_worker.run_tasks import RunTasks

_SHORTEST_WAIT = 0.01  # seconds between two looks for answers, doubled while there are none
_AT_ONCE = 256  # answers in one transaction, and tasks in one call


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
        requests = OpenRequests(serialize_queue, self._answered)
        try:
            tasks = self._tasks()
            monitor = Monitor(tasks, requests, self._silent_after, self._most_lost, self.logger)
            wait = _SHORTEST_WAIT
            while True:
                room = self._most - len(requests.by_name)
                taken = queue_to_label.get_many(room) if room > 0 and not queue_to_label.empty() else []
                requests.take(taken)
                self._send(tasks, requests)
                if not requests.by_name:
                    break
                collected = self._collect(tasks, requests)
                monitor.look()
                self._give_back_recalled(tasks, requests, queue_to_label)
                self._drop_told(tasks, requests)
                if collected:
                    wait = _SHORTEST_WAIT
                elif not taken:
                    sleep(wait, self.driver.safe_point)
                    wait = min(2 * wait, self._longest_wait)
            tasks.withdraw()
        except DocumentError as error:  # what is no document, such as a link in the place of a folder
            raise UsageError(f"{error}.") from error
        finally:
            for request in requests.by_name.values():
                with contextlib.suppress(UsageError):  # it has been answered
                    queue_to_label.give_back(request)

    def _tasks(self) -> RunTasks:
        run, seed = self._identity()
        note = Note(self.driver.run_id, seed, self._silent_after)
        return RunTasks(self._exchange, run, note, self.logger, self.driver.safe_point)

    def _drop_told(self, tasks: RunTasks, requests: OpenRequests) -> None:
        """Forget the requests that were answered by somebody else: no worker is to begin them."""
        told = [name_of(request) for request in self.take_told()]
        for name in told:
            if name in requests.by_name:
                requests.drop(name)
        tasks.give_up(told)

    def _give_back_recalled(self, tasks: RunTasks, requests: OpenRequests, queue: QueryQueue) -> None:
        """Give back what is not to be begun any more, where no worker has begun it."""
        recalled = {name_of(request): request for request in queue.recalled()}
        if not recalled:
            return
        sent = [name for name in recalled if name in requests.by_name and name not in requests.unsent]
        tasks.withdraw(sent)
        gone = set(sent) - tasks.known()
        for name in [key for key in recalled if key in gone or key in requests.unsent]:
            queue.give_back(requests.by_name[name])
            requests.drop(name)

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
                identity = parse_json(path.read_text("utf-8"))
                name, seed = identity["run"], identity["seed"]
                # a fork has another id, and its own exchange
                is_its_own = name[:-13] == run_id and (identity["folder"] == folder or identity["place"] == here)
                if is_run(name) and is_its_own and type(seed) is int and 0 <= seed < 2**63:
                    if identity["folder"] != folder or identity["place"] != here:
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

    def _send(self, tasks: RunTasks, requests: OpenRequests) -> None:
        """Put requests into the exchange that were not sent; what it knows of an earlier time is left as it is."""
        if not requests.unsent:
            return
        names_there = tasks.known()
        tasks.clear(names_there - requests.by_name.keys())
        requests.are_sent(name for name in requests.unsent if name in names_there)
        if not tasks.may_have_room():
            return
        # the label of an earlier attempt may be there, which was given up too early
        late = (
            {request_of(name)[2] for name in names_there & set(tasks.answered())} if requests.has_retries() else set()
        )
        new = [(name, request) for name, request in requests.unsent.items() if request.id not in late]
        for start in range(0, len(new), _AT_ONCE):  # workers begin with the first ones
            some = dict(new[start : start + _AT_ONCE])
            try:
                sendable, faults = self._documents(tasks, some)
                tasks.put(sendable)
            except FullError as error:
                tasks.has_no_room(error)
                return
            requests.are_sent(some)
            for name, fault in faults.items():
                requests.fail([name], fault, 0.0)

    def _documents(self, tasks: RunTasks, requests: Mapping[str, Request]) -> tuple[dict[str, bytes], dict[str, str]]:
        """Return the tasks of requests, and why others can't be sent."""
        written: dict[str, bytes] = {}
        faults: dict[str, str] = {}
        contents = self._contents(list(requests.values()))
        for (name, request), content in zip(requests.items(), contents, strict=True):
            try:
                written[name] = documents.write(f"task {name}", content, tasks.put_blob)
            except DocumentError as error:
                faults[name] = f"request {request.id[:8]} can't be sent to workers: {error}"
        return written, faults

    def _contents(self, requests: Sequence[Request]) -> list[dict[str, Any]]:
        pool: Any = self.driver.choice_pool
        samples = [as_sample_id(request.item) for request in requests]
        ids = [sample for sample in samples if sample is not None]
        values, inputs = named_values(pool, ids), inputs_by_sample(pool, ids)
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

    def _collect(self, tasks: RunTasks, requests: OpenRequests) -> bool:
        """Deliver the answers that are there, and remove them once they are committed."""
        there = tasks.answered()
        mine = [name for name in there if name in requests.by_name]
        others = [name for name in there if name not in requests.by_name]
        late = {name: attempt for name in others if (attempt := requests.of_other_attempt(name)) is not None}
        for start in range(0, len(mine), _AT_ONCE):
            names = [name for name in mine[start : start + _AT_ONCE] if name in requests.by_name]
            requests.deliver(tasks.read_answers({name: requests.by_name[name] for name in names}))
            tasks.remove(names)
            self.driver.safe_point()
        for name, answer in tasks.read_answers(late).items():
            # a label that is late was paid for all the same; a failure has another attempt already
            current = requests.of_other_attempt(name)
            if current is not None and isinstance(answer, Label):
                self.logger.info("request %s: the label of attempt %d came late", current.id[:8], request_of(name)[3])
                requests.deliver({name_of(current): answer})
                tasks.remove([name, name_of(current)])
            else:
                tasks.remove([name])
        step = self.driver.active_learning_step_idx
        seen = {*mine, *late}
        over = [name for name in there if name not in seen and self._is_over(name, step)]
        tasks.remove(over)
        return bool(mine or late)

    def _is_over(self, name: str, step: int) -> bool:
        """Whether an answer that nobody waits for is to a request that has a label, or is one of an earlier step."""
        asked_in, _, request, _ = request_of(name)
        return request in self._answered or asked_in < step


def _refuse(fault: str) -> NoReturn:
    raise UsageError(f"WorkerLabelStrategy: {fault}.")
