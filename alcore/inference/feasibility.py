"""How likely a label of an input is to be had, learned from those that failed as infeasible."""

from __future__ import annotations

import torch

_SPREADS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # of the window, in units of its largest candidate, sqrt(D)
_PRIOR, _HOPE = 0.5, 0.55  # how many samples count for it what is expected without any; what that is at least
_MOST = 4000  # samples that are learned from
_NUMBERS = 2**22  # distances in memory at a time


class FeasibilityModel:
    """A Parzen-window classifier: the share of feasible samples near an input.

    ``P(x) = (sum_i w_i(x) f_i + b r) / (sum_i w_i(x) + b)``, with ``f_i`` 1 for a feasible sample and 0 for an
    infeasible one, ``w_i(x) = exp(-||x - x_i||^2 / (2 h^2))`` for standardized inputs, b = 0.5 and r the overall share
    of feasible samples, at least 0.55. So where nothing is known a label is likely, however many have failed elsewhere:
    a single failure makes ``P(x) < 1/2`` within 2.4 h of it. Of seven widths h, from 0.05 to 3.2 times the square root
    of the number of inputs, the one with the highest leave-one-out likelihood is taken. Of more than 4000 samples that
    many are used, evenly spaced in their order, as many of each kind as its share.

    Parameters
    ----------
    feasible, infeasible
        Inputs of samples with a label, and of samples that have none: shapes (n, D) and (m, D), at least one of each,
        and finite.

    Attributes
    ----------
    expected : float
        What is expected where nothing is known, r.
    width : float
        Width of the window, h.

    References
    ----------
    Parzen (1962), On estimation of a probability density function and mode, Annals of Mathematical Statistics 33;
    Duin (1976), On the choice of smoothing parameters for Parzen estimators, IEEE Transactions on Computers.
    """

    def __init__(self, feasible: torch.Tensor, infeasible: torch.Tensor) -> None:
        count = len(feasible) + len(infeasible)
        feasible, infeasible = (_spaced(inputs, len(inputs) * _MOST // count) for inputs in (feasible, infeasible))
        inputs = torch.cat([feasible, infeasible]).double()
        deviation = inputs.std(dim=0, correction=0)
        self._middle, self._scale = inputs.mean(dim=0), torch.where(deviation > 0, deviation, 1.0)
        self._known = self._standardized(inputs)
        self._is_feasible = torch.cat([torch.ones(len(feasible)), torch.zeros(len(infeasible))]).double()
        self.expected = max(_HOPE, float(self._is_feasible.mean()))
        widths = [spread * inputs.shape[1] ** 0.5 for spread in _SPREADS]
        squares = torch.cdist(self._known, self._known).square().fill_diagonal_(torch.inf)
        self.width = max(widths, key=lambda width: self._likelihood(squares, width))

    def probability(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the probability that a label can be had: float64, shape (B,), of inputs (B, D).

        For inputs that are NaN or infinite it is `expected`.
        """
        rows = max(1, _NUMBERS // len(self._known))
        parts = [
            self._shares(torch.cdist(self._standardized(part.double()), self._known).square(), self.width)
            for part in torch.split(inputs, rows)
        ]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)

    def _standardized(self, rows: torch.Tensor) -> torch.Tensor:
        return (rows - self._middle) / self._scale

    def _shares(self, squares: torch.Tensor, width: float) -> torch.Tensor:
        near = torch.exp(squares / (-2 * width**2)).nan_to_num_(nan=0.0)
        return (near @ self._is_feasible + _PRIOR * self.expected) / (near.sum(dim=1) + _PRIOR)

    def _likelihood(self, squares: torch.Tensor, width: float) -> float:
        share = self._shares(squares, width)
        return float(torch.where(self._is_feasible > 0, share, 1 - share).log().sum())


def _spaced(rows: torch.Tensor, most: int) -> torch.Tensor:
    """Return the rows, or where there are more than `most`, that many of them and at least 1."""
    if len(rows) <= most:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, max(1, most)).long()]


def weighted_by(scores: torch.Tensor, probability: torch.Tensor) -> torch.Tensor:
    """Return scores that are lower the less likely a label is to be had.

    Parameters
    ----------
    scores
        Shape (B,); higher is better.
    probability
        Of a label, above 0: shape (B,).

    Returns
    -------
    torch.Tensor
        Float64, shape (B,): scores of at least 0 times the probability, and those below 0 divided by it.
    """
    scores, probability = scores.detach().cpu().double(), probability.double()
    return torch.where(scores < 0, scores / probability, scores * probability)
