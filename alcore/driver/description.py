"""Describe a run and where it runs, for its database and its ``experiment.toml``."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import tomli_w
import torch

from alcore.config import DriverConfig, TrainingConfig
from alcore.plugins.discovery import installed_versions
from alcore.plugins.registry import core_version

_HEADER = "# This run was built in Python. The file describes it; it can't be run again from here.\n"
_NOT_DESCRIBED = ("asked_dtype", "run_id", "dist_manager", "collate_fn", "resume")


def environment() -> dict[str, Any]:
    """Return the versions and settings that results depend on."""
    plugins = sorted(f"{name} {version}" for name, version in installed_versions().items())
    return {
        "alcore": core_version(),
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "threads": torch.get_num_threads(),
        "plugins": plugins,
    }


def describe_run(
    config: DriverConfig, training: TrainingConfig | None, learner: Any, strategies: Mapping[str, Any], loop: Any
) -> str:
    """Return TOML that says what a Driver built in Python consists of."""
    tables: dict[str, Any] = {
        "driver": {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in vars(config).items()
            if value is not None and name not in _NOT_DESCRIBED
        },
        "learner": {"class": _class(learner)},
        "strategies": {name: _class(strategy) for name, strategy in strategies.items()},
    }
    if training is not None:
        optimizer = training.optimizer_config
        tables["training"] = {
            "train_datapool": _class(training.train_datapool),
            "max_training_epochs": training.max_training_epochs,
            "max_fine_tuning_epochs": training.epochs(1),
            "reset_learner": training.reset_learner,
            "sampler": _class(training.sampler) if callable(training.sampler) else str(training.sampler or "shuffled"),
            "class_weights": str(training.class_weights or "equal"),
            "loop": _class(loop),
            "optimizer": getattr(optimizer.optimizer_cls, "__qualname__", str(optimizer.optimizer_cls)),
            "optimizer_kwargs": {key: str(value) for key, value in optimizer.optimizer_kwargs.items()},
        }
    return _HEADER + tomli_w.dumps({"python": tables})


def _class(part: Any) -> str:
    kind = part if isinstance(part, type) or hasattr(part, "__qualname__") else type(part)
    return f"{kind.__module__}.{kind.__qualname__}"
