"""What is known about data, and what a data factory returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch

ArrayLike = torch.Tensor | np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """What a learner or a strategy needs to know about data.

    Parameters
    ----------
    task
        ``"classification"`` or ``"regression"``.
    classes
        Number of classes; 2 is binary, 0 for regression.
    features
        Number of input features, where inputs are vectors.
    shape
        Shape of one input, without the batch dimension.
    names
        Names of the classes, in the order of their integer codes.
    class_weights
        How much each class weighs in the default loss; empty where all weigh the same.
        ``TrainingConfig.class_weights`` goes before it.
    """

    task: Literal["classification", "regression"] = "classification"
    classes: int = 0
    features: int = 0
    shape: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    class_weights: tuple[float, ...] = ()


@dataclasses.dataclass
class Data:
    """What a data factory returns.

    Parameters
    ----------
    train
        The pool that is trained on.
    val
        Held-out pool for validation and metrology.
    unlabeled
        Pool to choose from, where that is not `train`.
    info
        What is known about the data.
    defaults
        Experiment tables that suit this data, as nested mappings; they yield to what the user says.
    """

    train: Any
    val: Any = None
    unlabeled: Any = None
    info: DataInfo = dataclasses.field(default_factory=DataInfo)
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def infer_info(inputs: ArrayLike, targets: torch.Tensor | None) -> DataInfo:
    """Return what can be told from the arrays themselves: fractions are a regression, whole numbers classes."""
    shape = tuple(int(n) for n in inputs.shape[1:])
    features = shape[0] if len(shape) == 1 else 0
    if targets is None or targets.is_floating_point():
        return DataInfo("regression" if targets is not None else "classification", 0, features, shape)
    classes = int(targets.max()) + 1 if len(targets) else 0
    return DataInfo("classification", max(classes, 2), features, shape)
