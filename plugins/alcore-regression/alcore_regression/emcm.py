"""Expected model change: how far a label would move a linear model, estimated by a committee."""

from __future__ import annotations

import torch

_ELEMENTS = 2**20  # products in memory at a time


def bootstrap_committee(
    features: torch.Tensor, targets: torch.Tensor, members: int, ridge: float, generator: torch.Generator
) -> torch.Tensor:
    """Fit linear models, each on as many labeled samples as there are, drawn with replacement.

    Each member minimizes ``sum_i c_i ||w x_i + b - y_i||^2 + ridge s ||w||^2``, where c_i is how often sample i was
    drawn, and s is the mean over the features of ``sum_i c_i (x_ij - mean_j)^2``, so that `ridge` has no unit.

    Parameters
    ----------
    features
        Labeled samples: shape (M, D), M of at least 1.
    targets
        Shape (M, T).
    members
        Number of models to fit.
    ridge
        Strength of the penalty, above 0.
    generator
        The generator to draw from.

    Returns
    -------
    torch.Tensor
        Weights, the intercept last: float64, shape (members, D + 1, T).
    """
    x, y = features.double(), targets.double()
    drawn = torch.randint(len(x), (members, len(x)), generator=generator)
    return torch.stack([_ridge(x[rows], y[rows], ridge) for rows in drawn])


def _ridge(x: torch.Tensor, y: torch.Tensor, ridge: float) -> torch.Tensor:
    """Return the weights (D + 1, T) of a linear fit with an intercept, the intercept last."""
    middle, level = x.mean(dim=0), y.mean(dim=0)
    x, y = x - middle, y - level
    penalty = ridge * float(x.square().sum()) / max(x.shape[1], 1) or 1.0  # 1 if all rows are equal, where the fit is 0
    if len(x) < x.shape[1]:  # the smaller of two equivalent systems
        weights = x.T @ torch.linalg.solve(x @ x.T + penalty * torch.eye(len(x), dtype=x.dtype), y)
    else:
        weights = torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)
    return torch.cat([weights, (level - middle @ weights)[None]])


def expected_model_change(features: torch.Tensor, predictions: torch.Tensor, committee: torch.Tensor) -> torch.Tensor:
    """Return how far a label is expected to move the weights of a linear model.

    The gradient of the squared error of ``w x`` is ``(f(x) - y) x``. The label y is unknown, so the prediction of each
    member of the committee takes its place: ``1/K sum_k ||f(x) - f_k(x)|| ||x||``, where x has a constant 1 for the
    intercept.

    Parameters
    ----------
    features
        Candidates: shape (N, D).
    predictions
        Predictions of the learner for them: shape (N, T).
    committee
        Weights of K linear models: shape (K, D + 1, T), the intercept last.

    Returns
    -------
    torch.Tensor
        Scores: float64, shape (N,), higher for a larger change.

    References
    ----------
    Cai, Zhang and Zhou (2013), Maximizing expected model change for active learning in regression, ICDM.
    """
    weights, intercept = committee[:, :-1].permute(0, 2, 1), committee[:, -1]  # (K, T, D) and (K, T)
    rows = max(1, _ELEMENTS // max(weights.numel(), 1))
    scores = torch.empty(len(features), dtype=torch.float64)
    for start in range(0, len(features), rows):
        block = slice(start, start + rows)
        x, predicted = features[block].double(), predictions[block].double()
        # Row by row, so that equal rows have equal scores at any position, which a matrix product does not guarantee
        answers = (x[:, None, None, :] * weights).sum(dim=3) + intercept  # (B, K, T)
        change = torch.linalg.vector_norm(predicted[:, None] - answers, dim=2).mean(dim=1)
        scores[block] = change * (1 + x.square().sum(dim=1)).sqrt()
    return scores
