"""What a label strategy delivers: labels, corrections, failures, things that answer nothing, one by one and in bulk."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from alcore.protocols import Failed, Label, Request
from alcore.store.files import StorageError
from alcore.store.inbox import Inbox
from alcore.store.rows import request_id
from store_model.lives import Lives, scene
from store_model.plain import Model
from store_model.writer import SAMPLES


class Unstorable:
    """What no database can hold."""

    def __repr__(self) -> str:
        return "something that can't be stored"


LARGE = "many words" * 7000  # in a file of its own


def _value(words: Any) -> Any:
    return LARGE if words == "large" else words


which = st.integers(0, 5)
good = st.tuples(st.integers(0, 1), st.sampled_from(["ann", "ann", "bob", ""]), st.sampled_from([0.0, 1.0, 2.5]))
bad = st.sampled_from(
    [(math.nan, "", 1.0), (7, "", 1.0), (0.5, "ann", 1.0), ("cat", "", 1.0), ((1, 0), "", 1.0), (1, 3, 1.0),
     (1, "", -1.0), (1, "", math.inf), (1, "ann", "much")]
)  # fmt: skip
labels = st.tuples(st.just("label"), which, good, st.booleans())
corrections = st.tuples(st.just("label again"), which, good, st.booleans())
failures = st.one_of(
    st.tuples(st.just("failed"), which, good, st.booleans()),
    st.tuples(st.just("bad label"), which, bad, st.booleans()),
    st.tuples(st.just("bad object"), st.sampled_from([Unstorable(), math.nan, (1.0, math.inf)])),
)
things = st.one_of(
    st.tuples(st.just("bare"), which),
    st.tuples(st.just("bare again"), which),
    st.tuples(st.just("object"), st.sampled_from([(0.5, 1), "words", {"a": [1]}, "large"]).map(_value)),
    st.tuples(st.just("unasked"), st.sampled_from([99, "never asked for", Request("0" * 32, 0, 0, 1)]), good),
)
Answer = tuple[Any, Callable[[Model], Any]]
"""What is put, and what that does to the model."""


class Answers(Lives):
    """A run whose label strategy delivers all sorts of things."""

    def be_labeling(self) -> None:
        """Be in a labeling phase."""
        if not self.model.labeling:
            items = {request.item for request in self.model.asked}
            figure = (math.nan, 0.5, 0.75, 0.25)[self.model.step % 4]
            self.query([sample for sample in range(SAMPLES) if sample not in items][:3], 1, figure)

    @rule(
        fates=st.lists(st.sampled_from(["label", "label", "failed", "nothing"]), min_size=1, max_size=4),
        last_first=st.booleans(),
    )
    @scene
    def work(self, fates: list[str], last_first: bool) -> None:
        """Take requests out, then answer them, not all and not in their order."""
        self.be_labeling()
        taken = [(fate, self.take_one_out()) for fate in fates[: len(self.queue)]]
        for _, place in taken[::2]:
            self.submit(place, f"job {place} {last_first}")
        for fate, place in reversed(taken) if last_first else taken:
            if fate != "nothing":
                self._put_one(self._answer_to(fate, place, (place[1] % 2, "ann", 1.0), by_id=True))

    @rule(which=which)
    @scene
    def give_back(self, which: int) -> None:
        """Give back one of the requests that this life has taken out."""
        self.be_labeling()
        taken = [request for request in self.model.line if request.taken]
        if taken:
            one = taken[which % len(taken)]
            self.give_one_back(one.place)

    @rule(several=st.lists(labels, min_size=1, max_size=4))
    @scene
    def put_labels(self, several: list[tuple[Any, ...]]) -> None:
        self._put_each(several)

    @rule(several=st.lists(corrections, min_size=1, max_size=3))
    @scene
    def put_corrections(self, several: list[tuple[Any, ...]]) -> None:
        self._put_each(several)

    @rule(several=st.lists(failures, min_size=1, max_size=3))
    @scene
    def put_failures(self, several: list[tuple[Any, ...]]) -> None:
        self._put_each(several)

    @rule(several=st.lists(things, min_size=1, max_size=3))
    @scene
    def put_things(self, several: list[tuple[Any, ...]]) -> None:
        self._put_each(several)

    @rule(many=st.lists(labels | corrections | failures | things, max_size=6))
    @scene
    def put_many(self, many: list[tuple[Any, ...]]) -> None:
        self.be_labeling()
        put = [self._answer(*answer) for answer in many]
        self._put(lambda: self.writer.labels.put_many(item for item, _ in put), [change for _, change in put])

    @rule(many=st.lists(labels | corrections | failures | things, min_size=1, max_size=4))
    @scene
    def put_again_what_a_full_disk_refused(self, many: list[tuple[Any, ...]]) -> None:
        self.be_labeling()
        put = [self._answer(*answer) for answer in many]
        self.power.disk_is_full = True
        with pytest.raises(StorageError, match="disk is full"):
            self.writer.labels.put_many([item for item, _ in put])
        self.power.disk_is_full = False
        self._put(lambda: self.writer.labels.put_many([item for item, _ in put]), [change for _, change in put])

    @rule(saved=st.booleans(), late=st.lists(labels | corrections, min_size=1, max_size=3))
    @scene
    def put_late(self, saved: bool, late: list[tuple[Any, ...]]) -> None:
        """Put answers between the end of a labeling phase and the end of its step: they go to the inbox."""
        self.be_labeling()

        def put_each() -> None:
            for answer in late:
                item, change = self._answer(*answer)
                self.publish(lambda item=item: self.writer.labels.put(item), [change])

        self.end_step(saved=saved, more=False, between=put_each)

    @rule(answer=labels | corrections | failures)
    @scene
    def another_process_publishes(self, answer: tuple[Any, ...]) -> None:
        self.another_process_publishes_one(answer)

    def another_process_publishes_one(self, answer: tuple[Any, ...]) -> None:
        """Publish an answer that names its request."""
        if self.model.asked and answer[0] != "bad object":
            item, change = self._answer(*answer)
            self.publish(lambda: Inbox(self.root / "r1" / "inbox").publish([item]), [change])

    @rule(several=st.lists(labels | failures, min_size=1, max_size=3), points=st.integers(0, 5))
    @scene
    def power_fails_while_the_inbox_is_taken_in(self, several: list[tuple[Any, ...]], points: int) -> None:
        self.be_labeling()
        for answer in several:
            self.another_process_publishes_one(answer)
        self.power.left = points
        self.hand_out()
        self.power.left = None

    @rule(text=st.sampled_from(["", "{", '{"format":2}', '{"format":1,"answers":[{"kind":"value"}]}']))
    @scene
    def another_program_puts_a_malformed_file(self, text: str) -> None:
        path = Inbox(self.root / "r1" / "inbox").publish([])
        path.write_text(text)
        self.inbox[path.name] = [lambda model: model.refuse(None, path.name)]
        self.malformed.add(path.name)

    @rule(many=st.lists(labels | failures, max_size=2))
    @scene
    def put_many_breaks_off(self, many: list[tuple[Any, ...]]) -> None:
        """What a generator gave before it raised is committed."""
        self.be_labeling()
        put = [self._answer(*answer) for answer in many]

        def items() -> Iterator[Any]:
            yield from [item for item, _ in put]
            raise ConnectionError("nobody there")

        def break_off() -> None:
            with pytest.raises(ConnectionError):
                self.writer.labels.put_many(items())

        if put:
            self._put(break_off, [change for _, change in put])
        else:
            break_off()

    def _put_each(self, several: list[tuple[Any, ...]]) -> None:
        self.be_labeling()
        for answer in several:
            self._put_one(self._answer(*answer))

    def _put_one(self, answer: Answer) -> None:
        self._put(lambda: self.writer.labels.put(answer[0]), [answer[1]])

    def _put(self, act: Callable[[], None], changes: list[Callable[[Model], Any]]) -> None:
        before, self.writer.state = len(self.model.again), f"{len(self.model.order)} {len(self.model.refused)}"

        def change(model: Model) -> None:
            for change in changes:
                change(model)
            model.label_strategy[model.step] = self.writer.state

        self.commit(act, change)
        open_now = {request.place for request in self.model.line}
        once = dict.fromkeys([*self.queue, *self.model.again[before:]])  # one that waits still is not put up twice
        self.queue = [place for place in once if place in open_now]

    def _answer(self, kind: str, *details: Any) -> Answer:
        """Return what is put, and what that does to the model."""
        if kind == "object":
            return details[0], lambda model: model.object(details[0])
        if kind == "bad object":
            thing, note = details[0], details[0] if type(details[0]) is not Unstorable else repr(details[0])
            return thing, lambda model: model.bad(model.oldest(), note)
        if kind == "unasked" or not self.model.asked:
            item, label = details if kind == "unasked" else (99, (1, "", 1.0))
            return Label(item, *label), lambda model: model.refuse(None, _noted(item, *label[:2]))
        place = self.model.pick(details[0], answered="again" in kind).place
        if kind.startswith("bare"):
            asked = self.model.at(place).item
            sample = asked if type(asked) is int else 99
            return sample, lambda model: model.bare(sample)
        return self._answer_to(kind, place, details[1], by_id=details[2])

    def _answer_to(self, kind: str, place: tuple[int, int], label: tuple[Any, ...], *, by_id: bool) -> Answer:
        asked = self.model.at(place).item
        item = Request(request_id("r1", *place), *place, asked) if by_id else asked
        if kind == "failed":
            return Failed(item, "no"), lambda model: model.fail(model.at(place), _noted(item))
        put, note = Label(item, *label), _noted(item, *label[:2])
        if kind == "bad label":
            return put, lambda model: model.bad(model.at(place), note, label[2])
        return put, lambda model: model.answer(model.at(place), "label", *label, note)


def _noted(item: Any, *value_and_source: Any) -> dict[str, Any]:
    """Return how an answer is noted that is not taken."""
    named = item.id if isinstance(item, Request) else item
    return {"item": named, **dict(zip(("value", "source"), value_and_source, strict=False))}
