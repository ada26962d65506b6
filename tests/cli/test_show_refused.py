"""``alcore show --refused``: the answers that a run refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from alcore.driver import Driver
from alcore.protocols import Failed, Label
from alcore.store.reading import Run


class Scripted:
    """Answers as it is told, by the ordinal of the request."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers

    def attach(self, driver: Any) -> None:
        """Do nothing."""

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        while not queue_to_label.empty():
            request = queue_to_label.get_request()
            answer = self.answers.get(f"r{request.ordinal}", 1)
            serialize_queue.put(Failed(request, "the solver crashed") if answer is None else Label(request, answer))


@pytest.fixture
def run(command: Any, build: Any, tmp_path: Any) -> Run:
    """A run of one step: a label, a bad answer, and a failure."""
    driver: Driver = build(run_id="r1", label_strategy=Scripted(r1=7, r2=None), max_active_learning_steps=1)
    driver.run()
    return Run(driver.log_dir)


def ids(run: Run) -> list[str]:
    return [request["id"] for request in run.requests()]


def test_refused_answers_are_shown(command: Any, run: Run) -> None:
    out, _ = command("show", "runs/r1", "--refused")
    assert "not one of the 2 classes 0 to 1" in out
    data = json.loads(command("show", "runs/r1", "--refused", "--json")[0])
    assert [refusal["request"] for refusal in data["refused"]] == ids(run)[1:]


def test_run_without_refused_answers_says_so(command: Any, build: Any) -> None:
    driver: Driver = build(run_id="r1", max_active_learning_steps=1)
    driver.run()
    assert command("show", "runs/r1", "--refused")[0] == "Run r1 refused no answer.\n"
