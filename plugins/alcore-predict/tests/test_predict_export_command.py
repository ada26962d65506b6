"""``alcore export``; test_predict_export.py has what the files hold."""

from __future__ import annotations

from pathlib import Path

import pytest

FILES = ("labels.csv", "model.safetensors", "labeled.npz", "info.json", "learner.json", "model.py", "README.txt")


@pytest.fixture
def run(build) -> str:
    """The id of a finished run in the folder ``runs``."""
    build(run_id="mine", max_active_learning_steps=1, skip_training=True).run()
    return "mine"


@pytest.mark.parametrize(("arguments", "folder"), [((), "mine-export"), (("--output", "out"), "out")])
def test_each_file_is_told_with_its_path(command, run: str, tmp_path: Path, arguments, folder: str) -> None:
    out, err = command("export", run, "--root", "runs", *arguments)
    assert err == ""
    told = dict(line.split(": ", 1) for line in out.splitlines())
    assert list(told) == [f"{folder}/{name}" for name in FILES]
    assert told[f"{folder}/labeled.npz"].startswith("not written: the run was built in Python")
    assert {path.name for path in (tmp_path / folder).iterdir()} == {*FILES} - {"labeled.npz", "model.py"}


def test_export_into_an_existing_folder_is_refused(command, run: str, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    _, message = command("export", run, "--root", "runs", "--output", "taken", code=2)
    assert "exists already" in message
    assert "--output" in message
    assert list((tmp_path / "taken").iterdir()) == []
