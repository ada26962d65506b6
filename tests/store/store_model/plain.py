"""What a run must hold after whatever happened to it, in plain lists and dicts: no files, no transactions, no crashes.

Nothing here is taken from `alcore.store`; where the two differ, one of them is wrong.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

FIRST = "initial.safetensors"
_CURRENT = ("kind", "source", "value", "cost")
Place = tuple[int, int]
"""A request: its step, and its place among the requests of that step."""


@dataclasses.dataclass
class Asked:
    """A request and what came of it; ``answers`` are rows of the table of labels, the current one last."""

    place: Place
    item: Any
    strategy: str
    score: float | None
    rank: int
    model: str
    cost: float
    state: str = "open"
    attempts: int = 0
    refused: int = -1
    """The last step in which an answer to it was refused."""
    taken: bool = False
    closed: int | None = None
    handle: str | None = None
    answers: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes two answers the same: kind, source and value."""
        return tuple(self.answers[-1][name] for name in ("kind", "source", "value"))


@dataclasses.dataclass
class Saved:
    """A checkpoint that the database names."""

    step: int
    phase: str
    epoch: int

    @property
    def file(self) -> str:
        """Its name."""
        return FIRST if self.phase == "start" else f"{self.step:06d}-{self.phase}-{self.epoch:06d}.safetensors"

    @property
    def age(self) -> tuple[Any, ...]:
        """Its place among the others: the first one before a step, the end of a step after its training."""
        return self.phase != "start", self.step, self.phase == "labeling", self.epoch


