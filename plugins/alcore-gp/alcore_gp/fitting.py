"""Fit the hyperparameters of a Gaussian process: the largest posterior density, by gpytorch and L-BFGS-B."""

from __future__ import annotations

import contextlib
import functools
import math
import operator
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize

from alcore_gp.kernels import Kernel

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # linear_operator uses torch.jit.script
    import gpytorch
    from gpytorch.constraints import GreaterThan
    from gpytorch.priors import GammaPrior, LogNormalPrior
    from linear_operator.utils.errors import NanError, NotPSDError
    from linear_operator.utils.warnings import NumericalWarning

Array = np.ndarray[Any, Any]
LEAST_NOISE = 1e-6
"""Least variance of the noise, of standardized targets."""
_LEAST_LENGTH = 1e-3  # of inputs in the unit cube
_MOST_ITERATIONS = 200
_FAILED = 1e10
_FEW = 500  # labels


class Hyperparameters(NamedTuple):
    """What is fitted, for standardized targets and inputs in the unit cube, float64: `lengthscale` has shape (D,)."""

    lengthscale: torch.Tensor
    outputscale: torch.Tensor
    linear: torch.Tensor
    noise: torch.Tensor
    constant: torch.Tensor


def fit(
    inputs: torch.Tensor,
    targets: torch.Tensor,
    kernel: Kernel | None,
    starts: int,
    generator: torch.Generator,
    center: torch.Tensor | None = None,
) -> Hyperparameters:
    """Return the hyperparameters of one Gaussian process with the highest posterior density found.

    Parameters
    ----------
    inputs
        In the unit cube: float64, shape (N, D).
    targets
        Of mean 0 and variance 1: float64, shape (N,).
    kernel
        Covariance function, with a lengthscale for each input (ARD). None: linear functions alone, that is, Bayesian
        linear regression.
    starts
        From how many points the search starts; the first is fixed, and the others are drawn.
    generator
        What they are drawn from.
    center
        Where it is given, the covariance has a linear part too: ``linear (x - c)(x' - c)``, with this c, shape (D,). It
        must be given where `kernel` is None.

    Notes
    -----
    Priors: lengthscales log-normal with location ``sqrt(2) + log(D) / 2`` and scale ``sqrt(3)`` (Hvarfner, Hellsten and
    Nardi, Vanilla Bayesian optimization performs great in high dimensions, ICML 2024), the outputscale log-normal with
    location 0 and scale 1, the noise nearly flat: gamma with shape 1.1 and rate 0.05. The constant mean has no prior.
    The variance of a slope, `linear`, is log-normal with location ``log(3 / D)`` and scale 2.
    """
    model = _Model(inputs, targets, kernel, center).double()
    likelihood = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
    model.train()
    parameters = list(model.parameters())
    first = np.concatenate([parameter.detach().flatten().numpy() for parameter in parameters])
    best, least = first, math.inf
    with _exact(len(targets)):
        for number in range(starts):
            start = first if not number else first + _spread(model, generator)
            result = minimize(
                _objective(model, likelihood, parameters, inputs, targets),
                start,
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": _MOST_ITERATIONS},
            )
            if float(result.fun) < least:
                best, least = result.x, float(result.fun)
    _set(parameters, best)
    hyperparameters: Hyperparameters = model.hyperparameters()
    return hyperparameters


def start_length(width: int) -> float:
    """Return the lengthscale that the search starts from, of inputs in the unit cube of some dimension."""
    return 0.5 * math.sqrt(width)


