"""Which candidates are likely to have no label, while query strategies choose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from alcore.inference.feasibility import FeasibilityModel
from alcore.pools.batches import rows_within, tensors_of

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
        self._ids = torch.empty(0, dtype=torch.int64)
        self._probability = torch.empty(0)
        self._excludes = False

    @property
    def is_on(self) -> bool:
        """Whether anything is to be learned."""
        return self._mode != "off"

    def learn(
        self, pool: Any, feasible: Iterable[Any], infeasible: list[int], candidates: Iterator[torch.Tensor]
    ) -> dict[str, int] | None:
        """Learn from what has a label and what failed, and look at all candidates.

        Parameters
        ----------
        pool
            The pool to choose from.
        feasible
            Inputs of the labeled samples, batch by batch.
        infeasible
            Ids of the samples that failed as infeasible.
        candidates
            The ids that may be asked for, in ascending order.

        Returns
        -------
        dict or None
            How many samples were infeasible, how many candidates there are, and how many of them are likely to be;
            None where nothing can be learned.
        """
        known = [_finite(_rows(inputs)) for inputs in feasible]
        failed = _finite(_rows(pool.inputs(torch.tensor(sorted(infeasible))))) if infeasible else torch.empty(0)
        if not len(failed) or not any(map(len, known)):
            return None
        model = FeasibilityModel(torch.cat(known), failed)
        parts = [(ids, self._probabilities(model, pool, ids)) for ids in candidates]
        if not parts:
            return None
        self._ids, self._probability = (torch.cat(one) for one in zip(*parts, strict=True))
        unlikely = int((self._probability < _LIKELY).sum())
        self._excludes = unlikely < len(self._ids)
        if not self._excludes:
            self._warn(
                f"all {len(self._ids)} candidates are likely to be infeasible, by the {len(infeasible)} samples that "
                "failed so; none is left out."
            )
        return {"infeasible": len(infeasible), "candidates": len(self._ids), "unlikely": unlikely}

    @staticmethod
    def _probabilities(model: FeasibilityModel, pool: Any, ids: torch.Tensor) -> torch.Tensor:
        rows = rows_within(pool.inputs(ids[:1]), _BYTES)
        return torch.cat([model.probability(_rows(pool.inputs(part))).float() for part in torch.split(ids, rows)])

    def forget(self) -> None:
        """End the query phase."""
        self._ids, self._probability, self._excludes = torch.empty(0, dtype=torch.int64), torch.empty(0), False

    def weights(self, ids: torch.Tensor) -> torch.Tensor | None:
        """Return the probability of a label for candidates, float32 (n,); None where scores are not to be weighted."""
        return self._of(ids) if self._mode == "weight" and len(self._ids) else None

    def kept(self, ids: torch.Tensor) -> torch.Tensor:
        """Return those of some candidates that are likely to have a label."""
        return ids[self._of(ids) >= _LIKELY] if self._excludes else ids

    def offered(self, ids: torch.Tensor) -> torch.Tensor:
        """Return those of some candidates that any strategy may be given."""
        return self.kept(ids) if self._mode == "exclude" else ids

    def _of(self, ids: torch.Tensor) -> torch.Tensor:
        places = torch.searchsorted(self._ids, ids).clamp_max(len(self._ids) - 1)
        found = self._probability[places]
        return torch.where(self._ids[places] == ids, found, torch.ones_like(found))


def _rows(inputs: Any) -> torch.Tensor:
    """Return inputs with one row a sample, float64 on the CPU, of all the tensors of a sample."""
    return torch.cat([one.detach().cpu().double().flatten(1) if one.dim() > 1 else one.detach().cpu().double()[:, None]
                      for one in tensors_of(inputs)], dim=1)  # fmt: skip


def _finite(rows: torch.Tensor) -> torch.Tensor:
    """Return the rows without a number that is NaN or infinite; they are at no distance from others."""
    return rows[rows.isfinite().all(dim=1)]
