"""A pool of the samples of a map-style dataset, such as those of torchvision."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import default_collate

from alcore.errors import UsageError
from alcore.pools.batches import map_leaves, tensors_of
from alcore.pools.info import ArrayLike, infer_info
from alcore.pools.tensor_pool import TensorPool, as_sample_id
from alcore.protocols import DataInfo, Label
from alcore.tensors import bytes_of

_DIGEST_SAMPLES = 64


class MapDataset(Protocol):
    """A map-style dataset, such as a `torch.utils.data.Dataset` with ``__len__``."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, index: int, /) -> Any:
        """Return a sample: ``(input, target)``, or an input alone where the answer is not known."""


class DatasetPool:
    """Samples of a map-style dataset, some of them labeled; they are read when they are needed.

    Training gets inputs that `transform` was applied to, and everything else those of `plain_transform`: scoring,
    features, metrology and exports see the same input whenever they ask for it.

    Parameters
    ----------
    dataset
        Its samples are ``(input, target)``, or an input alone if no answer is known: then each label must come with
        its value.. The same index gives the same sample each time.
    labeled
        Ids of the samples that are labeled at the start, in training order; none by default.
    transform
        Makes the input that is trained on, of the dataset's; it may draw random numbers. `plain_transform` if None.
    plain_transform
        Makes the input for everything else, without random numbers. None leaves the dataset's as it is.
    targets
        The targets of all samples: shape (N, ...). If not given, those in the dataset's attribute ``targets``, as
        torchvision's datasets have it, unless it has a ``target_transform`` too; else they are read with the samples,
        once and all of them if there is no `info` either.
    info
        What is known about the data; inferred from the first sample and `targets` if not given.
    costs
        What the label of each sample costs: shape (N,), or a function of the sample id. The ``cost`` of a label
        strategy takes precedence.

    Raises
    ------
    UsageError
        For a dataset that has no length or no sample, and for `targets`, `costs` or ids that don't fit it.

    Notes
    -----
    The sample id is the index in the dataset. A batch is made by `torch.utils.data.default_collate`, and of labeled
    items by the training's ``collate_fn`` and ``num_dataloader_workers``. Random numbers of `transform` are those of
    the global generators, which ``alcore run`` and `torch.manual_seed` seed, and which a resumed run restores.
    New inputs can't be added. The digest covers the targets that are known and 64 evenly spaced inputs.

    Examples
    --------
    >>> pool = DatasetPool(CIFAR10("data"), range(100), transform=augment, plain_transform=ToTensor())
    """

    def __init__(
        self,
        dataset: MapDataset,
        labeled: Sequence[int] | torch.Tensor | np.ndarray[Any, Any] | None = None,
        *,
        transform: Callable[[Any], Any] | None = None,
        plain_transform: Callable[[Any], Any] | None = None,
        targets: ArrayLike | Sequence[Any] | None = None,
        info: DataInfo | None = None,
        costs: ArrayLike | Callable[[int], float] | None = None,
    ) -> None:
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise UsageError(
                f"DatasetPool: {type(dataset).__name__} is not a map-style dataset, which has len(dataset) and "
                "dataset[index]; samples that are only iterated over can't be chosen by their ids."
            )
        if not len(dataset):
            raise UsageError(f"DatasetPool: {type(dataset).__name__} has no sample.")
        self._dataset, self._transform, self._plain_transform = dataset, transform, plain_transform
        first = dataset[0]
        self._has_targets = _is_pair(first)
        _refuse_hidden_target(first)
        changed = getattr(dataset, "target_transform", None) is not None  # `targets` are those before it
        known_targets = None if changed else getattr(dataset, "targets", None)
        known_targets = known_targets if targets is None else targets
        if known_targets is None and self._has_targets and info is None:
            known_targets = [dataset[sample][1] for sample in range(len(dataset))]
        self._listed = None if known_targets is None else _as_targets(known_targets)
        if self._listed is not None and len(self._listed) != len(dataset):
            raise UsageError(
                f"DatasetPool: {len(dataset)} samples but {len(self._listed)} targets; one each is needed."
            )
        try:
            example = default_collate([self._plain_input(0)])
        except TypeError as error:
            what = type(self._plain_input(0)).__name__
            raise UsageError(
                f"DatasetPool: inputs are of type {what}, of which no batch can be made; give a plain_transform that "
                "makes tensors of them."
            ) from error
        if info is None and self._listed is not None:
            shape = tuple(example.shape[1:]) if isinstance(example, torch.Tensor) else ()
            info = infer_info(torch.empty((0, *shape)), self._listed)
        # what is labeled, and with which values, is kept by a pool whose inputs are the ids
        self._samples = TensorPool(np.arange(len(dataset)), self._listed, info=info, costs=costs)
        self.info = info
        for sample in _as_ids(labeled):
            self.append(sample)

    @property
    def total(self) -> int:
        """Number of samples, labeled or not."""
        return self._samples.total

    @property
    def knows_answers(self) -> bool:
        """Whether a sample id alone is enough to label it."""
        return self._listed is not None or self._has_targets

    @property
    def labeled_ids(self) -> torch.Tensor:
        """Ids of the labeled samples in training order: int64, shape (L,)."""
        return self._samples.labeled_ids

    @property
    def plain(self) -> PlainItems:
        """The labeled items with plain inputs, in training order."""
        return PlainItems(self)

    def __len__(self) -> int:
        """Return the number of labeled samples."""
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[Any, torch.Tensor]:
        """Return input and target of the labeled sample at a position of the training order, to train on."""
        sample, target = self._samples[index]
        if self._transform is None:
            return self._plain_input(int(sample)), target
        return self._transform(self._raw_input(int(sample))), target

    def plain_item(self, index: int) -> tuple[Any, torch.Tensor]:
        """Return plain input and target of the labeled sample at a position of the training order."""
        sample, target = self._samples[index]
        return self._plain_input(int(sample)), target

    def inputs(self, ids: torch.Tensor) -> Any:
        """Return the plain inputs of these samples as one batch, (B, ...)."""
        if not len(ids):
            return map_leaves(lambda leaf: leaf[:0], default_collate([self._plain_input(0)]))
        return default_collate([self._plain_input(sample) for sample in ids.tolist()])

    def unlabeled_indices(self, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Return the unlabeled ids in ``range(start, stop)``: int64, shape (U,), ascending."""
        return self._samples.unlabeled_indices(start, stop)

    def answer(self, sample: int) -> tuple[Any, torch.Tensor]:
        """Return plain input and target of any sample whose answer is known."""
        if self._listed is None and self._has_targets:
            return self._plain_input(sample), torch.as_tensor(self._dataset[sample][1])
        return self._plain_input(sample), self._samples.answer(sample)[1]

    def cost(self, sample: int) -> float | None:
        """Return what the label of a sample costs; None for a pool without `costs`."""
        return self._samples.cost(sample)

    def append(self, item: Any) -> None:
        """Add a labeled sample: a sample id, or a ``Label``."""
        if fault := self.check_item(item):
            raise UsageError(f"DatasetPool: {fault}.")
        self._samples.append(self._with_target(item))

    def check_item(self, item: Any) -> str | None:
        """Return what keeps an item from being appended, or None."""
        sample = as_sample_id(item.item if isinstance(item, Label) else item)
        if sample is None:
            return f"can't append {type(item).__name__}; give a sample id, or an alcore.Label of one"
        if not isinstance(item, Label) and self._listed is None and self._has_targets and 0 <= sample < self.total:
            return self._samples.check_item(Label(sample, 0)) or self.check(self._with_target(item).value)
        return self._samples.check_item(item)

    def check_input(self, item: Any) -> str | None:  # noqa: ARG002 - the protocol's
        """Return that an input can't be added."""
        return "a pool of a dataset can't take new inputs; use alcore.TensorPool"

    def check(self, value: Any) -> str | None:
        """Return what is wrong with the value of a label, or None if it fits the targets."""
        return self._samples.check(value)

    def digest(self) -> str:
        """Return 64 hexadecimal digits that identify samples, targets and labeled ids."""
        digest = hashlib.sha256(self._samples.digest().encode())
        places = np.unique(np.linspace(0, self.total - 1, _DIGEST_SAMPLES).astype(np.int64))
        for tensor in tensors_of([self.inputs(torch.tensor([place])) for place in places.tolist()]):
            digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(bytes_of(tensor).numpy().data)
        return digest.hexdigest()

    def _with_target(self, item: Any) -> Any:
        """Return a sample id with the target that only the dataset has; any other item as it is."""
        if isinstance(item, Label) or self._listed is not None or not self._has_targets:
            return item
        sample = as_sample_id(item)
        return item if sample is None or not 0 <= sample < self.total else Label(sample, self._dataset[sample][1])

    def _raw_input(self, sample: int) -> Any:
        item = self._dataset[sample]
        return item[0] if self._has_targets else item

    def _plain_input(self, sample: int) -> Any:
        raw = self._raw_input(sample)
        return raw if self._plain_transform is None else self._plain_transform(raw)


class PlainItems:
    """The labeled items of a `DatasetPool` with plain inputs, in training order: a map-style dataset.

    Parameters
    ----------
    pool
        The pool.
    """

    def __init__(self, pool: DatasetPool) -> None:
        self._pool = pool

    def __len__(self) -> int:
        """Return the number of labeled samples."""
        return len(self._pool)

    def __getitem__(self, index: int) -> tuple[Any, torch.Tensor]:
        """Return plain input and target of the labeled sample at a position of the training order."""
        return self._pool.plain_item(index)


_TARGET_KEYS = {"label", "labels", "target", "targets", "y"}


def _is_pair(sample: Any) -> bool:
    return isinstance(sample, tuple | list) and len(sample) == 2


def _refuse_hidden_target(sample: Any) -> None:
    """Raise `UsageError` for a sample whose target would be given to the learner as a part of the input."""
    several = isinstance(sample, tuple | list) and len(sample) != 2
    named = [key for key in sample if str(key).lower() in _TARGET_KEYS] if isinstance(sample, Mapping) else []
    if several or named:
        what = (
            f"a {type(sample).__name__} of {len(sample)} parts" if several else f"a mapping with the key {named[0]!r}"
        )
        raise UsageError(
            f"DatasetPool: a sample of the dataset is {what}; it must be (input, target), or an input alone, so that "
            "the learner is not given the answer. Wrap the dataset in one whose __getitem__ returns such a pair."
        )


def _as_ids(labeled: Any) -> list[int]:
    """Return sample ids as a list; raise `UsageError` for a mask, and for numbers that are not whole."""
    ids = torch.as_tensor([] if labeled is None else labeled).flatten()
    if len(ids) and (ids.dtype == torch.bool or ids.is_floating_point()):
        what = "a mask; its ids are mask.nonzero()" if ids.dtype == torch.bool else "of fractional numbers"
        raise UsageError(f"DatasetPool: labeled holds sample ids, which are integers, and this is {what}.")
    return [int(sample) for sample in ids.tolist()]


def _as_targets(values: Any) -> torch.Tensor:
    if isinstance(values, torch.Tensor):
        return values
    try:
        if isinstance(values, np.ndarray):
            return torch.as_tensor(values)
        return torch.stack([torch.as_tensor(value) for value in values])
    except (TypeError, ValueError, RuntimeError) as error:
        first = next(iter(values), None)
        raise UsageError(
            f"DatasetPool: targets can't be made a tensor, for instance a {type(first).__name__}; a target is a number "
            "or an array, of the same shape for each sample: a class is its place from 0 in a list of the classes."
        ) from error
