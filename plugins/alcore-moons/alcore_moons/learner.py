"""A small multi-layer perceptron."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch

from alcore.errors import UsageError
from alcore.pools import DataInfo


class MLP(torch.nn.Module):
    """Linear layers with SiLU between them.

    Parameters
    ----------
    features
        Number of inputs.
    outputs
        Number of outputs; one logit for two classes.
    hidden
        Width of each hidden layer.
    dropout
        Probability of dropping a hidden unit in training.
    """

    def __init__(
        self, features: int = 2, outputs: int = 1, hidden: Sequence[int] = (16,), dropout: float = 0.0
    ) -> None:
        super().__init__()
        widths = [features, *hidden]
        layers: list[torch.nn.Module] = [torch.nn.Flatten()]
        for width, following in itertools.pairwise(widths):
            layers += [torch.nn.Linear(width, following), torch.nn.SiLU()]
            if dropout:
                layers.append(torch.nn.Dropout(dropout))
        self.layers = torch.nn.Sequential(*layers, torch.nn.Linear(widths[-1], outputs))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map inputs, shape (B, ...), to logits or values, shape (B, outputs)."""
        output: torch.Tensor = self.layers(inputs)
        return output


def mlp(info: DataInfo, hidden: Sequence[int] = (16,), dropout: float = 0.0) -> MLP:
    """Return a multi-layer perceptron with SiLU for the data.

    Parameters
    ----------
    info
        What is known about the data: it determines the number of inputs and outputs.
    hidden
        Width of each hidden layer.
    dropout
        Probability of dropping a hidden unit in training.
    """
    features = info.features or (math.prod(info.shape) if info.shape else 0)
    if not features:
        raise UsageError("learner mlp: the number of features of the data is unknown (DataInfo.features).")
    outputs = info.classes if info.task == "classification" and info.classes > 2 else 1
    return MLP(features, outputs, hidden, dropout)
