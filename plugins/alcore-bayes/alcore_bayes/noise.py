"""Stochastic batch acquisition: noise that turns scores of single samples into a batch."""

from __future__ import annotations

from typing import Literal

import torch

Noise = Literal["power", "softmax", "softrank"]
_SMALLEST = 1e-300  # samples of score 0 come last, in random order


def perturb(
    scores: torch.Tensor, generator: torch.Generator, noise: Noise = "power", beta: float = 1.0
) -> torch.Tensor:
    """Return scores with Gumbel noise, whose k highest are a random batch that prefers high scores.

    With g_i from the standard Gumbel distribution: ``"power"``: ``log(s_i) + g_i / beta``, a draw without replacement
    with probabilities proportional to s_i^beta. ``"softmax"``: ``s_i + g_i / beta``, to exp(beta s_i). ``"softrank"``:
    ``-log(r_i) + g_i / beta``, to r_i^-beta, where r_i is the rank of the score, from 1 for the highest.

    Parameters
    ----------
    scores
        Floating point (N,); for ``"power"`` not negative.
    generator
        The generator to draw from: one number for each score, in their order.
    noise
        ``"power"``, ``"softmax"`` or ``"softrank"``.
    beta
        Above 0: how strongly high scores are preferred. For large values, the k highest scores are chosen.

    Returns
    -------
    torch.Tensor
        Float64 (N,) on the CPU. NaN stays NaN. With ``"power"``, samples of score 0 are in random order.

    References
    ----------
    Kirsch, Farquhar, Atighehchian, Jesson, Branchaud-Charron and Gal (2023), Stochastic batch acquisition: a simple
    baseline for deep active learning, TMLR (arXiv:2106.12059).
    """
    scores = scores.detach().cpu().double()
    gumbel = torch.rand(len(scores), generator=generator, dtype=torch.float64).log_().neg_().log_().neg_()
    if noise == "power":
        preference = scores.clamp_min(_SMALLEST).log()
    elif noise == "softmax":
        preference = scores
    else:
        order = scores.sort(descending=True, stable=True).indices
        ranks = torch.empty_like(scores)
        ranks[order] = torch.arange(1, len(scores) + 1, dtype=torch.float64)
        preference = -ranks.log()
    return (preference + gumbel / beta).where(~scores.isnan(), torch.nan)
