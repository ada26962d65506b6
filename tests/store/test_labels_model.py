"""Random answers in random order against a plain in-memory model of what must be on the disk."""

from __future__ import annotations

import dataclasses
import math
import os
import queue
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from alcore.candidates import Candidates
from alcore.pools import TensorPool
from alcore.protocols import Failed, Label
from alcore.store.codec import loads
from alcore.store.labels import LabelQueue
from alcore.store.reading import Run
from alcore.store.requests import RequestQueue
from alcore.store.run import RunStore

SAMPLES = range(6)
places = st.integers(0, 4)
sources = st.sampled_from(["", "ann", "bob"])
classes = st.integers(0, 1)
costs = st.sampled_from([0.0, 1.0, 2.5])


@dataclasses.dataclass
class Slot:
    """What the model knows of one request."""

    item: Any
    state: str = "open"
    attempts: int = 0
    answer: Any = None  # as take() is to return it
    key: Any = None  # kind, source and value of the current answer
    cost: float = 1.0
    superseded: int = 0
    here: bool = False  # answered in this phase


class Answers(RuleBasedStateMachine):
    @initialize(
        order=st.permutations(SAMPLES),
        generated=st.integers(0, 2),
        retries=st.integers(0, 2),
    )
    def start(self, order: list[int], generated: int, retries: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.retries = retries
        pool = TensorPool(torch.zeros(8, 2), torch.zeros(8, dtype=torch.int64))
        self.store = RunStore.create(Path(self.folder.name) / "root", "r1", meta={}, experiment="", state={})
        self.store.database._connection.execute("PRAGMA synchronous = OFF")
        self.requests = RequestQueue(queue.Queue(), Candidates(pool), "r1", lambda item: 1.0)
        self.labels = LabelQueue(self.store, self.requests, pool.check, lambda item: 1.0, retries)
        items: list[Any] = [*order[: 5 - generated], *(f"input {one}" for one in range(generated))]
        self.requests.begin(0, math.inf)
        self.requests.put_many(items)
        self.store.commit_query(0, self.requests.asked, [], "m")
        self.slots = [Slot(item) for item in items]
        self.notes: list[int | None] = []
        self.counts = dict.fromkeys(("labelled", "failed", "refused", "repeated"), 0)
        self.begin()

    def begin(self) -> None:
        found = self.store.open_requests()
        self.requests.refill(found)
        self.step = getattr(self, "step", -1) + 1
        self.labels.begin(self.step, found)
        self.phase = [place for place, slot in enumerate(self.slots) if slot.state == "open"]
        self.counts = dict.fromkeys(self.counts, 0)
        for slot in self.slots:
            slot.here = False

    # -- the model -----------------------------------------------------------------------------------

    def refuse(self, place: int | None) -> None:
        self.counts["refused"] += 1
        self.notes.append(place)

    def answered(self, place: int | None, answer: Any, key: Any, cost: float) -> None:
        slot = None if place is None else self.slots[place]
        if slot is None or (slot.state != "open" and not slot.here):
            self.refuse(None)
        elif slot.state == "open":
            slot.state, slot.answer, slot.key, slot.cost, slot.here = "labelled", answer, key, cost, True
            self.counts["labelled"] += 1
        elif slot.key == key:
            self.counts["repeated"] += 1
            self.notes.append(place)
        elif slot.key[1] != key[1]:
            self.refuse(place)
        else:
            slot.superseded += 1
            slot.answer, slot.key, slot.cost = answer, key, cost

    def failed(self, place: int) -> None:
        slot = self.slots[place]
        if slot.state != "open":
            self.refuse(place if slot.here else None)
            return
        self.refuse(place)
        slot.attempts += 1
        if slot.attempts > self.retries:
            slot.state = "failed"
            self.counts["failed"] += 1

    def oldest_open(self) -> int | None:
        return next((place for place, slot in enumerate(self.slots) if slot.state == "open"), None)

    # -- what is put ---------------------------------------------------------------------------------

    def label(self, place: int, value: int, source: str, cost: float) -> Label:
        label = Label(self.slots[place].item, value, source, cost)
        self.answered(place, label, ("label", source, value), cost)
        return label

    def bare(self, item: int) -> int:
        """A bare integer: a sample of this phase, else nobody's, unless only generated inputs were asked for."""
        here = {self.slots[place].item: place for place in self.phase if type(self.slots[place].item) is int}
        if here:
            place = here.get(item)
            self.answered(place, item, ("id", "", None), 1.0)
        else:
            self.answered(self.oldest_open(), item, ("object", "", item), 1.0)
        return item

    def thing(self, value: Any) -> Any:
        self.answered(self.oldest_open(), value, ("object", "", value), 1.0)
        return value

    @rule(place=places, value=classes, source=sources, cost=costs)
    def put_label(self, place: int, value: int, source: str, cost: float) -> None:
        self.labels.put(self.label(place, value, source, cost))

    @rule(item=st.integers(0, 7))
    def put_id(self, item: int) -> None:
        self.labels.put(self.bare(item))

    @rule(value=st.sampled_from([(0.5, 1), "words", {"a": 1}]))
    def put_object(self, value: Any) -> None:
        self.labels.put(self.thing(value))

    @rule(place=places)
    def put_failure(self, place: int) -> None:
        self.labels.put(Failed(self.slots[place].item, "no"))
        self.failed(place)

    @rule(place=places, value=st.sampled_from([math.nan, 7, 0.5, "cat", (1, 0)]))
    def put_bad_value(self, place: int, value: Any) -> None:
        self.labels.put(Label(self.slots[place].item, value))
        self.failed(place)

    @rule(labels=st.lists(st.tuples(places, classes, sources, costs), max_size=5), item=st.integers(0, 7))
    def put_many(self, labels: list[tuple[int, int, str, float]], item: int) -> None:
        self.labels.put_many([*(self.label(*one) for one in labels), self.bare(item)])

    @precondition(lambda self: not self.requests.empty())
    @rule()
    def take_a_request_out(self) -> None:
        self.requests.get_request()

    @rule()
    def next_phase(self) -> None:
        expected = [slot.answer for slot in self.slots if slot.here]
        assert self.labels.take() == expected
        assert self.labels.take() == []
        self.begin()
        assert self.requests.qsize() == len(self.phase)

    # -- what another process sees -------------------------------------------------------------------

    @invariant()
    def the_disk_says_what_the_model_says(self) -> None:
        reader = Run(self.store.folder)
        rows = reader.requests()
        assert [row["state"] for row in rows] == [slot.state for slot in self.slots]
        assert [row["attempt"] for row in rows] == [slot.attempts for slot in self.slots]
        for row, slot in zip(rows, self.slots, strict=True):
            if slot.state == "labelled":
                value = None if row["value"] is None else loads(row["value"])
                assert ((row["kind"], row["source"], value), row["cost"]) == (slot.key, slot.cost)
            else:
                assert row["kind"] is None
        old = {row["request"]: row["n"] for row in reader.read(
            "SELECT request, COUNT(*) AS n FROM labels WHERE superseded = 1 GROUP BY request")}  # fmt: skip
        assert [old.get(row["id"], 0) for row in rows] == [slot.superseded for slot in self.slots]
        ids = [row["id"] for row in rows]
        assert [None if row["request"] is None else ids.index(row["request"]) for row in reader.refused()] == self.notes
        assert self.labels.counts == self.counts
        spent = sum({"open": 1.0, "failed": 0.0, "labelled": slot.cost}[slot.state] for slot in self.slots)
        assert self.store.spent() == spent

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()


@pytest.fixture(autouse=True)
def _no_flushing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here crashes a machine, and a failing example is made small by running it many times."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


TestAnswers = Answers.TestCase
TestAnswers.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
