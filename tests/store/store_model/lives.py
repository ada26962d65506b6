"""The lives of a run: each begins with an opening and ends in some way; the model is always right."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import math
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from alcore.errors import RunLockedError
from alcore.protocols import Request
from alcore.store import checkpoints
from alcore.store.lock import is_locked
from alcore.store.rows import request_id
from alcore.store.run import RunStore
from store_model.plain import Asked, Model
from store_model.power import LEFTOVERS, PowerCut, leave_behind
from store_model.views import Onlooker, shown, tables
from store_model.writer import SAMPLES, Writer, cost_of, records_of, same_state, state_of

ID = "r1"


class DeadError(Exception):
    """The process that wrote to the run is no more."""


def scene(play: Callable[..., None]) -> Callable[..., None]:
    """Give a rule a living writer to begin with, and end it where that one dies."""

    @functools.wraps(play)
    def played(self: Lives, **drawn: Any) -> None:
        with contextlib.suppress(DeadError):
            if self.writer is None:
                self.open(("ask", "drop")[self.deaths % 2])
            play(self, **drawn)

    return played


class Lives(RuleBasedStateMachine):
    """One run and those who write to it.

    Each rule can be followed by each, so that a random choice of rules gets far: what one needs, it sees to first.

    Attributes
    ----------
    model
        What is committed.
    writer
        Who writes; None while nobody does.
    stale
        A writer beside which another one has opened the run, as where locks do not work; or None.
    inbox
        By file, what its answers do to the model once they are taken in.
    malformed
        The files that hold no answers.
    queue
        The requests that a label strategy has still to take out in this life.
    littered
        Whether files that the database does not name may lie in the folder of checkpoints.
    points
        About where each life ends, counted in points where one may; None where lives aren't cut short.
    """

    def __init__(self) -> None:
        super().__init__()
        self.power = PowerCut()
        self.temporary = tempfile.TemporaryDirectory()
        self.deaths = 0
        self.writer: Any = None
        self.stale: Any = None
        self.queue: list[tuple[int, int]] = []
        self.inbox: dict[str, list[Callable[[Model], Any]] | None] = {}
        self.malformed: set[str] = set()
        self.littered = False
        self.points: int | None = None
        self.loaded: dict[Path, Any] = {}

    @initialize(retries=st.integers(0, 2))
    def create(self, retries: int) -> None:
        self.model = Model(retries)
        first = state_of(0, "start", 0)
        store = RunStore.create(self.root, ID, meta=self.model.meta, experiment="", state=first)
        self.writer = Writer(store, retries)

    @property
    def root(self) -> Path:
        return Path(self.temporary.name) / str(self.deaths)

    @property
    def ckpt(self) -> Path:
        return self.root / ID / "ckpt"

    # -- how a life goes -------------------------------------------------------------------------------------

    def commit(self, act: Callable[[], Any], change: Callable[[Model], Any]) -> None:
        """Do something that is committed as a whole or not at all, or die meanwhile."""
        after = copy.deepcopy(self.model)
        change(after)
        try:
            self.live_through(act)
        finally:
            if self.writer is not None or self.power.commits:
                self.model = after

    def live_through(self, act: Callable[[], Any]) -> None:
        """Do something, or die meanwhile."""
        dead = Path(self.temporary.name) / str(self.deaths + 1) / ID
        with self.power.over(self.root / ID, dead):
            act()
        if dead.exists():
            self.die()

    def die(self) -> None:
        """Leave the next process what was kept for it."""
        for writer in (self.writer, self.stale):
            if writer is not None:
                writer.store.close()
        self.writer = self.stale = None
        self.deaths += 1
        self.littered = True
        raise DeadError

    def query(self, samples: list[int], inputs: int, figure: float) -> None:
        """Begin the labeling phase of a step."""
        step, queue, digest = self.model.step, self.writer.requests, f"model {self.model.step}"
        excluded = {request.item for request in self.model.asked} | set(range(SAMPLES, 99))
        asked: list[Asked] = []
        queue.begin(step, math.inf)
        for strategy, items in {"uq": samples, "gan": [f"input {step}.{n}" for n in range(inputs)]}.items():
            queue.begin_strategy(strategy, 1)
            queue.put_many(items, [place / 2 for place in range(len(items))])
            rank = 0
            for place, item in enumerate(items):
                if item not in excluded:
                    excluded.add(item)
                    at = (step, len(asked))
                    asked.append(Asked(at, item, strategy, place / 2, rank, digest, cost_of(item)))
                    rank += 1
        records = {("m", step, 0): {"f1": figure}}
        self.commit(
            lambda: self.writer.store.commit_query(step, queue.asked, records_of(records), digest),
            lambda model: model.query(digest, asked, records),
        )
        self.hand_out()

    def hand_out(self) -> None:
        """Take in what the inbox holds, and hand out what is open after that."""
        self.writer.begin_labeling(self.model.step)
        self.take_inbox()
        self.writer.hand_out(self.model.step)
        self.queue = [request.place for request in self.model.to_hand_out()]

    def take_one_out(self) -> tuple[int, int]:
        """Take a request out, as a label strategy does; return its place."""
        place, requests = self.queue[0], []

        def change(model: Model) -> None:
            one = model.at(place)
            one.taken = one.state == "open"

        self.commit(lambda: requests.append(self.writer.requests.get_request()), change)
        assert ((requests[0].step, requests[0].ordinal), requests[0].item) == (place, self.model.at(place).item)
        return self.queue.pop(0)

    def give_one_back(self, place: tuple[int, int]) -> None:
        """Give back a request that was taken out."""

        def change(model: Model) -> None:
            model.at(place).taken = False

        request = Request(request_id("r1", *place), *place, self.model.at(place).item)
        self.commit(lambda: self.writer.requests.give_back(request), change)
        self.queue.append(place)

    def submit(self, place: tuple[int, int], handle: str) -> None:
        """Note the name of the job that answers a request."""
        request = Request(request_id(ID, *place), 0, 0, None)

        def change(model: Model) -> None:
            model.at(place).handle = handle

        self.commit(lambda: self.writer.labels.submitted(request, handle), change)

    def publish(self, act: Callable[[], Any], changes: list[Callable[[Model], Any]]) -> None:
        """Publish answers to the inbox, or die before or after they are there."""
        try:
            self.live_through(act)
        finally:
            new = self._published() - set(self.inbox)
            self.inbox |= dict.fromkeys(new, changes)
            assert len(new) == 1 or self.writer is None

    def take_inbox(self) -> None:
        """Commit the answers of each file in the inbox and remove it, or die between any two of these."""
        models, state = [self.model], self.writer.state
        names = sorted(name for name, changes in self.inbox.items() if changes is not None)
        for name in names:
            models.append(copy.deepcopy(models[-1]))
            for change in self.inbox[name] or ():
                change(models[-1])
            if state is not None and name not in self.malformed:
                models[-1].label_strategy[self.model.step] = state
        try:
            self.live_through(self.writer.labels.take_inbox)
        finally:
            taken_in = len(names) if self.writer is not None else self.power.commits
            self.model, left = models[taken_in], self._published()
            assert left >= set(names[taken_in:]), "removed before its answers were committed"
            done = set(names[:taken_in])
            self.inbox = {
                name: None if name in done else changes for name, changes in self.inbox.items() if name in left
            }
            assert not (self.inbox and self.writer is not None)

    def _published(self) -> set[str]:
        return {path.name for path in (self.root / ID / "inbox").glob("[0-9]*.json")}

    def end_step(self, *, saved: bool, more: bool, between: Callable[[], None] = lambda: None) -> None:
        """End the labeling phase, and the step; what comes between the two is taken in at the next labeling phase."""
        step, store = self.model.step, self.writer.store
        self.take_inbox()
        self.commit(lambda: store.labels.end_labeling(step), lambda model: None)
        assert [shown(answer.item) for answer in self.writer.labels.close()] == self.model.brought()
        assert self.writer.labels.close() == []
        between()
        records = {("late", step, 0): {"size": 3.0}} if more else {}
        self.commit_step(step, {"step": step, "losses": {"loss": 0.5}}, records, saved=saved)

    def commit_step(self, step: int, record: dict[str, Any], records: dict[Any, Any], *, saved: bool) -> None:
        """Commit the end of a step, perhaps not for the first time."""
        seconds, state = {"training": 0.25}, state_of(step, "labeling", 0) if saved else None
        self.commit(
            lambda: self.writer.store.commit_step(step, record, seconds, records_of(records), state),
            lambda model: model.end_step(step, {**record, "seconds": seconds}, records, saved=saved),
        )

    # -- how it begins and ends ------------------------------------------------------------------------------

    def open(self, in_flight: str) -> None:
        """Begin the next life, and settle what was in flight when the last one ended."""
        opened: list[RunStore] = []
        self.live_through(lambda: opened.append(RunStore.open(self.root, ID)))
        self.littered = False
        self.writer, store = Writer(opened[0], self.model.retries), opened[0]
        drop_in = store.steps.last() if in_flight == "drop" else None
        change = Model.drop_in_flight if in_flight == "drop" else Model.settle
        self.commit(lambda: store.requests.release_in_flight(drop_in=drop_in), change)
        self.writer.candidates.mask(store.requests.samples(store.steps.last() + 1))
        self.queue = [request.place for request in self.model.to_hand_out()]
        if self.model.labeling:
            assert not store.labels.labeling(self.model.step).committed
            self.writer.requests.begin(self.model.step, math.inf)
            if store.labels.labeling(self.model.step).ended:
                self.commit(lambda: store.labels.reopen_labeling(), lambda model: None)
            self.hand_out()
        if self.points is not None:
            self.power.left = self.points + self.deaths % 5

    @rule(in_flight=st.sampled_from(["ask", "drop"]))
    def open_by_another_writer(self, in_flight: str) -> None:
        with contextlib.suppress(DeadError):
            if self.writer is None:
                self.open(in_flight)
            else:
                self.open_beside(in_flight)

    def open_beside(self, in_flight: str) -> None:
        """Open the run while another writer has it, as where locks do not work."""
        with pytest.raises(RunLockedError, match="run r1 is being written by"):
            RunStore.open(self.root, ID)
        if self.stale is not None:
            self.stale.store.close()
        self.stale, self.writer = self.writer, None
        (self.root / ID / "lock").unlink()
        self.open(in_flight)

    @rule(how=st.sampled_from(["closed", "done", "killed", *LEFTOVERS]), in_flight=st.integers(0, 2))
    @scene
    def end(self, how: str, in_flight: int) -> None:
        """Close the run, or leave what a process that is killed leaves; some requests may be in flight then."""
        for _ in range(min(in_flight, len(self.queue)) if self.model.labeling else 0):
            self.take_one_out()
        if how in ("closed", "done"):
            if how == "done":
                self._finish()
            self.close()
            return
        next_root = Path(self.temporary.name) / str(self.deaths + 1)
        shutil.copytree(self.root / ID, next_root / ID)
        if how in LEFTOVERS:
            leave_behind(next_root / ID, how)
        self.die()

    def _finish(self) -> None:
        store, records = self.writer.store, {("last", self.model.step, 0): 1.0}

        def change(model: Model) -> None:
            model.records = {**records, **model.records}
            model.meta |= {"status": "done"}

        self.commit(lambda: store.finish(records_of(records), status="done"), change)
        log = json.loads((store.folder / "driver_log.json").read_text())
        assert [log["status"], len(log["refused"])] == ["done", len(self.model.refused)]

    def close(self) -> None:
        self.writer.store.close()
        self.writer = None

    @rule(points=st.none() | st.integers(0, 9))
    def the_power_fails_again_and_again(self, points: int | None) -> None:
        """Let this life end after so many points where it may, and later ones after about as many; None: no more."""
        self.power.left = self.points = points

    # -- what always holds -----------------------------------------------------------------------------------

    @invariant()
    def others_read_what_the_model_says(self) -> None:
        with Onlooker(self.root / ID) as run:
            assert tables(run) == self.model.tables(writing=self.writer is not None)
            run.verify()
            self._check_checkpoints(run)
        assert is_locked(self.root / ID) == (self.writer is not None)

    def _check_checkpoints(self, run: Onlooker) -> None:
        """Each holds what was saved; a file that was found intact is read again when it is another one."""
        for row in run.checkpoints():
            saved, path = self.model.saved[row["file"]], self.ckpt / row["file"]
            status = path.stat()
            version = row["sha256"], status.st_ino, status.st_mtime_ns
            if self.loaded.get(path) != version:
                held = checkpoints.load(path, row["sha256"])
                assert same_state(held, state_of(saved.step, saved.phase, saved.epoch))
                assert row["bytes"] == status.st_size
                self.loaded[path] = version

    @invariant()
    def unnamed_files_are_gone_after_an_opening(self) -> None:
        assert self.littered or {path.name for path in self.ckpt.iterdir()} == set(self.model.saved)
        assert self.littered or len(list((self.root / ID / "labels").glob("*"))) <= 1

    @invariant()
    def inbox_holds_what_was_published_and_not_taken_in(self) -> None:
        assert self._published() == set(self.inbox)

    @precondition(lambda self: self.writer is not None)
    @invariant()
    def the_writer_knows_what_the_model_says(self) -> None:
        model, store, labels = self.model, self.writer.store, self.writer.labels
        ids = {request.place: request_id(ID, *request.place) for request in model.asked}
        state = store.labels.labeling(model.step - (not model.labeling))
        assert [(request.id, request.attempt, request.handle) for request in state.open] == [
            (ids[request.place], request.attempts, request.handle) for request in model.line
        ]
        assert [request.id for request in store.requests.in_flight()] == [
            ids[request.place] for request in model.asked if request.taken
        ]
        assert [store.costs.committed(), store.costs.committed(model.step)] == [model.spent(), model.spent(model.step)]
        if model.labeling:
            assert [shown(answer.item) for answer in state.accepted] == model.brought()
            assert not state.ended
            assert not state.committed
            assert store.labels.counts(model.step) == model.counts(model.step)
            assert [labels.qsize(), self.writer.requests.qsize()] == [len(model.brought()), len(self.queue)]

    def teardown(self) -> None:
        for writer in (self.writer, self.stale):
            if writer is not None:
                writer.store.close()
        self.power.patches.undo()
        self.temporary.cleanup()
