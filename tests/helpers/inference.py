"""A learner with features, and what stands for a driver where outputs are all that a test looks at."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import torch

from alcore.distributed.ranks import Ranks
from alcore.pools import TensorPool
from alcore.pools.candidates import Candidates


class Net(torch.nn.Module):
    """Two layers, an activation that works in place, and a head that stands first; counts how often it is called."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.head = torch.nn.Linear(5, 1)
        self.body = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.ReLU(inplace=True), torch.nn.Dropout(0.5))
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.head(self.body(x))


class Recorder:
    """Stands for a driver whose learner returns the sample ids; notes how many rows each forward pass has."""

    def __init__(self, n: int, row: int = 1, labeled: tuple[int, ...] = (), posterior: int = 0) -> None:
        inputs = torch.arange(n, dtype=torch.float32)[:, None].expand(n, row).clone()
        self.choice_pool = TensorPool(inputs, torch.zeros(n), labeled)
        self.posterior = posterior
        self.learner, self.batch_size, self.ranks = None, 1, Ranks()
        self.shapes: list[int] = []
        self.feasibility = SimpleNamespace(weights=lambda _ids: None, kept=lambda ids: ids)
        self._candidates = Candidates(self.choice_pool)

    def candidates(self, size: int = 2**16) -> Iterator[torch.Tensor]:
        return self._candidates.chunks(size)

    def safe_point(self) -> None:
        """Go on."""

    def costs(self, samples: torch.Tensor) -> torch.Tensor | None:
        """Return no costs."""

    def infer(self, inputs: torch.Tensor) -> torch.Tensor:
        self.shapes.append(len(inputs))
        outputs = inputs[:, :1].clone()
        return torch.stack([outputs] * self.posterior) if self.posterior else outputs
