"""``alcore resume``: what may be changed of a run, and what becomes of it."""

from __future__ import annotations

from pathlib import Path

from alcore.store.reading import Run

SMALL = ["--set", "training.max_training_epochs=1", "--set", "driver.final_training=false"]


def test_resume_with_another_retention_and_more_steps(command, tmp_path: Path) -> None:
    command("run", "--run-id", "one", "--keep", "last=1,every=2", "--steps", "4", *SMALL)
    run = tmp_path / "active_learning_logs" / "one"
    assert [checkpoint["step"] for checkpoint in Run(run).checkpoints()] == [0, 1, 3]
    assert 'keep = "last=1,every=2"' in (run / "experiment.toml").read_text()
    command("resume", "one", "--keep", "last=2", "--steps", "5")
    assert 'keep = "last=2"' in (run / "experiment.toml").read_text()
    assert [checkpoint["step"] for checkpoint in Run(run).checkpoints()] == [0, 3, 4]


def test_resume_without_changes_leaves_the_experiment_alone(command, tmp_path: Path) -> None:
    command("run", "--run-id", "one", "--steps", "1", *SMALL)
    file = tmp_path / "active_learning_logs" / "one" / "experiment.toml"
    before = file.stat().st_mtime_ns
    _, err = command("resume", "one")
    assert "has ended already: all 1 steps are done. Give it more with --steps or --budget" in err
    assert file.stat().st_mtime_ns == before


def test_run_with_resume_auto_goes_on_with_a_run_of_its_id(command, tmp_path: Path) -> None:
    words = ["run", "--run-id", "one", "--resume", "auto", *SMALL, "-q"]
    command(*words, "--steps", "1")
    command(*words, "--steps", "2")
    run = tmp_path / "active_learning_logs" / "one"
    assert len(Run(run).steps()) == 2
    assert "max_active_learning_steps = 2" in (run / "experiment.toml").read_text()
