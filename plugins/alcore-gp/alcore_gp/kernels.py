"""The covariance functions, as plain operators of PyTorch, so that a fitted learner can be exported."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch

Kernel = Literal["matern", "rbf"]
"""``"matern"``: Matern with smoothness 5/2, for functions with two derivatives. ``"rbf"``: squared exponential."""
KERNELS = get_args(Kernel)


def correlations(kernel: Kernel, a: torch.Tensor, b: torch.Tensor, lengthscale: torch.Tensor) -> torch.Tensor:
    """Return the prior correlations of T Gaussian processes between points.

    Parameters
    ----------
    kernel
        Which one.
    a, b
        Shapes (A, D) and (B, D).
    lengthscale
        Of each process and dimension: shape (T, D).

    Returns
    -------
    torch.Tensor
        Shape (T, A, B): ``(1 + sqrt(5) r + 5/3 r^2) exp(-sqrt(5) r)`` or ``exp(-r^2 / 2)``, with the distance r in
        units of the lengthscales.

    References
    ----------
    Rasmussen and Williams (2006), Gaussian processes for machine learning, chapter 4.
    """
    left, right = a / lengthscale[:, None], b / lengthscale[:, None]
    squares = left.square().sum(dim=2)[:, :, None] + right.square().sum(dim=2)[:, None] - 2 * left @ right.mT
    squares = squares.clamp_min(0)
    if kernel == "rbf":
        return torch.exp(-squares / 2)
    distance = math.sqrt(5) * squares.sqrt()
    return (1 + distance + 5 / 3 * squares) * torch.exp(-distance)