class _Model(gpytorch.models.ExactGP):  # type: ignore[misc]  # gpytorch has no types
    """A Gaussian process with a constant mean; all parameters but that are optimized as logarithms."""

    def __init__(
        self, inputs: torch.Tensor, targets: torch.Tensor, kernel: Kernel | None, center: torch.Tensor | None
    ) -> None:
        noise = gpytorch.likelihoods.GaussianLikelihood(
            noise_prior=GammaPrior(1.1, 0.05), noise_constraint=_above(LEAST_NOISE)
        )
        super().__init__(inputs, targets, noise)
        width = inputs.shape[1]
        self.mean_module = gpytorch.means.ConstantMean()
        self.smooth = None if kernel is None else _smooth(kernel, width)
        self.slopes = None if center is None else _slopes(width)
        self.center = center
        noise.noise = 1e-2

    def forward(self, inputs: torch.Tensor) -> Any:
        """Return the prior at some inputs."""
        parts = [self.smooth(inputs)] if self.smooth is not None else []
        if self.slopes is not None and self.center is not None:
            parts.append(self.slopes(inputs - self.center))
        covariance = functools.reduce(operator.add, parts)
        return gpytorch.distributions.MultivariateNormal(self.mean_module(inputs), covariance)

    def hyperparameters(self) -> Hyperparameters:
        """Return the values; of a part that it doesn't have the scale is 0, and lengthscales are 1."""
        noise, constant = self.likelihood.noise[0], self.mean_module.constant
        none, slopes, smooth = torch.zeros_like(constant), self.slopes, self.smooth
        values = (
            noise.new_ones(self.train_inputs[0].shape[1]) if smooth is None else smooth.base_kernel.lengthscale[0],
            none if smooth is None else smooth.outputscale,
            none if slopes is None else slopes.variance[0, 0],
            noise,
            constant,
        )
        return Hyperparameters(*(value.detach().clone() for value in values))


def _smooth(kernel: Kernel, width: int) -> Any:
    lengths = {
        "ard_num_dims": width,
        "lengthscale_prior": LogNormalPrior(math.sqrt(2) + math.log(width) / 2, math.sqrt(3)),
        "lengthscale_constraint": _above(_LEAST_LENGTH),
    }
    base = (
        gpytorch.kernels.RBFKernel(**lengths) if kernel == "rbf" else gpytorch.kernels.MaternKernel(nu=2.5, **lengths)
    )
    scaled = gpytorch.kernels.ScaleKernel(
        base, outputscale_prior=LogNormalPrior(0.0, 1.0), outputscale_constraint=_above(1e-4)
    )
    base.lengthscale = start_length(width)
    scaled.outputscale = 1.0
    return scaled


def _slopes(width: int) -> Any:
    location = 3 / width
    kernel = gpytorch.kernels.LinearKernel(
        variance_prior=LogNormalPrior(math.log(location), 2.0), variance_constraint=_above(1e-6)
    )
    kernel.variance = location
    return kernel


def _above(least: float) -> GreaterThan:
    return GreaterThan(least, transform=torch.exp, inv_transform=torch.log)


def _spread(model: _Model, generator: torch.Generator) -> Array:
    """Return a random distance from the first start, in logarithms; the mean is not moved."""
    parts = []
    for name, parameter in model.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parts.append((drawn * (0.0 if "mean" in name else 1.0)).flatten())
    return torch.cat(parts).numpy()


def _objective(
    model: _Model,
    likelihood: Any,
    parameters: list[torch.nn.Parameter],
    inputs: torch.Tensor,
    targets: torch.Tensor,
) -> Callable[[Array], tuple[float, Array]]:
    def objective(values: Array) -> tuple[float, Array]:
        _set(parameters, values)
        model.zero_grad()
        try:
            loss = -likelihood(model(inputs), targets)
            loss.backward()
        except (NanError, NotPSDError):
            return _FAILED, np.zeros_like(values)
        slope = torch.cat(
            [
                parameter.grad.flatten() if parameter.grad is not None else parameter.flatten() * 0
                for parameter in parameters
            ]
        )
        if not bool(torch.isfinite(loss)) or not bool(slope.isfinite().all()):
            return _FAILED, np.zeros_like(values)
        return float(loss.detach()), slope.detach().numpy()

    return objective


def _set(parameters: list[torch.nn.Parameter], values: Array) -> None:
    place = 0
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(torch.from_numpy(values[place : place + parameter.numel()]).reshape(parameter.shape))
            place += parameter.numel()


@contextlib.contextmanager
def _exact(count: int) -> Iterator[None]:
    """Compute by Cholesky factors, for any number of labels; those of a few on one thread, which is faster."""
    threads = torch.get_num_threads()
    direct = gpytorch.settings.fast_computations(covar_root_decomposition=False, log_prob=False, solves=False)
    with direct, gpytorch.settings.max_cholesky_size(2**31), warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericalWarning)  # of jitter that is added to a covariance
        torch.set_num_threads(1 if count <= _FEW else threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
