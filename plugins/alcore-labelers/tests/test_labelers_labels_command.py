"""``alcore labels``: what has no label, why, and asking for it again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from alcore import Driver
from alcore.protocols import Failed, Label
from alcore.store import Run


class Scripted:
    """Answers as it is told, by the ordinal of the request."""

    def __init__(self, **answers: Any) -> None:
        self.answers, self.asked = answers, []

    def attach(self, driver: Any) -> None:
        """Do nothing."""

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        while not queue_to_label.empty():
            request = queue_to_label.get_request()
            self.asked.append(request)
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


def test_requests_without_a_label_are_listed_with_the_reasons(command: Any, run: Run) -> None:
    out, _ = command("labels", "runs/r1")
    _, one, two = ids(run)
    lines = out.splitlines()
    assert [line.split()[1] for line in lines if line.split()[2:3] in (["9"], ["10"])] == [one[:12], two[:12]]
    assert "not one of the 2 classes 0 to 1" in out
    assert "failed" in out
    assert "the solver crashed" in out
    data = json.loads(command("labels", "runs/r1", "--json")[0])
    assert [request["state"] for request in data["requests"]] == ["failed", "failed"]


def test_suggested_command_opens_a_request_that_the_next_resume_hands_out(command: Any, build: Any, run: Run) -> None:
    out, _ = command("labels", "runs/r1")
    suggested = out.splitlines()[-1].split("alcore ")[1].split()
    assert " open " in command(*suggested)[0]
    command("labels", "runs/r1", "--reopen", ids(run)[2])
    labeler = Scripted()
    again: Driver = build(run_id="r1", label_strategy=labeler, max_active_learning_steps=2)
    again.restore()
    again.run()
    assert [(request.step, request.ordinal) for request in labeler.asked][:2] == [(0, 1), (0, 2)]
    assert command("labels", "runs/r1")[0] == "Every request of run r1 has its label.\n"


def test_request_that_cannot_be_opened_is_refused_with_the_reason(command: Any, run: Run) -> None:
    labeled, open_now, _ = ids(run)
    command("labels", "runs/r1", "--reopen", open_now)
    for words, reason in [
        (labeled, "has its label, and the training pool has taken it"),
        (open_now, "is open already; alcore resume"),
        ("zz", "has no request 'zz'"),
    ]:
        _, err = command("labels", "runs/r1", "--reopen", words, code=2)
        assert reason in err
    assert [request["state"] for request in run.requests()] == ["labeled", "open", "failed"]
