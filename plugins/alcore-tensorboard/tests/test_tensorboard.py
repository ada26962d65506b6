"""Event files have each step once, with what was measured, over steps, labels and cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alcore_tensorboard import TensorBoardTracker
from alcore_testing import ObserverContract, run_command
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from alcore.store import find_run


class TestTensorBoardTracker(ObserverContract):
    name = "tensorboard"

    def make(self, **parameters: Any) -> TensorBoardTracker:
        return TensorBoardTracker(**parameters)


def points(folder: Path, tag: str = "f1_metrology/f1") -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(point.step, point.value) for point in events.Scalars(tag)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the directory of a run of three steps."""
    words = ("run", "--observe", "tensorboard", "--steps", "3", "--run-id", "mine", "--quiet")
    assert run_command(tmp_path, *words).code == 0
    return tmp_path / "active_learning_logs" / "mine"


def test_points_are_the_records(run: Path) -> None:
    values = [pytest.approx(record["f1"]) for record in find_run(run.parent, "mine").records()["f1_metrology"]]
    assert points(run / "tensorboard" / "by-step") == list(zip(range(4), values, strict=True))
    assert points(run / "tensorboard" / "by-labels") == list(zip([50, 60, 70, 80], values, strict=True))
    assert points(run / "tensorboard" / "by-cost") == list(zip([0, 10, 20, 30], values, strict=True))
    assert points(run / "tensorboard" / "by-step", "samples/labels") == [(0, 50), (1, 60), (2, 70), (3, 80)]
    assert len(points(run / "tensorboard" / "by-step", "seconds/query")) == 3


def test_extended_run_has_each_step_once(run: Path) -> None:
    assert run_command(run.parents[1], "resume", "mine", "--steps", "5", "--quiet").code == 0
    assert [step for step, _ in points(run / "tensorboard" / "by-step")] == [0, 1, 2, 3, 4, 5]
    assert [step for step, _ in points(run / "tensorboard" / "by-labels")] == [50, 60, 70, 80, 90, 100]
    assert len(points(run / "tensorboard" / "by-step", "samples/requested")) == 5


def test_event_file_of_a_resume_comes_after_those_of_the_same_second(tmp_path: Path) -> None:
    """TensorBoard reads files in the order of their names; within a second, ``.10`` would come before ``.9``."""
    words = ["run", "--observe", "tensorboard", "--steps", "1", "--quiet"]
    for place in range(4):  # names end with a number that goes on in a process
        assert run_command(tmp_path, *words, "--run-id", f"r{place}").code == 0
        assert run_command(tmp_path, "resume", f"r{place}", "--steps", "2", "--quiet").code == 0
        folder = tmp_path / "active_learning_logs" / f"r{place}" / "tensorboard"
        assert [step for step, _ in points(folder / "by-step")] == [0, 1, 2]
        first, second = (file.name.split(".")[3] for file in sorted((folder / "by-step").iterdir()))
        assert int(first) < int(second)


def test_runs_of_one_folder_are_apart(tmp_path: Path) -> None:
    words = ["run", "--observe", "tensorboard", "--set", "observe.tensorboard.path=runs", "--steps", "1", "--quiet"]
    for run in ("a", "b"):
        assert run_command(tmp_path, *words, "--run-id", run).code == 0
        assert len(points(tmp_path / "runs" / run / "by-step")) == 2
