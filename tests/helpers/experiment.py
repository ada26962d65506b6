"""Parts with all the state that a run can lose, and a way to cut the run off between any two things that they do."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from alcore import BaseLabel, BaseMetrology, BaseQuery, Failed, Label


class Cut(KeyboardInterrupt):
    """Ends a run as a kill would: nothing is saved."""


class Points:
    """Counts the places where a run could be cut, and cuts it at one of them (the first is 1)."""

    def __init__(self, cut_at: int | None = None) -> None:
        self.cut_at, self.passed = cut_at, 0

    def __call__(self) -> None:
        self.passed += 1
        if self.passed == self.cut_at:
            raise Cut


def no_point() -> None:
    """Stand for `Points` in a run that isn't cut."""


class Wandering(BaseQuery):
    """Asks for samples, and for generated inputs, by a count of its own and draws from every global generator.

    Parameters
    ----------
    point
        Called before and after.
    samples
        How many samples it asks for, call by call, from the beginning again when all were used.
    inputs
        The calls, from 1, in which it asks for a generated input too.
    """

    def __init__(
        self, point: Callable[[], None] = no_point, *, samples: Sequence[int] = (1,), inputs: Sequence[int] = ()
    ) -> None:
        self.point, self.samples, self.inputs, self.calls = point, samples, inputs, 0

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        self.point()
        wanted = self.samples[self.calls % len(self.samples)]
        self.calls += 1
        ids = torch.cat(list(self.driver.candidates()))
        for turn in range(wanted):
            draws = random.random() + float(np.random.random()) + float(torch.rand(()))
            query_queue.put(ids[int(1000 * draws * self.calls + turn) % len(ids)], score=draws)
        if self.calls in self.inputs:
            query_queue.put(torch.randn(2))
        self.point()

    def state_dict(self) -> Mapping[str, Any]:
        return {"calls": self.calls}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.calls = state["calls"]


class Paid(BaseLabel):
    """Answers one request after another, by a count of its own and draws; each answer is paid for first.

    Parameters
    ----------
    point
        Called before each request is taken.
    pay
        Called with a request when its answer is known and not delivered yet.
    fails
        Whether a request fails, so that it is tried once more.
    """

    idempotent = True

    def __init__(
        self,
        point: Callable[[], None] = no_point,
        pay: Callable[[Any], None] = lambda request: None,
        *,
        fails: Callable[[Any], bool] = lambda request: False,
    ) -> None:
        self.point, self.pay, self.fails, self.answers = point, pay, fails, 0

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        while not queue_to_label.empty():
            self.point()
            self.answer(queue_to_label.get_request(), serialize_queue)

    def answer(self, request: Any, serialize_queue: Any) -> None:
        """Deliver the answer to one request."""
        self.answers += 1
        draw = torch.rand((), generator=self.generator(f"{request.step}, {request.ordinal}"))
        value = int(2 * draw + self.answers % 2 > 1)
        self.pay(request)
        answer = Failed(request, "once more") if self.fails(request) else Label(request, value, "noise", 0.5)
        serialize_queue.put(answer)

    def state_dict(self) -> Mapping[str, Any]:
        return {"answers": self.answers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.answers = state["answers"]


class Smoothed(BaseMetrology):
    """Records a figure that depends on all of its past."""

    def __init__(self, point: Callable[[], None] = no_point) -> None:
        super().__init__()
        self.point, self.mean = point, 0.0

    def compute(self, *args: Any, **kwargs: Any) -> None:
        self.point()
        value = float(self.driver.infer(self.driver.train_datapool.inputs(torch.arange(40))).mean())
        self.mean = 0.5 * self.mean + 0.5 * value
        self.append_record(mean=self.mean, of=len(self.records))
        self.point()

    def state_dict(self) -> Mapping[str, Any]:
        return {"mean": self.mean}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.mean = state["mean"]
