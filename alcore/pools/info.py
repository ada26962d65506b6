"""What can be inferred about data from its arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from alcore.protocols import DataInfo

ArrayLike = torch.Tensor | np.ndarray[Any, Any]


def infer_info(inputs: ArrayLike, targets: torch.Tensor | None) -> DataInfo | None:
    """Return shape and task: floating-point targets are a regression, integer targets are classes.

    None without targets, since nothing says what the task is.
    """
    if targets is None:
        return None
    shape = tuple(int(n) for n in inputs.shape[1:])
    features = shape[0] if len(shape) == 1 else 0
    if targets.is_floating_point():
        return DataInfo("regression", 0, features, shape)
    classes = int(targets.max()) + 1 if len(targets) else 0
    return DataInfo("classification", max(classes, 2), features, shape)
