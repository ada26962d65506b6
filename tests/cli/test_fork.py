"""``alcore fork`` and ``alcore run --keep``."""

from __future__ import annotations

import json
from pathlib import Path

from alcore.store.reading import Run

SMALL = ["--steps", "4", "--set", "training.max_training_epochs=1"]


def test_a_fork_is_made_and_taken_up(command, tmp_path: Path) -> None:
    command("run", "--run-id", "one", *SMALL)
    out, _ = command("fork", "one", "--step", "1", "--run-id", "two")
    assert out.splitlines() == [
        "Run two begins with 2 steps and 20 labels of run one, and goes on from 000001-labeling-000000.safetensors.",
        "Next: alcore resume two",
    ]
    command("resume", "two")
    root = tmp_path / "active_learning_logs"
    assert Run(root / "two").records() == Run(root / "one").records()
    assert Run(root / "two").meta()["status"] == "done"


def test_a_fork_of_a_folder_elsewhere_lies_beside_it(command, tmp_path: Path) -> None:
    command("run", "--run-id", "one", "--root", "my runs", *SMALL)
    out, _ = command("fork", "my runs/one", "--step", "0", "--run-id", "two")
    assert out.splitlines()[-1] == f"Next: alcore resume '{tmp_path}/my runs/two'"
    out, _ = command("fork", "on", "--root", "my runs", "--step", "2", "--json")
    content = json.loads(out)
    assert Path(content["log_dir"]) == tmp_path / "my runs" / content["run_id"]
    assert (content["forked_from"], content["forked_at"], content["steps"], content["labels"]) == ("one", 2, 3, 30)


def test_what_is_damaged_is_warned_of(command, tmp_path: Path) -> None:
    command("run", "--run-id", "one", *SMALL)
    (tmp_path / "active_learning_logs" / "one" / "ckpt" / "000001-labeling-000000.safetensors").unlink()
    out, err = command("fork", "one", "--step", "1")
    assert "alcore: warning: checkpoint 000001-labeling-000000.safetensors is left out" in err
    assert "goes on from 000000-labeling-000000.safetensors" in out


def test_refusals(command) -> None:
    command("run", "--run-id", "one", *SMALL)
    assert "has finished no step 9; it has 0 to 3" in command("fork", "one", "--step", "9", code=2)[1]
    assert "run 'one' exists already" in command("fork", "one", "--step", "1", "--run-id", "one", code=2)[1]
    assert "there is no run 'two'" in command("fork", "two", "--step", "1", code=2)[1]
    assert "Missing option '--step'" in command("fork", "one", code=2)[1]


def test_keep(command, tmp_path: Path) -> None:
    command("run", "--run-id", "one", "--keep", "last=1,every=2", *SMALL)
    root = tmp_path / "active_learning_logs"
    assert [one["step"] for one in Run(root / "one").checkpoints()] == [0, 1, 3]
    assert 'keep = "last=1,every=2"' in (root / "one" / "experiment.toml").read_text()
    command("run", str(root / "one" / "experiment.toml"), "--run-id", "two")
    assert [one["step"] for one in Run(root / "two").checkpoints()] == [0, 1, 3]
    command("run", str(root / "one" / "experiment.toml"), "--run-id", "three", "--keep", "all")
    assert len(Run(root / "three").checkpoints()) == 5
    command("resume", "three", "--keep", "last=2", "--steps", "5")
    assert 'keep = "last=2"' in (root / "three" / "experiment.toml").read_text()
    assert [one["step"] for one in Run(root / "three").checkpoints()] == [0, 3, 4]


def test_a_keep_that_can_not_be_read(command, tmp_path: Path) -> None:
    _, err = command("run", "--keep", "lst=3", code=2)
    assert "driver.keep 'lst=3': 'lst=3' is no rule: did you mean 'last'" in err
    assert not (tmp_path / "active_learning_logs").exists()
