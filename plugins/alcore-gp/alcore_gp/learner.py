"""A Gaussian process as the learner of a run."""

from __future__ import annotations

import math
import warnings
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
_OF_90 = 1.6448536269514722  # the normal distribution has 90% within so many standard deviations
_SURE = 50.0
_JITTER = (0.0, 1e-8, 1e-6, 1e-4)  # added to the diagonal until there is a Cholesky factor


class GaussianProcess(torch.nn.Module):
    """Gaussian process regression, trained exactly, anew in each step.

    Parameters
    ----------
    kernel
        Covariance function, with a lengthscale for each input (ARD): ``"matern"`` (smoothness 5/2) or ``"rbf"``.
    starts
        From how many points the search for hyperparameters starts, at least 1; the likelihood may have several maxima.
    search_labels
        On how many labels hyperparameters are searched for, at most; all if None. They are drawn at random.
    max_labels
        To how many labels it is fitted, at most, with a warning where there are more; they are drawn at random in each
        step. None: more than 8000 are refused.
    linear
        Whether to average over two processes, by how well they predict: linear functions, and the kernel with a linear
        part. It helps where labels are few for the number of inputs.
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

    With `linear`, mean and variance are those of the mixture of both processes. The share of a process with p
    hyperparameters is proportional to ``exp(sqrt(m) (L - p / m))``: L is the mean log density of each of the m labels
    of the search given the others (Rasmussen and Williams 2006, section 5.4.2), and p / m corrects for the
    hyperparameters that were fitted to them (Akaike 1974); the root in place of m (Yao et al. 2018 on why not m) lets a
    single process win only where it is clearly better.

    Where labels are left that hyperparameters were not searched on, all variances are scaled by a factor: the one with
    which intervals of 90% hold 90% of the labels, each predicted from all others, as far as there are many more of
    these labels than 50: ``(h q^2 + 50) / (h + 50)`` for h such labels, whose errors have the 90% quantile ``1.645 q``
    in standard deviations.

    Everything is computed in double precision, whatever the precision of the run. Time O(n^3) an iteration of the fit
    for n labels, and O(n^2) a prediction; memory O(n^2). The state holds the labels in double precision.

    Its features, where strategies ask for them, are the scaled inputs in units of the lengthscales.

    References
    ----------
    Rasmussen and Williams (2006), Gaussian processes for machine learning, MIT Press; Akaike (1974), A new look at the
    statistical model identification, IEEE Transactions on Automatic Control; Yao, Vehtari, Simpson and Gelman (2018),
    Using stacking to average Bayesian predictive distributions, Bayesian Analysis.
    """

    outputs = "mean-variance"

    labeled_inputs: torch.Tensor
    labeled_targets: torch.Tensor
    input_low: torch.Tensor
    input_span: torch.Tensor
    input_center: torch.Tensor
    target_mean: torch.Tensor
    target_scale: torch.Tensor
    lengthscale: torch.Tensor
    outputscale: torch.Tensor
    linear: torch.Tensor
    noise: torch.Tensor
    constant: torch.Tensor
    share: torch.Tensor
    spread: torch.Tensor
    factor: torch.Tensor
    weights: torch.Tensor

    def __init__(
        self,
        kernel: Kernel = "matern",
        starts: int = 2,
        search_labels: int | None = None,
        linear: bool = False,
        info: DataInfo | None = None,
        max_labels: int | None = None,
    ) -> None:
        super().__init__()
        check_choice("learner gp", "kernel", kernel, KERNELS)
        if starts < 1:
            raise UsageError(f"learner gp: starts is {starts}; the search starts from at least 1 point.")
        if search_labels is not None and search_labels < 1:
            raise UsageError(f"learner gp: search_labels is {search_labels}; the search needs at least 1 label.")
        if max_labels is not None and not 0 < max_labels <= _MOST_LABELS:
            raise UsageError(f"learner gp: max_labels is {max_labels}; it is from 1 to {_MOST_LABELS}.")
        if info is not None and info.task != "regression":
            raise UsageError(
                f"learner gp: it is for a regression, and the task of this data is {info.task}; use another learner, "
                "or declare the data a regression (--set data.csv.task=regression)."
            )
        self.kernel: Kernel = kernel
        self.starts = starts
        self.search_labels = search_labels
        self.max_labels = max_labels
        self.averages = linear
        for name, shape in _SHAPES.items():
            sizes = [{"T": 1, "P": 1}.get(axis, 0) for axis in shape]
            self.register_buffer(name, torch.zeros(sizes, dtype=torch.float64))
        for name in ("target_scale", "outputscale", "share", "spread"):
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
        means, variances = self._posteriors(self._scaled(rows))
        mean, variance = self._mixture(means, variances + self.noise[:, None])
        scale = self.target_scale[:, None]
        variance = variance * self.spread[:, None]
        return torch.cat([mean * scale + self.target_mean[:, None], variance * scale.square()]).mT

    def _posteriors(self, scaled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return means and variances without noise of all processes, each (P, B), of standardized targets."""
        shared = self._shared(scaled)
        return self._means(shared), self._variance(scaled, shared)

    def _mixture(self, means: torch.Tensor, variances: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and variance of the mixture of each quantity's processes: (P, B) to (T, B)."""
        apart = self._apart(means)
        return self._mixed(means), self._mixed(variances + apart.square())

    def _apart(self, means: torch.Tensor) -> torch.Tensor:
        """Return how far the mean of each process is from that of the mixture: (P, B)."""
        return means - self._of_processes(self._mixed(means))

    def _means(self, shared: torch.Tensor) -> torch.Tensor:
        """Return the posterior means of all processes, (P, B), of standardized targets."""
        return self.constant[:, None] + (shared * self.weights[:, :, None]).sum(dim=1)

    def _mixed(self, values: torch.Tensor) -> torch.Tensor:
        """Return for each quantity the mean of its processes by their shares: (P, ...) to (T, ...)."""
        quantities = len(self.target_mean)
        if len(values) == quantities:
            return values
        shares = self.share.reshape(-1, *[1] * (values.dim() - 1))
        mixed: torch.Tensor = (values * shares).reshape(quantities, -1, *values.shape[1:]).sum(dim=1)
        return mixed

    def _of_processes(self, values: torch.Tensor) -> torch.Tensor:
        """Return what quantities have for each of their processes: (T, ...) to (P, ...)."""
        return values.repeat_interleave(len(self.share) // len(values), dim=0)

    def _shared(self, scaled: torch.Tensor) -> torch.Tensor:
        """Return the prior covariances of labeled inputs with others: shape (P, n, B)."""
        if not len(self.labeled_inputs):
            return scaled.new_empty(len(self.outputscale), 0, len(scaled))
        return self._prior(self.labeled_inputs, scaled, self.lengthscale)

    def _prior(self, a: torch.Tensor, b: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the prior covariances between scaled inputs: shape (P, A, B)."""
        prior = self.outputscale[:, None, None] * correlations(self.kernel, a, b, lengths)
        if not len(self.input_center):
            return prior
        products: torch.Tensor = (a - self.input_center) @ (b - self.input_center).mT
        return prior + self.linear[:, None, None] * products

    def _variance(self, scaled: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
        """Return the posterior variances without noise, (P, B), of standardized targets."""
        prior = self.outputscale[:, None]
        if not shared.shape[1]:
            return prior.expand(-1, shared.shape[2])
        if len(self.input_center):
            prior = prior + self.linear[:, None] * (scaled - self.input_center).square().sum(dim=1)
        explained = torch.linalg.solve_triangular(self.factor, shared, upper=False).square().sum(dim=1)
        variance: torch.Tensor = (prior - explained).clamp_min(0)
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
        squared = self.target_scale.square() * self.spread
        if b is None:
            parts = [self._mixture(*self._posteriors(self._scaled(part)))[1] for part in self._parts(self._rows(a))]
            return torch.cat(parts, dim=1) * squared[:, None]
        left, right = self._scaled(self._rows(a)), self._scaled(self._rows(b))
        labeled = len(self.labeled_inputs)
        lengths = self.lengthscale if labeled else left.new_full((1, left.shape[1]), start_length(left.shape[1]))
        covariance = self._prior(left, right, lengths)
        if labeled:
            shared = [self._shared(side) for side in (left, right)]
            told = [torch.linalg.solve_triangular(self.factor, side, upper=False) for side in shared]
            apart = [self._apart(self._means(side)) for side in shared]
            covariance = covariance - told[0].mT @ told[1] + apart[0][:, :, None] * apart[1][:, None]
        scaled: torch.Tensor = self._mixed(covariance) * squared[:, None, None]
        return scaled

    def features(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return scaled inputs in units of the lengthscales, of several processes their geometric mean: (B, D)."""
        scaled = self._scaled(self._rows(inputs))
        return scaled / self._mixed(self.lengthscale.log()).mean(dim=0).exp() if len(self.labeled_inputs) else scaled

    def fit_batches(self, batches: Iterable[Any], generator: torch.Generator) -> None:
        """Fit to labeled items.

        Parameters
        ----------
        batches
            Inputs (B, ...) and targets (B,) or (B, ...), batch by batch.
        generator
            Where starts of the search, and labels, are drawn from.
        """
        pairs = [(self._rows(inputs), targets.detach().double().flatten(1)) for inputs, targets in _pairs(batches)]
        if not pairs:
            return
        rows, targets = (torch.cat(tensors).cpu() for tensors in zip(*pairs, strict=True))
        if self.max_labels is not None and len(rows) > self.max_labels:
            warnings.warn(
                f"learner gp: there are more labels than max_labels, and it is fitted to {self.max_labels} of them, "
                "drawn at random; --learner mlp, or another one, learns from all.",
                stacklevel=2,
            )
            drawn = _drawn(len(rows), self.max_labels, generator)
            rows, targets = rows[drawn], targets[drawn]
        _check(rows, targets)
        low, high = rows.amin(dim=0), rows.amax(dim=0)
        span = torch.where(high > low, high - low, 1.0)
        varies = targets.amax(dim=0) > targets.amin(dim=0)
        mean = targets.mean(dim=0)
        scale = torch.where(varies, targets.std(dim=0, correction=0), 1.0)
        inputs, values = (rows - low) / span, (targets - mean) / scale
        searched = _drawn(len(rows), self.search_labels, generator)
        center = inputs.mean(dim=0) if self.averages else None
        kernels = [self.kernel] if center is None else [None, self.kernel]
        fits = [
            fit(inputs[searched], of_quantity[searched], kernel, self.starts if kernel else 1, generator, center)
            for of_quantity in values.T.contiguous()
            for kernel in kernels
        ]
        state = {
            "labeled_inputs": inputs,
            "labeled_targets": values,
            "input_low": low,
            "input_span": span,
            "input_center": inputs.new_empty(0) if center is None else center,
            "target_mean": mean,
            "target_scale": scale,
            "share": torch.ones(len(fits), dtype=torch.float64),  # judged below, where there are several
            "spread": torch.ones_like(mean),
            **{name: torch.stack([getattr(fitted, name) for fitted in fits]) for name in fits[0]._fields},
        }
        device = self.noise.device
        for name, value in state.items():
            setattr(self, name, value.to(device))
        self._factorize()
        if self.averages:
            self._judge(searched)
        self._widen(searched)

    def _judge(self, searched: torch.Tensor) -> None:
        """Set the shares of the processes, by how well each predicts a label of the search from the others."""
        searched = searched.to(self.noise.device)
        inputs, targets = self.labeled_inputs[searched], self.labeled_targets[searched]
        count, width = inputs.shape
        factor = self.factor if count == len(self.labeled_inputs) else self._factor_of(inputs)
        _, left, variance = self._left_out(factor, targets)
        density = (-0.5 * (left.square() / variance + variance.log())).mean(dim=1)
        fitted = density.new_tensor([3.0, width + 4.0]).repeat(targets.shape[1])
        score = (math.sqrt(count) * (density - fitted / count)).reshape(-1, 2)
        self.share = score.softmax(dim=1).flatten()

    def _widen(self, searched: torch.Tensor) -> None:
        """Set the factors of the variances, by the labels that hyperparameters were not searched on."""
        others = torch.ones(len(self.labeled_inputs), dtype=torch.bool)
        others[searched] = False
        count = int(others.sum())
        if not count:
            return
        means, _, variances = self._left_out(self.factor, self.labeled_targets)
        mean, variance = self._mixture(means, variances)
        errors = (self.labeled_targets.T - mean).abs() / variance.sqrt()
        quantile = torch.quantile(errors[:, others.to(errors.device)], 0.9, dim=1, interpolation="higher") / _OF_90
        self.spread = (count * quantile.square() + _SURE) / (count + _SURE)

    def _left_out(self, factor: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return what each process predicts for each label from all others: means, errors and variances, (P, n).

        `factor` is that of `_factor_of`, of the inputs with these targets.
        """
        inverse = torch.cholesky_inverse(factor)
        values = self._of_processes(targets.T)
        precision = inverse.diagonal(dim1=1, dim2=2)
        left = (inverse @ (values - self.constant[:, None])[:, :, None])[:, :, 0] / precision
        return values - left, left, 1 / precision

    def _factorize(self) -> None:
        """Compute what predictions need of labels and hyperparameters."""
        count = len(self.labeled_inputs)
        if not count:
            self.factor = self.noise.new_empty(len(self.noise), 0, 0)
            self.weights = self.noise.new_empty(len(self.noise), 0)
            return
        self.factor = self._factor_of(self.labeled_inputs)
        left = (self._of_processes(self.labeled_targets.T) - self.constant[:, None])[:, :, None]
        self.weights = torch.cholesky_solve(left, self.factor)[:, :, 0]

    def _factor_of(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the Cholesky factors of the covariances of labels, with their noise, at scaled inputs: (P, n, n)."""
        covariance = self._prior(inputs, inputs, self.lengthscale)
        diagonal = covariance.diagonal(dim1=1, dim2=2)
        diagonal += self.noise[:, None]
        for jitter in _JITTER:
            diagonal += jitter
            factor: torch.Tensor
            factor, failed = torch.linalg.cholesky_ex(covariance)
            if not bool(failed.any()):
                return factor
        raise UsageError("learner gp: the covariance of the labels has no Cholesky factor; are inputs alike?")

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Take back a state with any number of labels; those of earlier versions have one process a quantity."""
        quantities = state_dict.get(prefix + "target_mean")
        if isinstance(quantities, torch.Tensor) and isinstance(state_dict, dict):
            ones = torch.ones(len(quantities), dtype=torch.float64)
            state_dict.setdefault(prefix + "linear", torch.zeros_like(ones))
            state_dict.setdefault(prefix + "share", ones)
            state_dict.setdefault(prefix + "spread", ones)
            state_dict.setdefault(prefix + "input_center", ones.new_empty(0))
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
    "input_center": "D",
    "target_mean": "T",
    "target_scale": "T",
    "lengthscale": "PD",
    "outputscale": "P",
    "linear": "P",
    "noise": "P",
    "constant": "P",
    "share": "P",
    "spread": "T",
}
"""The persistent buffers, by axes: n labels, D inputs, T quantities, P processes (those of a quantity together)."""


def _pairs(batches: Iterable[Any]) -> Iterator[tuple[Any, torch.Tensor]]:
    for batch in batches:
        inputs, targets = batch
        yield inputs, targets[:, None] if targets.dim() == 1 else targets


def _drawn(count: int, most: int | None, generator: torch.Generator) -> torch.Tensor:
    """Return at most so many of `count` places, drawn at random, ascending; all if `most` is None."""
    if most is None or count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=generator)[:most].sort().values


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
