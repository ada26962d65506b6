"""Pools of samples that are held in memory or memory-mapped."""

from __future__ import annotations

import dataclasses
import hashlib
import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from alcore.errors import UsageError
from alcore.pools.info import ArrayLike, infer_info
from alcore.pools.rows import GrowingRows, Rows
from alcore.pools.values import input_fault, value_fault
from alcore.protocols import DataInfo, Label
from alcore.tensors import bytes_of

_DIGEST_WHOLE = 64 * 2**20  # bytes; of a larger array, the digest covers a sample of its rows
_DIGEST_ROWS = 4096
_INTEGERS = frozenset((torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64))


def as_sample_id(item: Any) -> int | None:
    """Return the sample id that `item` is, or None if it is something else.

    Sample ids are integers of any library, and integer tensors or arrays of no dimensions; bools are not.
    """
    if type(item) is int:
        return item
    if isinstance(item, bool | np.bool_) or getattr(item, "dtype", None) == torch.bool:
        return None
    if getattr(item, "shape", ()) != ():
        return None
    try:
        return operator.index(item)
    except TypeError:
        return None


class TensorPool:
    """Samples as rows of a tensor, an array or a memory-mapped array, some of them labeled.

    Parameters
    ----------
    inputs
        Shape (N, ...). Of a memory-mapped array, only the requested rows are read.
    targets
        Shape (N, ...), or None if no answer is known: then each label must come with its value.
        The dtype is kept.
    labeled
        Ids of the samples that are labeled at the start, in training order; none by default.
    info
        What is known about the data; inferred from `inputs` and `targets` if it is not given. A pool without `targets`
        has None then: its task is not guessed.
    costs
        What the label of each sample costs, in the units of ``DriverConfig.budget``: shape (N,), or a function of the
        sample id. The ``cost`` of a label strategy takes precedence.

    Notes
    -----
    The sample id is the row number. Appending a sample id marks it as labeled; appending a
    ``Label(id, value)`` sets its target too; appending ``(input, target)`` adds a new row. Memory is one
    byte a sample, beside the data itself, and what was appended: values and new rows are kept apart from the given
    arrays, which are neither copied nor written to, so an append takes the time of its own row. Targets that are not
    given take no memory until they are known.
    """

    def __init__(
        self,
        inputs: ArrayLike,
        targets: ArrayLike | None = None,
        labeled: Sequence[int] | torch.Tensor | np.ndarray[Any, Any] | None = None,
        info: DataInfo | None = None,
        costs: ArrayLike | Callable[[int], float] | None = None,
    ) -> None:
        if targets is not None and len(targets) != len(inputs):
            raise UsageError(f"TensorPool: {len(inputs)} inputs but {len(targets)} targets; one each is needed.")
        if costs is not None and not callable(costs) and len(costs) != len(inputs):
            raise UsageError(f"TensorPool: {len(inputs)} inputs but {len(costs)} costs; one each is needed.")
        self._inputs, self._reader = inputs, Rows(inputs)
        self._costs = costs if costs is None or callable(costs) else np.asarray(costs)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*not writable")  # nothing is written to it
            self._targets = None if targets is None else torch.as_tensor(targets)
        self._mask = torch.zeros(len(inputs), dtype=torch.bool)  # of the given rows; those that were added are labeled
        self._ids: list[int] = []
        self._order: torch.Tensor | None = None
        self._added: GrowingRows | None = None  # inputs of new rows
        self._values: GrowingRows | None = None  # targets that came with labels
        self._value_of: dict[int, int] = {}  # their rows, by sample id
        self._value_rows: torch.Tensor | None = None  # the same in training order, and -1 for other samples
        self.info = info if info is not None else infer_info(inputs, self._targets)
        initial = torch.as_tensor(() if labeled is None else labeled, dtype=torch.int64).flatten()
        self._mark_initial(initial)
        # classes that are counted in labeled samples alone may not be all
        self._more_classes = info is None and targets is not None and len(initial) == len(inputs)

    @property
    def total(self) -> int:
        """Number of samples, labeled or not."""
        return len(self._mask) + (0 if self._added is None else len(self._added))

    @property
    def knows_answers(self) -> bool:
        """Whether a sample id alone is enough to label it."""
        return self._targets is not None

    def __len__(self) -> int:
        """Return the number of labeled samples."""
        return len(self._ids)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return input and target of the labeled sample at a position of the training order."""
        return self.answer(self._ids[index])

    @property
    def labeled_ids(self) -> torch.Tensor:
        """Ids of the labeled samples in training order: int64, shape (L,)."""
        if self._order is None:
            self._order = torch.tensor(self._ids, dtype=torch.int64)
        return self._order

    def batch(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return many labeled samples at once.

        Parameters
        ----------
        positions
            Places in the training order: int64, shape (B,).

        Returns
        -------
        tuple of torch.Tensor
            Inputs (B, ...) and targets (B, ...), copies.
        """
        ids = self.labeled_ids[positions]
        if self._values is not None and self._value_rows is None:
            self._value_rows = torch.tensor([self._value_of.get(sample, -1) for sample in self._ids])
        return self.inputs(ids), self._targets_of(
            ids, None if self._value_rows is None else self._value_rows[positions]
        )

    def inputs(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the inputs of these samples: shape (B, ...); writing to them does not change the pool."""
        if self._reader.array is not self._inputs:  # a subclass replaced them
            self._reader = Rows(self._inputs)
        if self._added is None:
            return self._reader.take(ids)
        first = len(self._mask)
        added = ids >= first
        if not bool(added.any()):
            return self._reader.take(ids)
        if bool(added.all()):
            return self._added.rows[ids - first]
        inputs = self._reader.take(torch.where(added, 0, ids))
        inputs[added] = self._added.rows[ids[added] - first]
        return inputs

    def unlabeled_indices(self, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Return the unlabeled ids in ``range(start, stop)``: int64, shape (U,), ascending."""
        labeled = self._mask.numpy()[start:stop]  # numpy is several times as fast as torch here
        if not labeled.any():
            return torch.from_numpy(np.arange(start, start + len(labeled)))
        unlabeled = np.flatnonzero(~labeled)
        return torch.from_numpy(unlabeled + start if start else unlabeled)

    def answer(self, sample: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return input and target of any sample whose answer is known."""
        ids = torch.tensor([sample])
        rows = None if self._values is None else torch.tensor([self._value_of.get(sample, -1)])
        targets = self._targets_of(ids, rows)
        return self.inputs(ids)[0], targets[0]

    def cost(self, sample: int) -> float | None:
        """Return what the label of a sample costs; None for a pool without `costs`."""
        if self._costs is None:
            return None
        return float(self._costs(sample) if callable(self._costs) else self._costs[sample])

    def costs_of(self, samples: torch.Tensor) -> torch.Tensor | None:
        """Return what the labels of samples, int64 (n,), cost: float64 (n,); None for a pool without `costs`."""
        if self._costs is None:
            return None
        if callable(self._costs):
            return torch.tensor([float(self._costs(sample)) for sample in samples.tolist()], dtype=torch.float64)
        return torch.as_tensor(self._costs[samples.numpy()], dtype=torch.float64)

    def append(self, item: Any) -> None:
        """Add a labeled sample: a sample id, a ``Label``, or an ``(input, target)`` pair."""
        if fault := self.check_item(item):
            raise UsageError(f"TensorPool: {fault}.")
        sample = as_sample_id(item)
        if sample is not None:
            self._mark(sample)
        elif not isinstance(item, Label):
            self._extend(item[0], item[1])
        elif (sample := as_sample_id(item.item)) is None:
            self._extend(item.item, item.value)
        else:
            self._mark(sample)
            self._set_target(sample, item.value)

    def check_item(self, item: Any) -> str | None:
        """Return what keeps an item from being appended, or None: a sample id, a ``Label``, or a pair, see `append`."""
        sample = as_sample_id(item)
        if sample is not None:
            if not self.knows_answers:
                return (
                    f"sample {sample} was labeled by its id alone, but this pool has no targets; deliver "
                    "alcore.Label(id, value) instead"
                )
            return self._fault_of_id(sample)
        if isinstance(item, Label):
            sample = as_sample_id(item.item)
            named = self._fault_of_row(item.item) if sample is None else self._fault_of_id(sample)
            return named or self.check(item.value)
        if isinstance(item, Sequence) and not isinstance(item, str | bytes) and len(item) == 2:
            return self._fault_of_row(item[0]) or self.check(item[1])
        return f"can't append {type(item).__name__}; give a sample id, an alcore.Label, or an (input, target) pair"

    def check_input(self, item: Any) -> str | None:
        """Return what keeps an input from being added as a new row, or None."""
        if isinstance(self._inputs, np.memmap):
            return "a memory-mapped pool can't take new inputs; use a pool in memory"
        example = self._inputs[0] if len(self._inputs) else torch.zeros(self._inputs.shape[1:])
        if fault := input_fault(item, example):
            return fault
        if tuple(item.shape) != tuple(self._inputs.shape[1:]):
            return f"an input of shape {tuple(item.shape)}, not {tuple(self._inputs.shape[1:])}"
        return None

    def check(self, value: Any) -> str | None:
        """Return what is wrong with the value of a label, or None if it fits the targets."""
        fault = value_fault(
            value, dataclasses.replace(self.info, classes=0) if self.info and self._more_classes else self.info
        )
        targets = self._known_targets
        if fault or targets is None:
            return fault
        if type(value) is int and targets.ndim == 1 and targets.dtype in _INTEGERS:  # what most labels are: no tensor
            limits = torch.iinfo(targets.dtype)
            fits = limits.min <= value <= limits.max or not self.knows_answers
            return None if fits else f"it is too large for targets of dtype {targets.dtype}"
        given = torch.as_tensor(value)
        if given.shape != targets.shape[1:]:
            return f"its shape {tuple(given.shape)} is not the targets' {tuple(targets.shape[1:])}"
        if given.is_complex() and not targets.is_complex():
            return f"it is complex, and the targets are {targets.dtype}"
        if self.knows_answers and not targets.is_floating_point():
            if given.is_floating_point() and not torch.equal(given, given.round()):
                return f"it is a fraction, and the targets are {targets.dtype}"
            if bool((given.to(targets.dtype) != given).any()):
                return f"it is too large for targets of dtype {targets.dtype}"
        return None

    def digest(self) -> str:
        """Return 64 hexadecimal digits that identify samples, targets and labeled ids.

        Of an array of more than 64 MiB, the digest covers the shape and 4096 evenly spaced rows.
        """
        digest = hashlib.sha256()
        appended = [None if added is None else added.rows for added in (self._added, self._values)]
        for array in (self._inputs, self._targets, *appended):
            if array is not None:
                digest.update(f"{tuple(array.shape)} {array.dtype}".encode())
                rows = array
                if np.prod(array.shape) * array.dtype.itemsize > _DIGEST_WHOLE:
                    rows = array[np.linspace(0, len(array) - 1, _DIGEST_ROWS).astype(np.int64)]
                # as a tensor where it is one, since NumPy lacks some of torch's types
                digest.update(bytes_of(rows).numpy().data if isinstance(rows, torch.Tensor) else rows.tobytes())
        digest.update(self.labeled_ids.numpy().tobytes())
        if self._value_of:
            digest.update(np.array(list(self._value_of)).tobytes())
        return digest.hexdigest()

    @property
    def _known_targets(self) -> torch.Tensor | None:
        """Some targets, whose dtype and shape are those of all; None before any is known."""
        if self._targets is not None:
            return self._targets
        return None if self._values is None else self._values.rows

    def _targets_of(self, ids: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
        """Return the targets of samples, whose rows among the values that came with labels are known, or -1."""
        if rows is None or self._values is None:
            if self._targets is None:
                raise UsageError("TensorPool: no targets, so nothing can be trained on before a label arrives.")
            return self._targets[ids]
        given = rows < 0
        if not bool(given.any()):
            return self._values.rows[rows]
        if self._targets is None:
            raise UsageError(
                f"TensorPool: the target of sample {int(ids[given][0])} is not known; deliver alcore.Label(id, value)."
            )
        targets = self._targets[torch.where(given, ids, 0)]
        targets[~given] = self._values.rows[rows[~given]]
        return targets

    def _fault_of_row(self, row: Any) -> str | None:
        """Return what is wrong with a new row; a list of numbers is one too."""
        try:
            return self.check_input(torch.as_tensor(row) if isinstance(row, Sequence) else row)
        except (TypeError, ValueError, RuntimeError):
            return f"an input of shape {tuple(self._inputs.shape[1:])} can't be made of {row!r:.60}"

    def _fault_of_id(self, sample: int) -> str | None:
        if not 0 <= sample < self.total:
            return f"there is no sample {sample}; ids go from 0 to {self.total - 1}"
        return f"sample {sample} is labeled already" if sample >= len(self._mask) or self._mask[sample] else None

    def _mark_initial(self, ids: torch.Tensor) -> None:
        """Mark samples as labeled; `UsageError` names the first that is none, or is named twice."""
        inside = ids[(ids >= 0) & (ids < len(self._mask))]
        self._mask[inside] = True
        if int(self._mask.sum()) == len(ids):
            self._ids = ids.tolist()
            return
        self._mask[:] = False
        for sample in ids.tolist():
            self._mark(sample)

    def _mark(self, sample: int) -> None:
        if fault := self._fault_of_id(sample):
            raise UsageError(f"TensorPool: {fault}.")
        self._mask[sample] = True
        self._add_id(sample)

    def _add_id(self, sample: int) -> None:
        self._ids.append(sample)
        self._order = self._value_rows = None

    def _set_target(self, sample: int, value: Any) -> None:
        given = torch.as_tensor(value)
        if self._values is None:
            self._values = GrowingRows(tuple(given.shape), given if self._targets is None else self._targets)
        elif self._targets is None:  # the first label may have been an integer, and this one a fraction
            self._values.cast(torch.promote_types(self._values.rows.dtype, given.dtype))
        self._value_of[sample] = len(self._values)
        self._values.add(given)

    def _extend(self, row: Any, target: Any) -> None:
        """Add a new labeled row."""
        new = torch.as_tensor(row)
        if self._added is None:
            self._added = GrowingRows(tuple(new.shape), self._inputs)
        sample = self.total
        self._added.add(new)
        self._add_id(sample)
        self._set_target(sample, target)


def is_choosable(pool: Any) -> bool:
    """Return whether shipped query strategies can choose from a pool, as from a `alcore.protocols.ChoosablePool`."""
    # what isinstance() does with the protocol, which takes many times as long
    return getattr(pool, "unlabeled_indices", None) is not None and getattr(pool, "inputs", None) is not None
