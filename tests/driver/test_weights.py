"""`DriverConfig.weights`: a run begins with given weights, and needs their file at no other time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from alcore.errors import UsageError
from alcore.store import Run, fork_run
from alcore.store.files import sha256_of


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    save_file({"weight": torch.tensor([[3.0, -2.0]]), "bias": torch.tensor([0.25])}, path)
    return path


def final(driver) -> list[float]:
    return [*driver.learner.weight.flatten().tolist(), *driver.learner.bias.tolist()]


def test_run_begins_with_the_weights_and_records_their_digest(build, weights: Path) -> None:
    driver = build(weights=weights, skip_training=True, max_active_learning_steps=1)
    driver.run()
    assert final(driver) == [3.0, -2.0, 0.25]
    assert Run(driver.log_dir).meta()["weights"] == {"file": str(weights), "sha256": sha256_of(weights)}


def test_reset_learner_goes_back_to_the_weights(build, weights: Path) -> None:
    seen = []

    class Watch:
        def __call__(self, model, optimizer, train_dataloader, max_epochs, **arguments):
            seen.append(model.weight.tolist())
            torch.nn.init.zeros_(model.weight)

    build(weights=weights, reset_learner=True, train_loop_fn=Watch(), max_active_learning_steps=3).run()
    assert seen == [[[3.0, -2.0]]] * 3


def test_resumed_and_forked_runs_are_exact_without_the_file(build, weights: Path) -> None:
    whole = build(run_id="whole", weights=weights, max_active_learning_steps=4)
    whole.run()
    build(run_id="half", weights=weights, max_active_learning_steps=2).run()
    weights.unlink()
    half = build(run_id="half", weights=weights, max_active_learning_steps=4)
    fork_run(Run(half.log_dir), 0, run_id="forked")
    for driver in (half, build(run_id="forked", weights=weights, max_active_learning_steps=4)):
        driver.restore()
        driver.run()
        assert final(driver) == final(whole)


def test_run_whose_weights_do_not_fit_is_not_made(build, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"weight": torch.zeros(1, 3), "bias": torch.zeros(1)}, path)
    driver = build(weights=path)
    with pytest.raises(UsageError, match=r"'weight' is \(1, 3\) in the file and \(1, 2\) in the learner"):
        driver.run()
    assert not driver.log_dir.exists()


def test_path_that_is_none_is_refused(build) -> None:
    with pytest.raises(UsageError, match=r"DriverConfig\.weights"):
        build(weights=3)
