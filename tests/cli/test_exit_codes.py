"""What ``alcore run`` and ``alcore resume`` exit with, by the reason for which a run ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from alcore.store.reading import Run

LABS = """
from alcore import Failed
from alcore.strategies import BaseLabel


class Lab(BaseLabel):
    idempotent = True

    def label(self, queue_to_label, serialize_queue, *args, **kwargs):
        while not queue_to_label.empty():
            request = queue_to_label.get_request()
            serialize_queue.put(self.answer(request))


class Broken(Lab):
    def answer(self, request):
        return Failed(request, "the node is down")


class Choosy(Lab):
    def answer(self, request):
        return request.item if request.ordinal % 2 else Failed(request, "no such shape", "infeasible")


class Late(BaseLabel):
    def label(self, queue_to_label, serialize_queue, *args, **kwargs):
        pass
"""
START = ("--start", "random", "--set", "start.random.max_samples=6", "--set", "data.moons.initial=0")


@pytest.fixture
def labs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "labs.py").write_text(LABS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("labs")
@pytest.mark.parametrize("output", [[], ["--json"], ["--quiet"]], ids=str)
def test_run_whose_labels_keep_failing_exits_with_1_and_keeps_what_it_has(
    command: Callable[..., tuple[str, str]], tmp_path: Path, output: list[str]
) -> None:
    words = ["run", "--label", "labs:Broken", "--steps", "3", "--run-id", "r", *output]
    out, err = command(*words, code=1)
    message = "alcore: error: labels keep failing: 5 of the last 5 answers were failures"
    assert message in err
    assert "What was gathered is in" in err
    assert "alcore resume" in err
    assert "Traceback" not in err
    if "--json" in output:
        assert json.loads(out)["reason"].startswith("labels keep failing")
    else:
        assert "active_learning_logs" in out
    run = Run(tmp_path / "active_learning_logs" / "r")
    assert [run.meta()["status"], len(run.steps()), len(run.refused())] == ["failed", 1, 5]
    _, err = command("resume", "r", "--allow-code", code=1)  # tried once more, and the cause is not fixed
    assert message in err
    assert len(run.refused()) > 5


@pytest.mark.usefixtures("labs")
def test_run_in_which_some_items_cannot_be_labeled_exits_with_0(command: Callable[..., tuple[str, str]]) -> None:
    out, err = command("run", "--label", "labs:Choosy", "--steps", "2", code=0)
    assert "requests could not be labeled" in out
    assert "error" not in err


@pytest.mark.usefixtures("labs")
def test_run_that_waits_for_its_first_labels_exits_with_3(command: Callable[..., tuple[str, str]]) -> None:
    out, err = command("run", "--label", "labs:Late", "--steps", "3", "--run-id", "r", *START, code=3)
    assert "Nothing is labeled yet, and the requests of the start are open." in out
    assert "alcore ask r --out FILE.csv" in out
    assert "error" not in err
    _, err = command("resume", "r", "--allow-code", "--quiet", code=3)
    assert "alcore: nothing is labeled yet, and the requests of the start are open; once answers are told" in err
