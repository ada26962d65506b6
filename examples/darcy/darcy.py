"""Steady Darcy flow through a square of varying permeability, by scikit-fem, and a network for its pressure.

Water flows from the left edge, where the pressure is 1, to the right edge, where it is 0; the upper and the lower edge
are closed: ``div(k grad p) = 0``. The logarithm of the permeability k is a sum of five cosine waves, whose amplitudes
are variables of the space; `contrast` multiplies all of them. `pressure` is the solver, and `Pressure` the network: an
ensemble of small convolutional decoders, which map the variables to images of the pressure.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from skfem import Basis, BilinearForm, ElementQuad1, MeshQuad, condense, solve
from skfem.helpers import dot, grad

from alcore import DataInfo

WAVES = {"a10": (1, 0), "a01": (0, 1), "a11": (1, 1), "a20": (2, 0), "a02": (0, 2)}
"""Half waves along x and y of each amplitude."""
IMAGE = 17  # points along each edge
FINEST = 3  # the finest mesh has 16 x 16 elements, and each coarser one a quarter of them


class Grid(NamedTuple):
    """A mesh, with what doesn't depend on the permeability."""

    basis: Basis
    waves: dict[str, np.ndarray]  # at the points of quadrature
    image: Any  # maps pressures of nodes to those of the image


@BilinearForm
def diffusion(p: Any, q: Any, w: Any) -> Any:
    """Return the integrand of the weak form."""
    return w.permeability * dot(grad(p), grad(q))


@functools.cache
def grid(mesh: int) -> Grid:
    """Return a mesh level: 1 has 4 x 4 elements, and each further one four times as many."""
    nodes = np.linspace(0, 1, 2 ** (mesh + 1) + 1)
    basis = Basis(MeshQuad.init_tensor(nodes, nodes).with_defaults(), ElementQuad1())
    x, y = np.asarray(basis.global_coordinates())
    waves = {name: np.cos(math.pi * i * x) * np.cos(math.pi * j * y) for name, (i, j) in WAVES.items()}
    places = np.linspace(0, 1, IMAGE)
    return Grid(basis, waves, basis.probes(np.stack(np.meshgrid(places, places)).reshape(2, -1)))


def pressure(point: Mapping[str, float]) -> np.ndarray:
    """Return the pressure on a grid of 17 x 17 points, row by row from the lower edge: float64, shape (17, 17).

    Parameters
    ----------
    point
        The amplitudes of `WAVES`, ``contrast``, and ``mesh``, the level of the mesh (the finest if it is missing).
    """
    basis, waves, image = grid(int(point.get("mesh", FINEST)))
    log_k = point["contrast"] * sum(point[name] * wave for name, wave in waves.items())
    left, right = (basis.get_dofs(edge).flatten() for edge in ("left", "right"))
    boundary = np.zeros(basis.N)
    boundary[left] = 1.0
    matrix = diffusion.assemble(basis, permeability=np.exp(log_k))
    solved = solve(*condense(matrix, x=boundary, D=np.concatenate([left, right])))
    return (image @ solved).reshape(IMAGE, IMAGE)


class Pressure(torch.nn.Module):
    """An ensemble of decoders of images: posterior samples of the pressure, shape (K, B, 289).

    Parameters
    ----------
    info
        What is known about the data, with the number of inputs.
    members
        Number of decoders, K, at least 2. They see the same batches, and differ by their initial weights.

    Notes
    -----
    A decoder has two hidden layers, makes eight maps of 9 x 9 values, and one of 17 x 17 by a transposed convolution.
    It learns the difference from the mean of the labeled images, in units of their standard deviation.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, info: DataInfo, members: int = 5) -> None:
        super().__init__()
        self.members = torch.nn.ModuleList(decoder(info.features) for _ in range(members))
        self.register_buffer("mean", torch.zeros(IMAGE**2))
        self.register_buffer("scale", torch.ones(()))

    def begin_training(self, batches: Iterable[Any]) -> None:
        """Take mean and scale of the labeled images."""
        images = torch.cat([targets.flatten(1) for _, targets in batches])
        self.mean.copy_(images.mean(dim=0))
        self.scale.copy_((images - self.mean).square().mean().sqrt().clamp_min(1e-6))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map inputs of B samples to images of all members, with their values in one axis."""
        return self.mean + self.scale * self.standardized(inputs)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Return the sum of the members' mean squared errors, so that each is trained as it would be alone."""
        inputs, targets = batch
        wanted = (targets.flatten(1) - self.mean) / self.scale
        return (self.standardized(inputs) - wanted).square().mean(dim=(1, 2)).sum()

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Return no loss: the metrology measures on the held-out images, once a step and not in each epoch."""

    def standardized(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return what the decoders make of inputs between 0 and 1."""
        return torch.stack([member(2 * inputs - 1) for member in self.members])


def decoder(inputs: int) -> torch.nn.Sequential:
    """Return one member."""
    return torch.nn.Sequential(
        torch.nn.Linear(inputs, 64),
        torch.nn.SiLU(),
        torch.nn.Linear(64, 64),
        torch.nn.SiLU(),
        torch.nn.Linear(64, 8 * 81),
        torch.nn.SiLU(),
        torch.nn.Unflatten(1, (8, 9, 9)),
        torch.nn.ConvTranspose2d(8, 1, 3, stride=2, padding=1),
        torch.nn.Flatten(),
    )
