"""The lives of a run: each begins with an opening or a take-over and ends in some way; the model is always right."""

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

from alcore.errors import RunLockedError, UsageError
from alcore.store import checkpoints, history
from alcore.store.lock import is_locked
from alcore.store.run import RunStore, request_id
from store_model.plain import Asked, Model
from store_model.power import LITTER, PowerCut, leave_litter
from store_model.views import Onlooker, shown, tables
from store_model.writer import SAMPLES, Writer, cost_of, records_of, same_state, state_of

ID = "r1"
OWN = "mine.safetensors"  # a file of the user's in the folder of checkpoints


class DeadError(Exception):
    """The process that wrote to the run is no more."""


def scene(play: Callable[..., None]) -> Callable[..., None]:
    """Give a rule a living writer to begin with, and end it where that one dies."""

    @functools.wraps(play)
    def played(self: Lives, **drawn: Any) -> None:
        with contextlib.suppress(DeadError):
            if self.writer is None:
                self.open("ask")
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
        A writer that was taken over and doesn't know it yet; or None.
    queue
        The requests that a label strategy has still to take out in this life.
    littered
        Whether files that nobody names may lie in the folder of checkpoints.
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
        self.littered = False
        self.points: int | None = None
        self.loaded: dict[Path, Any] = {}

    @initialize(retries=st.integers(0, 2))
    def create(self, retries: int) -> None:
        self.model = Model(retries)
        first = state_of(0, "start", 0)
        store = RunStore.create(self.root, ID, meta=self.model.meta, experiment="", state=first)
        (self.ckpt / OWN).write_text("weights of mine")
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
            if self.writer is not None or self.power.committed:
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
        for one in (self.writer, self.stale):
            if one is not None:
                one.store.close()
        self.writer = self.stale = None
        self.deaths += 1
        self.littered = True
        raise DeadError

    def query(self, samples: list[int], inputs: int, figure: float) -> None:
        """Begin the labeling phase of a step."""
        step, queue, digest = self.model.step, self.writer.requests, f"model {self.model.step}"
        known = {one.item for one in self.model.asked} | set(range(SAMPLES, 99))
        asked: list[Asked] = []
        queue.begin(step, math.inf)
        for strategy, items in {"uq": samples, "gan": [f"input {step}.{n}" for n in range(inputs)]}.items():
            queue.asking(strategy)
            queue.put_many(items, [place / 2 for place in range(len(items))])
            rank = 0
            for place, item in enumerate(items):
                if item not in known:
                    known.add(item)
                    at = (step, len(asked))
                    asked.append(Asked(at, item, strategy, place / 2, rank, digest, cost_of(item)))
                    rank += 1
        records = {("m", step, 0): {"f1": figure}}
        self.commit(
            lambda: self.writer.store.commit_query(step, queue.asked, records_of(records), digest),
            lambda model: model.query(digest, asked, records),
        )
        self.writer.begin_labeling(step)
        self.queue = [one.place for one in self.model.line]

    def end_step(self, *, saved: bool, more: bool, between: Callable[[], None] = lambda: None) -> None:
        """End the labeling phase, and the step; what comes between the two counts in the next step."""
        step, store = self.model.step, self.writer.store
        assert [shown(item) for item in self.writer.labels.take()] == self.model.brought()
        assert self.writer.labels.take() == []
        self.model.late = 1
        between()
        self.commit(store.settle_doubts, Model.settle)
        records = {("late", step, 0): {"size": 3.0}} if more else {}
        self.commit_step(step, {"step": step, "losses": {"loss": 0.5}}, records, saved=saved)

    def commit_step(self, step: int, record: dict[str, Any], records: dict[Any, Any], *, saved: bool) -> None:
        """Commit the end of a step, perhaps not for the first time."""
        seconds, state = {"training": 0.25}, state_of(step, "labeling", 0) if saved else None
        self.keep_power_for(f"{step:06d}-labeling-000000.safetensors")
        self.commit(
            lambda: self.writer.store.commit_step(step, record, seconds, records_of(records), state),
            lambda model: model.end_step(step, {**record, "seconds": seconds}, records, saved=saved),
        )

    def keep_power_for(self, file: str) -> None:
        """Let nothing happen while a damaged file is replaced: it would be whole before the model is told so."""
        if file in self.model.saved and not self.model.saved[file].intact:
            self.power.left = None

    # -- how it begins and ends ------------------------------------------------------------------------------

    def open(self, doubt: str, *, take_over: bool = False) -> None:
        """Begin the next life, and settle what was in a label strategy's hands when the last one ended."""
        opened: list[RunStore] = []
        self.model.late = 0
        self.live_through(lambda: opened.append(RunStore.open(self.root, ID, take_over=take_over)))
        self.littered = False
        self.writer, store = Writer(opened[0], self.model.retries), opened[0]
        drop_in = history.last_step(store.database) if doubt == "drop" else None
        change = Model.drop_doubtful if doubt == "drop" else Model.settle
        self.commit(lambda: store.settle_doubts(drop_in=drop_in), change)
        self.writer.take_up()
        self.queue = [one.place for one in self.model.line]
        if self.points is not None:
            self.power.left = self.points + self.deaths % 5

    @rule(doubt=st.sampled_from(["ask", "drop"]))
    def reopen_or_take_over(self, doubt: str) -> None:
        with contextlib.suppress(DeadError):
            if self.writer is None:
                self.open(doubt)
            else:
                self.take_over(doubt)

    def take_over(self, doubt: str) -> None:
        """Begin a life beside that of a writer which can't be reached."""
        with pytest.raises(RunLockedError, match="run r1 is being written by"):
            RunStore.open(self.root, ID)
        if self.stale is not None:
            self.stale.store.close()
        self.stale, self.writer = self.writer, None
        self.open(doubt, take_over=True)

    @rule(how=st.sampled_from(["closed", "done", "killed", *LITTER]))
    @scene
    def end(self, how: str) -> None:
        """Close the run, or leave what a process that is killed leaves."""
        if how in ("closed", "done"):
            if how == "done":
                self._finish()
            self.close()
            return
        next_root = Path(self.temporary.name) / str(self.deaths + 1)
        shutil.copytree(self.root / ID, next_root / ID)
        if how in LITTER:
            leave_litter(next_root / ID, how)
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
            self._check_checkpoints(run)
        assert is_locked(self.root / ID) == (self.writer is not None)

    def _check_checkpoints(self, run: Onlooker) -> None:
        """Each holds what was saved; a file that was found intact is read again when it is another one."""
        for row in run.checkpoints():
            saved, path = self.model.saved[row["file"]], self.ckpt / row["file"]
            if not saved.intact:
                with pytest.raises(UsageError, match=r"damaged|can't be read"):
                    checkpoints.load(path, row["sha256"])
                continue
            found = path.stat()
            version = row["sha256"], found.st_ino, found.st_mtime_ns
            if self.loaded.get(path) != version:
                held = checkpoints.load(path, row["sha256"])
                assert same_state(held, state_of(saved.step, saved.phase, saved.epoch, saved.batches))
                assert row["bytes"] == found.st_size
                self.loaded[path] = version

    @invariant()
    def files_that_nobody_names_are_gone_after_an_opening(self) -> None:
        assert (self.ckpt / OWN).read_text() == "weights of mine"
        found = {path.name for path in self.ckpt.iterdir()} - {OWN}
        assert self.littered or found <= set(self.model.saved)

    @precondition(lambda self: self.writer is not None)
    @invariant()
    def the_writer_knows_what_the_model_says(self) -> None:
        model, store, labels = self.model, self.writer.store, self.writer.labels
        ids = {one.place: request_id(ID, *one.place) for one in model.asked}
        assert [(one.id, one.attempt) for one in store.open_requests()] == [
            (ids[one.place], one.attempts) for one in model.line
        ]
        assert [one.id for one in store.in_doubt()] == [ids[one.place] for one in model.asked if one.taken]
        assert [store.spent(), store.spent(model.step)] == [model.spent(), model.spent(model.step)]
        if model.labeling:
            delivered = history.delivered_in(store.database, model.step)
            assert [shown(one.item) for one in delivered] == model.brought()
            assert labels.counts == model.counts(model.step)
            assert [labels.qsize(), self.writer.requests.qsize()] == [len(model.brought()), len(self.queue)]

    def teardown(self) -> None:
        for one in (self.writer, self.stale):
            if one is not None:
                one.store.close()
        self.power.patches.undo()
        self.temporary.cleanup()
