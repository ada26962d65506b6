"""The pool of a design space: candidates are computed from their ids, and labels come from outside."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from alcore.errors import UsageError
from alcore.pools import DataInfo, TensorPool, as_sample_id
from alcore.protocols import Label
from alcore_space.constraints import Formula
from alcore_space.design_space import Space, columns_of
from alcore_space.designs import Points
from alcore_space.sequence import Grid
from alcore_space.variables import Array

_MOST_LISTED = 2**27  # ids in one call: 1 GiB


class SpacePool:
    """Candidates of a design space, without memory of their own, and the points that are labeled.

    Parameters
    ----------
    space
        The space.
    points
        Gives the place of a candidate in the unit cube by its id: `Sobol`, or `Grid` for a finite space.
    candidates
        How many there are; their ids are 0 to ``candidates - 1``. Those that break a constraint are never listed.
    candidates_per_step
        How many of the ids a step looks at; the next step looks at the following ones.
    info
        What is known about the data.
    start, held_out
        The points of the start design, and those to measure on: places in the unit cube, float64, shapes (n,
        variables) and (m, variables).

    costs
        What the label of a point costs; 1 if it is not given.
    fidelity
        The variable that says how exact a label is to be; None where all are alike.

    Attributes
    ----------
    space : Space
        The space.
    info : DataInfo
        What is known about the data.
    held_out : TensorPool
        The labeled points that are measured on; it fills as their labels are appended here.
    start_ids : list of int
        What a start has to ask for: the points to measure on, then the start design.

    Notes
    -----
    Of a space that is no grid, the points of the start, and generated ones, have ids from `candidates` on. A generated
    point is a mapping of values by name, in the units of the variables. Memory is that of the labels.
    """

    knows_answers = False

    def __init__(
        self,
        space: Space,
        points: Points,
        candidates: int,
        candidates_per_step: int,
        info: DataInfo,
        start: Array,
        held_out: Array,
        costs: Formula | None = None,
        fidelity: str | None = None,
    ) -> None:
        self.space, self.info = space, info
        self._points, self._candidates, self._per_step = points, candidates, min(candidates_per_step, candidates)
        self._costs, self._fidelity = costs, fidelity
        self._added: list[dict[str, Any]] = []  # points with ids from _candidates on
        held, first = self._ids_of(held_out), self._ids_of(start)
        self._held = frozenset(held)
        self.start_ids = list(dict.fromkeys([*held, *first]))
        self._labeled = TensorPool(torch.empty(0, space.features), info=info)
        self.held_out = TensorPool(torch.empty(0, space.features), info=info)
        self._ids: list[int] = []
        self._known: set[int] = set()  # all that are labeled, held out or not
        self._taken: Array | None = np.empty(0, dtype=np.int64)  # the same, ascending; None if it is out of date

    def _ids_of(self, unit: Array) -> list[int]:
        """Return the ids of points, which get new ones unless the candidates are all points that there are."""
        if isinstance(self._points, Grid):
            ids: list[int] = self._points.ids(unit).tolist()
            return ids
        first = self.total
        values = self.space.values(unit)
        self._added += [{name: column[row].item() for name, column in values.items()} for row in range(len(unit))]
        return list(range(first, self.total))

    @property
    def is_finite(self) -> bool:
        """Whether the candidates are all points that there are."""
        return isinstance(self._points, Grid)

    # -- the candidates ---------------------------------------------------------------------------------

    @property
    def total(self) -> int:
        """Number of ids: candidates, points of the start, and generated points."""
        return self._candidates + len(self._added)

    def step_range(self, step: int) -> tuple[int, int]:
        """Return the candidates of a step: the ids in ``range(start, stop)``."""
        parts = -(-self._candidates // self._per_step)
        start = step % parts * self._per_step
        return start, min(start + self._per_step, self._candidates)

    def unlabeled_indices(self, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Return the unlabeled ids in ``range(start, stop)`` that break no constraint: int64, shape (U,), ascending."""
        stop = self.total if stop is None else min(stop, self.total)
        if stop - start > _MOST_LISTED:
            raise UsageError(
                f"SpacePool: {stop - start:,} ids don't fit in one list; ask for a part of them with "
                "unlabeled_indices(start, stop), or for those of a step with driver.candidates()."
            )
        ids = np.arange(start, max(start, stop))
        if self.space.constraints:
            own = ids[ids < self._candidates]
            allowed = self.space.allowed(self.space.values(self._points(own))) if len(own) else own[:0]
            ids = np.concatenate([own[allowed.astype(np.bool_)], ids[len(own) :]])
        if self._known:
            if self._taken is None:
                self._taken = np.array(sorted(self._known), dtype=np.int64)
            low, high = np.searchsorted(self._taken, [start, stop])
            if low < high:
                ids = ids[~np.isin(ids, self._taken[low:high], assume_unique=True)]
        return torch.from_numpy(ids)

    def inputs(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the learner's inputs of these samples: float32, shape (B, features), between 0 and 1."""
        numbers = ids.numpy()
        self._refuse_unknown(numbers)
        added = numbers >= self._candidates
        if not added.any():
            return torch.from_numpy(self.space.scaled(self._points(numbers)))
        rows = np.empty((len(numbers), self.space.features), dtype=np.float32)
        rows[~added] = self.space.scaled(self._points(numbers[~added]))
        points = [self._added[number] for number in (numbers[added] - self._candidates).tolist()]
        rows[added] = self.space.inputs(columns_of(points, self.space.names))
        return torch.from_numpy(rows)

    @property
    def units(self) -> dict[str, str]:
        """The units of the variables, by name; those without one are left out."""
        return {variable.name: variable.unit for variable in self.space.variables if variable.unit}

    def shown(self, samples: Sequence[int]) -> dict[str, list[Any]]:
        """Return the values of these samples by variable, in its unit and at full precision."""
        numbers = np.array(list(samples), dtype=np.int64)
        self._refuse_unknown(numbers)
        own = self.space.values(self._points(numbers[numbers < self._candidates]))
        columns = {name: iter(column.tolist()) for name, column in own.items()}
        added = [None if number < self._candidates else self._added[number - self._candidates] for number in samples]
        return {
            name: [next(columns[name]) if point is None else point[name] for point in added]
            for name in self.space.names
        }

    def cost(self, sample: int) -> float | None:
        """Return what the label of a sample costs; None where the space doesn't say."""
        costs = self.costs_of(torch.tensor([sample]))
        return None if costs is None else float(costs[0])

    def costs_of(self, samples: torch.Tensor) -> torch.Tensor | None:
        """Return what the labels of these samples cost: float64, shape (n,); None where the space doesn't say."""
        if self._costs is None:
            return None
        numbers = samples.numpy()
        self._refuse_unknown(numbers)
        costs = np.empty(len(numbers))
        added = numbers >= self._candidates
        if not added.all():
            costs[~added] = self._costs.values(self.space.values(self._points(numbers[~added])))
        if added.any():
            points = [self._added[number] for number in (numbers[added] - self._candidates).tolist()]
            costs[added] = self._costs.values(columns_of(points, self.space.names))
        refuse_costs(self._costs, costs, lambda place: self.shown([int(numbers[place])]))
        return torch.from_numpy(costs)

    def input_cost(self, item: Mapping[str, Any]) -> float | None:
        """Return what the label of a generated point costs; None where the space doesn't say."""
        if self._costs is None:
            return None
        costs = np.asarray(self._costs.values(columns_of([item], self.space.names)), dtype=np.float64)
        refuse_costs(self._costs, costs, lambda _: {name: [item[name]] for name in self.space.names})
        return float(costs[0])

    def input_fidelity(self, item: Mapping[str, Any]) -> Any:
        """Return how exact the label of a generated point is to be, as `fidelity` does for a sample."""
        return None if self._fidelity is None else _plain(item[self._fidelity])

    def as_input(self, item: Mapping[str, Any]) -> torch.Tensor:
        """Return the learner's input of a generated point: float32, shape (features,), between 0 and 1."""
        return torch.from_numpy(self.space.inputs(columns_of([item], self.space.names)))[0]

    def fidelity(self, sample: int) -> Any:
        """Return how exact the label of a sample is to be: the value of the variable of that name, or None."""
        return None if self._fidelity is None else self.shown([sample])[self._fidelity][0]

    def at_highest_fidelity(self, samples: torch.Tensor) -> torch.Tensor | None:
        """Return the inputs of these samples at the highest fidelity, (n, features); None without a fidelity."""
        return self.moved_to_highest(self.inputs(samples))

    def moved_to_highest(self, inputs: torch.Tensor) -> torch.Tensor | None:
        """Return inputs of a learner, (n, features), at the highest fidelity; None without a fidelity."""
        if self._fidelity is None:
            return None
        columns, top = self.space.highest_inputs(self._fidelity)
        moved = inputs.clone()
        moved[:, columns] = torch.from_numpy(top)
        return moved

    def without_added(self, points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return those of some points that are neither of the start nor generated ones that are labeled."""
        added = {tuple(point[name] for name in self.space.names) for point in self._added}
        return [point for point in points if tuple(point[name] for name in self.space.names) not in added]

    def _refuse_unknown(self, numbers: Array) -> None:
        if len(numbers) and not (numbers.min() >= 0 and numbers.max() < self.total):
            bad = int(numbers[(numbers < 0) | (numbers >= self.total)][0])
            raise UsageError(f"SpacePool: there is no sample {bad}; ids go from 0 to {self.total - 1}.")

    # -- the labeled points --------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Return the number of labeled points that are trained on."""
        return len(self._ids)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return input and target of the labeled point at a position of the training order."""
        return self._labeled[index]

    @property
    def labeled_ids(self) -> torch.Tensor:
        """Ids of the labeled points in training order: int64, shape (L,)."""
        return torch.tensor(self._ids, dtype=torch.int64)

    def batch(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return labeled points at positions of the training order: inputs (B, features) and targets (B, ...)."""
        return self._labeled.batch(positions)

    def append(self, item: Any) -> None:
        """Add the label of a candidate, or of a generated point: a ``Label`` of its id, or of its values by name."""
        if fault := self.check_item(item):
            raise UsageError(f"SpacePool: {fault}.")
        sample = as_sample_id(item.item)
        if sample is None:
            self._added.append({name: _plain(item.item[name]) for name in self.space.names})
            sample = self.total - 1
        row = (self.inputs(torch.tensor([sample]))[0], self._target(item.value))
        if sample in self._held:
            self.held_out.append(row)
        else:
            self._labeled.append(row)
            self._ids.append(sample)
        self._known.add(sample)
        self._taken = None

    def check_item(self, item: Any) -> str | None:
        """Return what keeps an item from being appended, or None: a ``Label`` of a sample id or of a point."""
        if not isinstance(item, Label):
            what = type(item).__name__ if as_sample_id(item) is None else f"sample {as_sample_id(item)} by its id alone"
            return f"{what} was put, and a space doesn't know the answers; deliver alcore.Label(id, value)"
        sample = as_sample_id(item.item)
        if sample is None:
            return self.check_input(item.item) or self.check(item.value)
        if not 0 <= sample < self.total:
            return f"there is no sample {sample}; ids go from 0 to {self.total - 1}"
        return f"sample {sample} is labeled already" if sample in self._known else self.check(item.value)

    def check_input(self, item: Any) -> str | None:
        """Return what keeps a generated point from being asked for, or None."""
        if isinstance(item, torch.Tensor | np.ndarray):
            return (
                f"an array of shape {tuple(item.shape)}, and a generated point is a mapping of values by name, so that "
                "it can be labeled; pool.space.point(inputs) makes one of the learner's inputs"
            )
        if (fault := self.space.fault(item)) or not isinstance(self._points, Grid):
            return fault
        columns = columns_of([item], self.space.names)
        unit = np.stack([variable.places(columns[variable.name]) for variable in self.space.variables], axis=1)
        return f"this space is finite, and the point is sample {self._points.ids(unit)[0]}; put that id"

    def check(self, value: Any) -> str | None:
        """Return what is wrong with the value of a label, or None."""
        if self.info.task == "regression":
            if isinstance(value, Mapping | str):
                return f"a {type(value).__name__} is not a label; it must be {_wanted(self.info)}"
            try:
                given = torch.as_tensor(value)
            except (TypeError, ValueError, RuntimeError):
                return f"a {type(value).__name__} is not a label; it must be {_wanted(self.info)}"
            if given.is_complex():
                return "it is complex, and the target is real"
            shape = self.info.target_shape
            if tuple(given.shape) != shape and not (shape == () and given.numel() == 1):
                return f"its shape is {tuple(given.shape)}; it must be {_wanted(self.info)}"
            value = self._target(value)
            if not bool(value.isfinite().all()):
                return "it is NaN, infinite, or too large for single precision"
        return self._labeled.check(value)

    def _target(self, value: Any) -> torch.Tensor:
        if self.info.task == "classification":
            return torch.as_tensor(value).to(torch.int64)
        return torch.as_tensor(value).to(torch.float32).reshape(self.info.target_shape)

    def digest(self) -> str:
        """Return 64 hexadecimal digits that identify the space, its candidates and the labels."""
        digest = hashlib.sha256(json.dumps([self.space.describe(), self._candidates, self.info.task]).encode())
        few = np.unique(np.linspace(0, self._candidates - 1, 64).astype(np.int64))
        digest.update(self._points(few).tobytes())
        digest.update(json.dumps([self._added, sorted(self._held), self.start_ids, self._ids]).encode())
        for pool in (self._labeled, self.held_out):
            digest.update(pool.digest().encode())
        return digest.hexdigest()


def refuse_costs(costs: Formula, computed: Array, point: Callable[[int], Any]) -> None:
    """Raise `UsageError` for a cost that is negative or no number; `point` shows the values of one."""
    bad = np.flatnonzero(~(np.isfinite(computed) & (computed >= 0)))
    if len(bad):
        values = ", ".join(f"{name} = {value[0]}" for name, value in point(int(bad[0])).items())
        raise UsageError(
            f"the cost {costs.text!r} is {computed[bad[0]]:g} at {values}; it must be a number of at least 0 in the "
            "whole space."
        )


def _plain(value: Any) -> Any:
    """Return a value of a point without NumPy's or torch's type."""
    return value.item() if hasattr(value, "item") else value


def _wanted(info: DataInfo) -> str:
    if not info.target_shape:
        return "a number"
    return f"an array of shape {info.target_shape}"
