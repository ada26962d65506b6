"""A Gaussian process as the learner of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from alcore.errors import UsageError, check_choice
from alcore.pools import DataInfo, tensors_of
from alcore_gp.fitting import fit, start_length
from alcore_gp.kernels import KERNELS, Kernel, correlations

_MOST_LABELS = 8000  # whose covariances take 0.5 GB a quantity
_MOST_QUANTITIES = 64
_NUMBERS = 2**22  # covariances in memory at a time
_JITTER = (0.0, 1e-8, 1e-6, 1e-4)  # added to the diagonal until there is a Cholesky factor


class GaussianProcess(torch.nn.Module):
    """Gaussian process regression, trained exactly; use it with the training loop ``gp``.

    Parameters
    ----------
    kernel
        Covariance function, with a lengthscale for each input (ARD): ``"matern"`` (smoothness 5/2) or ``"rbf"``.
    starts
        From how many points the search for hyperparameters starts, at least 1; the likelihood may have several maxima.
    info
        Task of the data.

    Attributes
    ----------
    outputs : str
        ``"mean-variance"``: predicted mean, and variance of a label with its noise, shape (B, 2 T), float64.

    Raises
    ------
    UsageError
        For classification; when it is fitted, for more than 8000 labels, more than 64 quantities, inputs that are not
        one tensor, and values that are NaN or infinite.

    Notes
    -----
    Several quantities are independent processes. Inputs are scaled to the unit cube of the labels, and targets
    standardized, inside; mean and variance have the unit of the target and its square. `alcore_gp.fitting.fit` says how
    lengthscales, outputscale, noise and mean are found, from the same start in each step: they depend on the labels,
    the seed and the step alone. Before the first fit it predicts mean 0 and variance 1.

    Everything is computed in double precision, whatever the precision of the run. Time O(n^3) an iteration of the fit
    for n labels, and O(n^2) a prediction; memory O(n^2). The state holds the labels in double precision.

    Its features, where strategies ask for them, are the scaled inputs in units of the lengthscales.

    References
    ----------
    Rasmussen and Williams (2006), Gaussian processes for machine learning, MIT Press.
    """

    outputs = "mean-variance"
    training_loop = "gp"
    """Name of the training loop that fits it."""

    labeled_inputs: torch.Tensor
    labeled_targets: torch.Tensor
    input_low: torch.Tensor
    input_span: torch.Tensor
    target_mean: torch.Tensor
    target_scale: torch.Tensor
    lengthscale: torch.Tensor
    outputscale: torch.Tensor
    noise: torch.Tensor
    constant: torch.Tensor
    factor: torch.Tensor
    weights: torch.Tensor

    def __init__(self, kernel: Kernel = "matern", starts: int = 2, info: DataInfo | None = None) -> None:
        super().__init__()
        check_choice("learner gp", "kernel", kernel, KERNELS)
        if starts < 1:
            raise UsageError(f"learner gp: starts is {starts}; the search starts from at least 1 point.")
        if info is not None and info.task != "regression":
            raise UsageError(
                f"learner gp: it is for a regression, and the task of this data is {info.task}; use another learner, "
                "or declare the data a regression (--set data.csv.task=regression)."
            )
        self.kernel: Kernel = kernel
        self.starts = starts
        for name, shape in _SHAPES.items():
            self.register_buffer(name, torch.zeros([{"T": 1}.get(axis, 0) for axis in shape], dtype=torch.float64))
        for name in ("target_scale", "outputscale"):
            getattr(self, name).fill_(1.0)
        self.register_buffer("factor", torch.empty(1, 0, 0, dtype=torch.float64), persistent=False)
        self.register_buffer("weights", torch.empty(1, 0, dtype=torch.float64), persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> GaussianProcess:
        """Move to another device, and stay in double precision."""
        device = fn(torch.zeros((), dtype=torch.float64)).device
        super()._apply(lambda tensor: tensor.to(device), recurse)  # type: ignore[no-untyped-call]
        return self

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map inputs, shape (B, ...), to the means and variances of labels: float64, shape (B, 2 T)."""
        rows = self._rows(inputs)
        if torch.compiler.is_compiling():  # a graph for batches of any size has no loop over their parts
            return self._predicted(rows)
        return torch.cat([self._predicted(part) for part in self._parts(rows)])

    def _predicted(self, rows: torch.Tensor) -> torch.Tensor:
        scaled = self._scaled(rows)
        shared = self._shared(scaled)
        mean = self.constant[:, None] + (shared * self.weights[:, :, None]).sum(dim=1)
        variance = self._variance(shared) + self.noise[:, None]
        scale = self.target_scale[:, None]
        return torch.cat([mean * scale + self.target_mean[:, None], variance * scale.square()]).mT

    def _shared(self, scaled: torch.Tensor) -> torch.Tensor:
        """Return the prior covariances of labeled inputs with others: shape (T, n, B)."""
        if not len(self.labeled_inputs):
            return scaled.new_empty(len(self.outputscale), 0, len(scaled))
        prior = correlations(self.kernel, self.labeled_inputs, scaled, self.lengthscale)
        return self.outputscale[:, None, None] * prior

    def _variance(self, shared: torch.Tensor) -> torch.Tensor:
        """Return the posterior variances without noise, (T, B), of standardized targets."""
        if not shared.shape[1]:
            return self.outputscale[:, None].expand(-1, shared.shape[2])
        explained = torch.linalg.solve_triangular(self.factor, shared, upper=False).square().sum(dim=1)
        variance: torch.Tensor = (self.outputscale[:, None] - explained).clamp_min(0)
        return variance

    def posterior_covariance(self, a: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
        """Return the posterior covariances between A and B inputs, without noise, in the unit of the target squared.

        Parameters
        ----------
        a, b
            Shapes (A, ...) and (B, ...).

        Returns
        -------
        torch.Tensor
            Float64, shape (T, A, B); without `b` the variances, (T, A).
        """
        squared = self.target_scale.square()
        if b is None:
            parts = [self._variance(self._shared(self._scaled(part))) for part in self._parts(self._rows(a))]
            return torch.cat(parts, dim=1) * squared[:, None]
        left, right = self._scaled(self._rows(a)), self._scaled(self._rows(b))
        labeled = len(self.labeled_inputs)
        lengths = self.lengthscale if labeled else left.new_full((1, left.shape[1]), start_length(left.shape[1]))
        covariance = self.outputscale[:, None, None] * correlations(self.kernel, left, right, lengths)
        if labeled:
            told = [
                torch.linalg.solve_triangular(self.factor, self._shared(side), upper=False) for side in (left, right)
            ]
            covariance = covariance - told[0].mT @ told[1]
        scaled: torch.Tensor = covariance * squared[:, None, None]
        return scaled

    def features(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return scaled inputs in units of the lengthscales, of several processes their geometric mean: (B, D)."""
        scaled = self._scaled(self._rows(inputs))
        return scaled / self.lengthscale.log().mean(dim=0).exp() if len(self.labeled_inputs) else scaled

    def fit(self, batches: Iterable[Any], generator: torch.Generator) -> None:
        """Fit to labeled items.

        Parameters
        ----------
        batches
            Inputs (B, ...) and targets (B,) or (B, ...), batch by batch.
        generator
            Where starts of the search are drawn from.
        """
        pairs = [(self._rows(inputs), targets.detach().double().flatten(1)) for inputs, targets in _pairs(batches)]
        if not pairs:
            return
        rows, targets = (torch.cat(tensors).cpu() for tensors in zip(*pairs, strict=True))
        _check(rows, targets)
        low, high = rows.amin(dim=0), rows.amax(dim=0)
        span = torch.where(high > low, high - low, 1.0)
        varies = targets.amax(dim=0) > targets.amin(dim=0)
        mean = targets.mean(dim=0)
        scale = torch.where(varies, targets.std(dim=0, correction=0), 1.0)
        inputs, values = (rows - low) / span, (targets - mean) / scale
        fits = [fit(inputs, of_quantity, self.kernel, self.starts, generator) for of_quantity in values.T.contiguous()]
        state = {
            "labeled_inputs": inputs,
            "labeled_targets": values,
            "input_low": low,
            "input_span": span,
            "target_mean": mean,
            "target_scale": scale,
            **{name: torch.stack([getattr(fitted, name) for fitted in fits]) for name in fits[0]._fields},
        }
        device = self.noise.device
        for name, value in state.items():
            setattr(self, name, value.to(device))
        self._factorize()

    def _factorize(self) -> None:
        """Compute what predictions need of labels and hyperparameters."""
        count = len(self.labeled_inputs)
        if not count:
            self.factor = self.noise.new_empty(len(self.noise), 0, 0)
            self.weights = self.noise.new_empty(len(self.noise), 0)
            return
        covariance = self._shared(self.labeled_inputs)
        diagonal = covariance.diagonal(dim1=1, dim2=2)
        diagonal += self.noise[:, None]
        for jitter in _JITTER:
            diagonal += jitter
            factor, failed = torch.linalg.cholesky_ex(covariance)
            if not bool(failed.any()):
                break
        else:
            raise UsageError("learner gp: the covariance of the labels has no Cholesky factor; are inputs alike?")
        self.factor = factor
        left = (self.labeled_targets.T - self.constant[:, None])[:, :, None]
        self.weights = torch.cholesky_solve(left, factor)[:, :, 0]

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Take back a state with any number of labels."""
        for name in _SHAPES:
            saved = state_dict.get(prefix + name)
            if isinstance(saved, torch.Tensor):
                setattr(self, name, torch.empty(saved.shape, dtype=torch.float64, device=self.noise.device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._factorize()

    def _rows(self, inputs: Any) -> torch.Tensor:
        """Return inputs with one row a sample: float64, shape (B, D)."""
        tensors = [inputs] if isinstance(inputs, torch.Tensor) else tensors_of(inputs)
        if len(tensors) != 1:
            raise UsageError(
                f"learner gp: it takes one tensor of inputs, and this data gives {len(tensors)} a sample; join them in "
                "the pool."
            )
        rows = tensors[0].detach().double()
        return rows.flatten(1) if rows.dim() > 1 else rows[:, None]

    def _scaled(self, rows: torch.Tensor) -> torch.Tensor:
        return (rows - self.input_low) / self.input_span if len(self.input_low) else rows

    def _parts(self, rows: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the rows in parts whose covariances with the labels fit in memory."""
        size = max(1, _NUMBERS // max(1, len(self.labeled_inputs) * len(self.noise)))
        yield from torch.split(rows, size)


_SHAPES: dict[str, str] = {
    "labeled_inputs": "nD",
    "labeled_targets": "nT",
    "input_low": "D",
    "input_span": "D",
    "target_mean": "T",
    "target_scale": "T",
    "lengthscale": "TD",
    "outputscale": "T",
    "noise": "T",
    "constant": "T",
}
"""The persistent buffers, by their axes: n labels, D inputs, T quantities."""


def _pairs(batches: Iterable[Any]) -> Iterator[tuple[Any, torch.Tensor]]:
    for batch in batches:
        inputs, targets = batch
        yield inputs, targets[:, None] if targets.dim() == 1 else targets


def _check(rows: torch.Tensor, targets: torch.Tensor) -> None:
    """Raise `UsageError` for labels that a Gaussian process can't be fitted to."""
    count, quantities = targets.shape
    if count > _MOST_LABELS:
        raise UsageError(
            f"learner gp: there are {count} labels, and an exact Gaussian process takes up to {_MOST_LABELS} (time n^3 "
            "and memory n^2); use a network, such as --learner mlp --set learner.mlp.outputs=mean-variance."
        )
    if quantities > _MOST_QUANTITIES:
        raise UsageError(
            f"learner gp: the targets have {quantities} quantities, and there is one process for each, up to "
            f"{_MOST_QUANTITIES}; reduce them, to coefficients of principal components for instance."
        )
    for what, values in (("an input", rows), ("a target", targets)):
        bad = ~values.isfinite().all(dim=1)
        if bool(bad.any()):
            raise UsageError(
                f"learner gp: {what} is NaN or infinite, the first in row {int(bad.nonzero()[0])} of the labels; leave "
                "it out."
            )
