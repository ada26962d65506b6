"""``alcore fork``."""

from __future__ import annotations

import json
from pathlib import Path

from alcore.store.reading import Run

SMALL = ["--steps", "4", "--set", "training.max_training_epochs=1"]


def test_fork_goes_on_as_the_run_did(command, tmp_path: Path) -> None:
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


def test_fork_of_a_run_elsewhere_lies_beside_it(command, tmp_path: Path) -> None:
    command("run", "--run-id", "one", "--root", "my runs", *SMALL)
    out, _ = command("fork", "my runs/one", "--step", "0", "--run-id", "two")
    assert out.splitlines()[-1] == f"Next: alcore resume '{tmp_path}/my runs/two'"
    out, _ = command("fork", "on", "--root", "my runs", "--step", "2", "--json")
    content = json.loads(out)
    assert Path(content["log_dir"]) == tmp_path / "my runs" / content["run_id"]
    assert (content["forked_from"], content["forked_at"], content["steps"], content["labels"]) == ("one", 2, 3, 30)


def test_damaged_checkpoint_is_warned_of_and_left_out(command, tmp_path: Path) -> None:
    command("run", "--run-id", "one", *SMALL)
    (tmp_path / "active_learning_logs" / "one" / "ckpt" / "000001-labeling-000000.safetensors").unlink()
    out, err = command("fork", "one", "--step", "1")
    assert "alcore: warning: checkpoint 000001-labeling-000000.safetensors is left out" in err
    assert "goes on from 000000-labeling-000000.safetensors" in out


def test_fork_of_a_missing_step_or_run_is_refused(command) -> None:
    command("run", "--run-id", "one", *SMALL)
    assert "has finished no step 9; it has 0 to 3" in command("fork", "one", "--step", "9", code=2)[1]
    assert "run 'one' exists already" in command("fork", "one", "--step", "1", "--run-id", "one", code=2)[1]
    assert "there is no run 'two'" in command("fork", "two", "--step", "1", code=2)[1]
    assert "Missing option '--step'" in command("fork", "one", code=2)[1]