class Model:
    """All that is committed.

    Parameters
    ----------
    retries
        How often a request that failed is tried again.
    """

    def __init__(self, retries: int) -> None:
        self.retries = retries
        self.asked: list[Asked] = []
        self.line: list[Asked] = []  # the open ones, as they are handed out when the phase is taken up again
        self.phase: list[Asked] = []  # those that were open when it began
        self.order: list[dict[str, Any]] = []  # answers as they arrived
        self.paid: list[tuple[int, float]] = []
        """What was paid in which step for answers that are no labels."""
        self.failures: list[int] = []
        """The steps in which a failure was reported, or what was in doubt was dropped."""
        self.refused: list[tuple[Any, ...]] = []  # step, place, what was put, whether it is a repeat
        self.records: dict[tuple[str, int, int], Any] = {}
        self.steps: dict[int, dict[str, Any]] = {}
        self.queries: dict[int, str] = {}
        self.saved: dict[str, Saved] = {FIRST: Saved(0, "start", 0)}
        self.meta: dict[str, Any] = {"seed": 3, "status": "running"}
        self.label_strategy: dict[int, str] = {}  # its state after the last answer of each step
        self.again: list[Place] = []  # requests that were handed out once more, each time
        self.step, self.labeling = 0, False

    def at(self, place: Place) -> Asked:
        """Return the request at a place."""
        return next(request for request in self.asked if request.place == place)

    def pick(self, n: int, *, answered: bool) -> Asked:
        """Return one of the requests: for small `n` an open one, or one that was answered lately."""
        closed = [request for request in reversed(self.asked) if request.state != "open"]
        order = [*closed, *self.line] if answered else [*self.line, *closed]
        return order[n % len(order)]

    # -- a step ----------------------------------------------------------------------------------------------

    def query(self, model: str, asked: list[Asked], records: dict[tuple[str, int, int], Any]) -> None:
        """Begin a labeling phase with what is new and what was left open."""
        self.records |= records
        self.queries[self.step] = model
        self.asked += asked
        self.line = sorted([*self.line, *asked], key=lambda one: one.place)
        self.phase, self.labeling = [*self.line], True

    def settle(self) -> None:
        """No request is in flight any more."""
        for request in self.asked:
            request.taken = False

    def drop_in_flight(self) -> None:
        """Give up what was in flight when the run was cut off, in the last step of which anything is committed."""
        step = max([*self.steps, *self.queries], default=0)
        for request in [request for request in self.asked if request.taken]:
            self.refused.append((step, request.place, repr(None), False))
            self.failures.append(step)
            self._give_up(request, step)
        self.settle()

    def end_step(
        self, step: int, record: dict[str, Any], records: dict[tuple[str, int, int], Any], *, saved: bool
    ) -> None:
        """Commit the end of a step, once more perhaps: what is on record stands."""
        self.records = {**records, **self.records}
        if saved:
            self.save(Saved(step, "labeling", 0))
        self.steps.setdefault(step, record)
        if step == self.step:
            self.step, self.labeling = step + 1, False

    def save(self, checkpoint: Saved) -> None:
        """Name a checkpoint; one of this name is replaced by the same."""
        self.saved[checkpoint.file] = checkpoint

    # -- answers -------------------------------------------------------------------------------------------

    def here(self, one: Asked) -> bool:
        """Return whether a request was answered in this phase, so that its answer may still be corrected."""
        return one.state == "labeled" and one.closed == self.step

    def answer(self, one: Asked | None, kind: str, value: Any, source: str, cost: float, shown: Any) -> None:
        """Take an answer in, for the request that it names."""
        if one is None or not (one.state == "open" or self.here(one)):
            self.refuse(None, shown)
            return
        if one.state == "labeled":
            if one.key == (kind, source, value):
                self.refuse(one, shown, repeat=True)
                return
            if one.key[1] != source:
                self.refuse(one, shown)
                return
            one.answers[-1]["superseded"] = True
        else:
            one.state, one.closed, one.taken = "labeled", self.step, False
            self.line.remove(one)
        one.answers.append(
            {"place": one.place, "step": self.step, "source": source, "attempt": one.attempts, "kind": kind,
             "value": value, "cost": cost, "superseded": False}
        )  # fmt: skip
        self.order.append(one.answers[-1])

    def fail(self, one: Asked | None, shown: Any) -> None:
        """Count an attempt that was reported as a failure."""
        if one is not None and one.state == "open":
            self.failures.append(self.step)
        self.bad(one, shown)

    def bad(self, one: Asked | None, shown: Any, cost: Any = None) -> None:
        """Count an attempt; the request goes to the end of the line to be handed out again, or is given up.

        What it cost is what it says, if that is a cost; else what was expected.
        """
        if one is None or not (one.state == "open" or self.here(one)):
            self.refuse(None, shown)
            return
        self.refuse(one, shown)
        if one.state == "labeled":
            return
        said = isinstance(cost, float) and 0 <= cost < math.inf
        self.paid.append((self.step, cost if said else one.cost))
        one.attempts, one.taken, one.refused, one.handle = one.attempts + 1, False, self.step, None
        self.line.remove(one)
        self.line.append(one)
        if one.attempts > self.retries:
            self._give_up(one)
        else:
            self.again.append(one.place)

    def to_hand_out(self) -> list[Asked]:
        """Return the open requests that a phase which begins or goes on hands out."""
        return [
            request
            for request in self.line
            if not request.taken and (request.refused < self.step or request.attempts <= self.retries)
        ]

    def refuse(self, one: Asked | None, shown: Any, *, repeat: bool = False) -> None:
        """Keep aside what is not taken."""
        place = None if one is None else one.place
        self.refused.append((self.step, place, repr(shown), repeat))

    def oldest(self) -> Asked | None:
        """Return the request that an answer which names none is for: the first one that is handed out."""
        return next(iter(self.line), None)

    def bare(self, sample: int) -> None:
        """Take in a bare integer: the id of a sample, unless the run has only asked for inputs."""
        if not any(type(request.item) is int for request in self.asked):
            self.object(sample)
            return
        samples = {request.item: request for request in self.phase if type(request.item) is int}
        one = samples.get(sample)
        self.answer(one, "id", None, "", 0.0 if one is None else one.cost, sample)

    def object(self, value: Any) -> None:
        """Take in what names no request: the answer to the oldest one."""
        one = self.oldest()
        self.answer(one, "object", value, "", 0.0 if one is None else one.cost, value)

    def _give_up(self, one: Asked, step: int | None = None) -> None:
        one.state, one.closed = "failed", self.step if step is None else step
        self.line.remove(one)

    # -- what follows from it ------------------------------------------------------------------------------

    def tables(self, *, writing: bool) -> dict[str, Any]:
        """Return what another process reads; ``writing`` says whether the run has a writer."""
        records: dict[str, list[Any]] = {}
        for (strategy, _, _), value in sorted(self.records.items(), key=lambda one: one[0]):
            records.setdefault(strategy, []).append(value)
        stopped = {"status": "stopped"} if not writing and self.meta["status"] == "running" else {}
        return {
            "requests": [
                {
                    **{
                        name: getattr(request, name)
                        for name in ("place", "item", "strategy", "score", "rank", "model", "handle")
                    },
                    "attempt": request.attempts,
                    "state": request.state,
                    **{name: request.answers[-1][name] if request.answers else None for name in _CURRENT},
                }
                for request in self.asked
            ],
            "taken": {request.place for request in self.asked if request.taken},
            "answers": self.order,
            "refused": self.refused,
            "records": repr(records),
            "steps": [self.steps[step] for step in sorted(self.steps)],
            "queries": self.queries,
            "checkpoints": [
                (file, self.saved[file].step, self.saved[file].phase, self.saved[file].epoch) for file in self.files()
            ],
            "meta": self.meta | stopped,
            "label_strategy": self.label_strategy,
        }

    def brought(self) -> list[Any]:
        """Return what the training pool is to append at the end of this phase."""
        items = []
        for request in self.asked:
            if self.here(request):
                kind, source, value = request.key
                label = ("label", request.item, value, source, request.answers[-1]["cost"])
                items.append({"id": request.item, "object": value, "label": label}[kind])
        return items

    def spent(self, before: float = math.inf) -> float:
        """Return what labels cost, and open requests will, as it was known at the query phase of a step."""
        total = 0.0
        for request in self.asked:
            if request.place[0] < before:
                settled = request.closed is not None and request.closed < before
                paid = request.answers[-1]["cost"] if request.answers else 0.0
                total += paid if settled else request.cost
        return total + sum(paid for step, paid in self.paid if step < before)

    def counts(self, step: int) -> dict[str, int]:
        """Return how many requests a phase settled, and how many answers it did not take."""
        closed = [request.state for request in self.asked if request.closed == step]
        repeats = [repeat for when, _, _, repeat in self.refused if when == step]
        return {
            "labeled": closed.count("labeled"),
            "failed": closed.count("failed"),
            "refused": repeats.count(False) - self.failures.count(step),
            "repeated": repeats.count(True),
        }

    # -- checkpoints ---------------------------------------------------------------------------------------

    def files(self) -> list[str]:
        """Return the names of checkpoints, oldest first."""
        return sorted(self.saved, key=lambda file: self.saved[file].age)

    def prune(self, last: int, every: int | None, best: str | None) -> list[str]:
        """Drop what no rule wants; ``best`` is "max" or "min" of the figure that the records hold."""
        files = self.files()
        ends = {self.saved[file].step: file for file in files if self.saved[file].phase == "labeling"}
        scores = {step: self.records.get(("m", step, 0), {"f1": math.nan})["f1"] for step in ends}
        scores = {step: score for step, score in scores.items() if math.isfinite(score)}
        if best and not scores:
            return []
        kept = {files[0], *files[-last:]}
        kept |= {file for step, file in ends.items() if every and (step + 1) % every == 0}
        if best:
            top = {"max": max, "min": min}[best](scores.values())
            kept.add(ends[min(step for step, score in scores.items() if score == top)])
        dropped = [file for file in files if file not in kept]
        for file in dropped:
            del self.saved[file]
        return dropped
