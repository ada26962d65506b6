"""Which candidates are likely to have no label, while query strategies choose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from alcore.inference.context import FeasibilityOfCandidates
from alcore.inference.feasibility import FeasibilityModel
from alcore.pools.batches import rows_within, tensors_of
from alcore.pools.offers import as_input
from alcore.pools.tensor_pool import as_sample_id

_BYTES = 2**22  # of inputs at a time
_LIKELY = 0.5  # a candidate with a lower probability of a label counts as infeasible


class Feasibility:
    """What is known in a query phase about which candidates have a label; nothing outside of one.

    Parameters
    ----------
    mode
        ``"off"``, ``"weight"`` or ``"exclude"``, as in `alcore.config.DriverConfig`.
    warn
        Logs a warning.
    """

    def __init__(self, mode: str, warn: Callable[[str], None]) -> None:
        self._mode, self._warn = mode, warn
        self._learned: _Learned | None = None

    @property
    def is_on(self) -> bool:
        """Whether anything is to be learned."""
        return self._mode != "off"

    def learn(
        self, pool: Any, feasible: Iterable[Any], infeasible: Sequence[Any], candidates: Iterator[torch.Tensor]
    ) -> dict[str, int] | None:
        """Learn from what has a label and what failed, and look at all candidates.

        Parameters
        ----------
        pool
            The pool to choose from.
        feasible
            Inputs of the labeled samples, batch by batch.
        infeasible
            What failed as infeasible: sample ids and generated inputs.
        candidates
            The ids that may be asked for, in ascending order.

        Returns
        -------
        dict or None
            How many samples and inputs were infeasible, how many candidates there are, and how many of them are likely
            to be; None where nothing can be learned.
        """
        succeeded = [_finite(_rows(inputs)) for inputs in feasible]
        width = next((rows.shape[1] for rows in succeeded if len(rows)), 0)
        failed = [_finite(rows) for rows in _failed_rows(infeasible, pool) if rows.shape[1] == width]
        if not any(map(len, failed)) or not any(map(len, succeeded)):
            return None
        model = FeasibilityModel(torch.cat(succeeded), torch.cat(failed))
        parts = [(ids, _probabilities(model, pool, ids)) for ids in candidates]
        if not parts:
            return None
        ids, probability = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        unlikely = int((probability < _LIKELY).sum())
        excludes = unlikely < len(ids)
        if not excludes:
            self._warn(
                f"all {len(ids)} candidates are likely to be infeasible, by the {len(infeasible)} samples that "
                "failed so; none is left out."
            )
        if len(ids):
            self._learned = _Learned(model, self._mode, excludes, lambda wanted: _looked_up(ids, probability, wanted))
        return {"infeasible": len(infeasible), "candidates": len(ids), "unlikely": unlikely}

    def forget(self) -> None:
        """End the query phase."""
        self._learned = None

    def over(self, pool: Any) -> FeasibilityOfCandidates:
        """Return this for the samples of another pool, such as points between the candidates.

        Parameters
        ----------
        pool
            ``inputs(ids)`` returns its inputs, which are like those of the pool to choose from.
        """
        return self if self._learned is None else self._learned.over(pool)

    def weights(self, ids: torch.Tensor) -> torch.Tensor | None:
        """Return the probability of a label for candidates, float32 (n,); None where scores are not to be weighted."""
        return None if self._learned is None else self._learned.weights(ids)

    def kept(self, ids: torch.Tensor) -> torch.Tensor:
        """Return those of some candidates that are likely to have a label."""
        return ids if self._learned is None else self._learned.kept(ids)

    def offered(self, ids: torch.Tensor) -> torch.Tensor:
        """Return those of some candidates that any strategy may be given."""
        return ids if self._learned is None else self._learned.offered(ids)


class _Learned:
    """What a model says about the samples of a pool, in a query phase; the methods are those of `Feasibility`.

    Parameters
    ----------
    model
        What was learned.
    mode
        ``"weight"`` or ``"exclude"``.
    excludes
        Whether samples are left out at all.
    probability
        Returns the probability of a label for samples, float32 (n,).
    """

    def __init__(
        self, model: FeasibilityModel, mode: str, excludes: bool, probability: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        self._model, self._mode, self._excludes, self._probability = model, mode, excludes, probability

    def over(self, pool: Any) -> _Learned:
        return _Learned(self._model, self._mode, self._excludes, lambda ids: _probabilities(self._model, pool, ids))

    def weights(self, ids: torch.Tensor) -> torch.Tensor | None:
        return self._probability(ids) if self._mode == "weight" else None

    def kept(self, ids: torch.Tensor) -> torch.Tensor:
        return ids[self._probability(ids) >= _LIKELY] if self._excludes else ids

    def offered(self, ids: torch.Tensor) -> torch.Tensor:
        return self.kept(ids) if self._mode == "exclude" else ids


def _looked_up(ids: torch.Tensor, probability: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the probabilities of samples among ascending ids; 1 for one that is not there."""
    places = torch.searchsorted(ids, wanted).clamp_max(len(ids) - 1)
    estimates = probability[places]
    return torch.where(ids[places] == wanted, estimates, torch.ones_like(estimates))


def _probabilities(model: FeasibilityModel, pool: Any, ids: torch.Tensor) -> torch.Tensor:
    if not len(ids):
        return torch.empty(0)
    rows = rows_within(pool.inputs(ids[:1]), _BYTES)
    return torch.cat([model.probability(_rows(pool.inputs(part))).float() for part in torch.split(ids, rows)])


def _failed_rows(items: Sequence[Any], pool: Any) -> Iterator[torch.Tensor]:
    """Yield the inputs of sample ids, in their order, and of generated inputs that are tensors, with a row each."""
    samples = sorted({sample for item in items if (sample := as_sample_id(item)) is not None})
    if samples:
        yield _rows(pool.inputs(torch.tensor(samples)))
    for item in items:
        if as_sample_id(item) is None:
            own = as_input(pool, item)
            if isinstance(own, torch.Tensor | np.ndarray):
                yield _rows(torch.as_tensor(own)[None])


def _rows(inputs: Any) -> torch.Tensor:
    """Return inputs with one row a sample, float64 on the CPU, of all the tensors of a sample."""
    tensors = [tensor.detach().cpu().double() for tensor in tensors_of(inputs)]
    return torch.cat([tensor.flatten(1) if tensor.dim() > 1 else tensor[:, None] for tensor in tensors], dim=1)


def _finite(rows: torch.Tensor) -> torch.Tensor:
    """Return the rows without a number that is NaN or infinite; they are at no distance from others."""
    return rows[rows.isfinite().all(dim=1)]
