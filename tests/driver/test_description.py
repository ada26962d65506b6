"""What a run built in Python says of itself."""

from __future__ import annotations

import queue
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from alcore import TensorPool
from alcore.config import DriverConfig, OptimizerConfig, TrainingConfig
from alcore.driver.description import describe_run, environment


class Loop:
    """Any training loop."""


def described(training: TrainingConfig | None = None, **config: Any) -> dict[str, Any]:
    parts = {"one": queue.Queue(), "two": Loop()}
    text = describe_run(DriverConfig(4, device="cpu", seed=1, **config), training, torch.nn.Linear(1, 1), parts, Loop())
    assert text.startswith("# This run was built in Python.")
    return dict(tomllib.loads(text)["python"])


def test_environment_is_what_results_depend_on() -> None:
    facts = environment()
    assert list(facts) == ["alcore", "python", "platform", "torch", "numpy", "threads", "plugins"]
    assert facts["torch"] == torch.__version__
    assert facts["threads"] == torch.get_num_threads()
    assert any(plugin.startswith("alcore-uq ") for plugin in facts["plugins"])
    assert facts["plugins"] == sorted(set(facts["plugins"]))


def test_settings_are_plain_values_and_none_is_left_out(tmp_path: Path) -> None:
    settings = described(root_log_dir=tmp_path, budget=2.5, run_id="r", collate_fn=list)["driver"]
    assert (settings["batch_size"], settings["budget"], settings["skip_training"]) == (4, 2.5, False)
    assert (settings["device"], settings["dtype"], settings["root_log_dir"]) == ("cpu", "torch.float32", str(tmp_path))
    assert not {"max_active_learning_steps", "run_id", "collate_fn", "dist_manager"} & set(settings)


def test_parts_are_named_by_their_class() -> None:
    description = described()
    assert description["learner"] == {"class": "torch.nn.modules.linear.Linear"}
    assert description["strategies"] == {"one": "queue.Queue", "two": f"{__name__}.Loop"}
    assert "training" not in description


@pytest.mark.parametrize(
    ("sampler", "word"), [(None, "shuffled"), ("balanced", "balanced"), (sorted, "builtins.sorted")]
)
def test_training_is_described_with_its_defaults(sampler: Any, word: str) -> None:
    optimizer = OptimizerConfig(torch.optim.SGD, {"lr": 0.1, "momentum": 0.5})
    pool = TensorPool(torch.zeros(4, 1))
    training = described(TrainingConfig(pool, 5, optimizer_config=optimizer, sampler=sampler))["training"]
    assert training == {
        "train_datapool": "alcore.pools.tensor_pool.TensorPool", "max_training_epochs": 5, "max_fine_tuning_epochs": 5,
        "reset_learner": False, "sampler": word, "class_weights": "equal", "loop": f"{__name__}.Loop",
        "optimizer": "SGD", "optimizer_kwargs": {"lr": "0.1", "momentum": "0.5"},
    }  # fmt: skip
