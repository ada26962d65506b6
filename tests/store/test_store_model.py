"""Whatever happens to a run, it holds what a plain model says: steps, answers, crashes, second writers, pruning."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test
from store_model.answers import Answers, Unstorable
from store_model.lives import scene
from store_model.plain import Saved
from store_model.writer import SAMPLES, state_of

from alcore.errors import EncodingError, StaleWriterError
from alcore.protocols import Request
from alcore.store.retention import Retention, parse_retention
from alcore.store.rows import Record, request_id

samples = st.lists(st.integers(0, SAMPLES + 1), min_size=1, max_size=6)
figures = st.sampled_from([0.5, 0.25, 0.75, math.nan])


class Store(Answers):
    """A run to which everything happens."""

    # -- a step ----------------------------------------------------------------------------------------------

    def be_training(self) -> None:
        if self.model.labeling:
            self.end_step(saved=True, more=False)

    @rule(samples=samples, inputs=st.integers(0, 2), figure=figures)
    @scene
    def begin_labeling(self, samples: list[int], inputs: int, figure: float) -> None:
        self.be_training()
        self.query(samples, inputs, figure)

    @rule(saved=st.booleans(), more=st.booleans())
    @scene
    def end_labeling(self, saved: bool, more: bool) -> None:
        self.be_labeling()
        self.end_step(saved=saved, more=more)

    @rule(last=st.integers(1, 4), saved=st.booleans(), figure=figures)
    @scene
    def replay(self, last: int, saved: bool, figure: float) -> None:
        """Compute the last steps again, as after a crash, but with another outcome."""
        for step in sorted(self.model.steps)[-last:]:
            records = {("m", step, 0): {"f1": figure}, ("late", step, 0): {"size": figure}}
            self.commit_step(step, {"step": step, "came": "out otherwise"}, records, saved=saved)

    @rule(epochs=st.lists(st.integers(0, 1), min_size=1, max_size=3))
    @scene
    def save_inside_training(self, epochs: list[int]) -> None:
        """Save some epochs, now and then one for the second time, as a replay does."""
        self.be_training()
        step = self.model.step
        for more in epochs:
            done = [
                checkpoint.epoch
                for checkpoint in self.model.saved.values()
                if (checkpoint.step, checkpoint.phase) == (step, "training")
            ]
            saved = Saved(step, "training", max(done, default=0) + more)
            state = state_of(step, "training", saved.epoch)
            self.commit(
                lambda saved=saved, state=state: self.writer.store.commit_checkpoint(
                    step, "training", saved.epoch, state
                ),
                lambda model, saved=saved: model.save(saved),
            )

    @rule(
        last=st.integers(1, 3),
        every=st.none() | st.integers(2, 3),
        best=st.sampled_from([None, "max", "min"]),
    )
    @scene
    def prune(self, last: int, every: int | None, best: str | None) -> None:
        rules = [f"last={last}", every and f"every={every}", best and f"best=f1:{best}"]
        keep = parse_retention(",".join(rule for rule in rules if rule))
        assert keep is not None
        self.commit(lambda: self.writer.store.prune(keep), lambda model: model.prune(last, every, best))

    # -- what is refused -------------------------------------------------------------------------------------

    @rule()
    @scene
    def what_cannot_be_stored_commits_nothing(self) -> None:
        store, step, bad = self.writer.store, self.model.step, {"x": Unstorable()}
        with pytest.raises(EncodingError):
            store.commit_checkpoint(step, "training", 99, bad)
        with pytest.raises(EncodingError):
            store.commit_step(step, {"step": step}, {}, [Record(step, "m", 1, bad)], None)
        with pytest.raises(EncodingError):
            store.finish([Record(step, "m", 1, 0.5), Record(step, "m", 2, bad)], status="done")

    @rule(
        what=st.sampled_from(["put", "take", "query", "inside", "step", "settle", "finish", "prune"]),
        ago=st.integers(-1, 2),
    )
    @scene
    def stale_writer_is_refused(self, what: str, ago: int) -> None:
        if self.stale is None:
            self.open_beside("ask")
        stale, step = self.stale, max(self.model.step - ago, 0)  # it may want names that are taken by now
        store, state = stale.store, {"model": {}, "at": "of a stale writer"}
        acts: dict[str, Callable[[], Any]] = {
            "put": lambda: (stale.begin_labeling(step), stale.labels.put_many([*range(SAMPLES), "words"])),
            "take": lambda: store.requests.mark_taken([Request(request_id("r1", 0, 0), 0, 0, 0)]),
            "query": lambda: store.commit_query(step, [], [Record(step, "m", 0, 0.5)], "other"),
            "inside": lambda: store.commit_checkpoint(step, "training", 1, state),
            "step": lambda: store.commit_step(step, {"step": step}, {}, [], state),
            "settle": lambda: store.requests.release_in_flight(drop_in=step),
            "finish": lambda: store.finish([Record(step, "m", 0, 0.5)], status="done"),
            "prune": lambda: store.prune(Retention()),
        }
        self.littered |= what in ("inside", "step")
        if what == "prune" and not copy.deepcopy(self.model).prune(1, None, None):
            return
        with pytest.raises(StaleWriterError, match="another process has opened this run"):
            acts[what]()


@pytest.mark.timeout(900)  # what fails is made small by playing it many times
def test_store_does_what_the_model_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """In several short searches, since a long one tries again and again what it tried first."""
    monkeypatch.setattr("alcore.store.lock._LOOKS", 1)  # no reader holds a lock for a moment here

    def begin() -> Store:
        return Store()

    for number in range(4):
        run_state_machine_as_test(
            seed(number)(begin),
            settings=settings(
                max_examples=12,
                stateful_step_count=40,
                deadline=None,
                database=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
