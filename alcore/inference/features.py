"""Samples with the features and outputs that a learner computes for them, held in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch

from alcore.errors import QueryError, UsageError
from alcore.outputs.kinds import take_rows


class Features(NamedTuple):
    """Samples with their features.

    Parameters
    ----------
    ids
        Sample ids: int64 (N,). They are -1 for labeled samples whose ids are unknown or are those of another pool.
    features
        Shape (N, D), on the CPU: float64 if the learner computes in it, else float32.
    outputs
        What the learner returned, on the CPU: N on the first axis, or on the second of posterior samples (K, N, C).
    targets
        Labels, shape (N, ...), or None if they are not known.
    """

    ids: torch.Tensor
    features: torch.Tensor
    outputs: torch.Tensor
    targets: torch.Tensor | None = None

    def take(self, rows: Any) -> Features:
        """Return some of the samples, by a slice, a mask or positions."""
        targets = None if self.targets is None else self.targets[rows]
        return Features(self.ids[rows], self.features[rows], take_rows(self.outputs, rows), targets)


_Part = tuple[Features, tuple[int, ...]]
"""Features, and how often each of their tensors had been written to."""

_MOST_PARTS = 8  # of one kind in the cache; each is looked through for the samples that are wanted


class FeatureCache:
    """Keeps features for as long as the model stays the same and nobody writes to them.

    Parameters
    ----------
    limit
        Bytes to keep at most; features beyond that are computed each time.

    Notes
    -----
    Features are kept in the parts in which they were computed, since putting parts together copies them.
    """

    def __init__(self, limit: int = 2**29) -> None:
        self._limit = limit
        self._kept: dict[str, list[_Part]] = {}
        self._model = ""

    def find(self, model: str, kind: str) -> list[Features]:
        """Return the features of this kind for this state of the model: parts, each ascending by id.

        What a strategy wrote to, though it is to read alone, is left out: the next strategy must not get it.
        """
        kept = self._kept.get(kind, []) if model == self._model else []
        return [features for features, versions in kept if _versions(features) == versions]

    def keep(self, model: str, kind: str, features: Features) -> None:
        """Keep features, ascending by id. Features for another state of the model are dropped."""
        if model != self._model:
            self._model, self._kept = model, {}
        self._kept = {
            name: [part for part in parts if _versions(part[0]) == part[1]] for name, parts in self._kept.items()
        }
        used = sum(_bytes(features) for parts in self._kept.values() for features, _ in parts)
        if len(features.ids) and used + _bytes(features) <= self._limit:
            parts = self._kept.get(kind, [])
            if len(parts) == _MOST_PARTS:
                features, parts = _merged([*(part for part, _ in parts), features]), []
            self._kept[kind] = [*parts, (features, _versions(features))]


def _versions(features: Features) -> tuple[int, ...]:
    """Return how often each tensor was written to, as torch counts it."""
    return tuple(part._version for part in features if isinstance(part, torch.Tensor) and not part.is_inference())


def _bytes(features: Features) -> int:
    return sum(part.numel() * part.element_size() for part in features if isinstance(part, torch.Tensor))


def refuse_non_finite(samples: Features) -> None:
    """Raise `QueryError` if features are NaN or infinite or outputs are NaN; the message names the samples."""
    refuse_non_finite_features(samples)
    outputs = samples.outputs
    if outputs.numel() and bool(outputs.amax().isnan()):
        _refuse(samples.ids, "outputs", (outputs.movedim(1, 0) if outputs.dim() == 3 else outputs).isnan())


def refuse_non_finite_features(samples: Features) -> None:
    """Raise `QueryError` if features are NaN or infinite; the message names the samples."""
    features = samples.features
    if features.numel() and not all(bool(end.isfinite()) for end in features.aminmax()):
        _refuse(samples.ids, "features", ~features.isfinite())


def _refuse(ids: torch.Tensor, what: str, bad: torch.Tensor) -> None:
    rows = (bad.flatten(1).any(dim=1) if bad.dim() > 1 else bad).nonzero().flatten()[:5]
    have_ids = bool((ids[rows] >= 0).all())
    which = "sample" if have_ids else "the labeled sample at position"
    numbers = (ids[rows] if have_ids else rows).tolist()
    raise QueryError(
        f"the {what} of {which} {', '.join(map(str, numbers))} are NaN or infinite, so "
        "samples can't be compared; look at their inputs, and at the learner's weights."
    )


def common(ids: torch.Tensor, others: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the places of the ids that are in both of two ascending tensors, in one and in the other: int64 (m,)."""
    if len(ids) > len(others):
        there, here = common(others, ids)
        return here, there
    places = torch.searchsorted(others, ids)
    here = torch.nonzero(others[places.clamp(max=len(others) - 1)] == ids).flatten() if len(others) else places[:0]
    return here, places[here]


def put_together(ids: torch.Tensor, parts: Sequence[tuple[torch.Tensor, Features]]) -> Features:
    """Return samples whose features come in parts: for each the places of its samples among the ids, int64 (m,)."""
    first = parts[0][1]
    axis = 1 if first.outputs.dim() == 3 else 0
    features = first.features.new_empty(len(ids), *first.features.shape[1:])
    shape = first.outputs.shape
    outputs = first.outputs.new_empty(*shape[:axis], len(ids), *shape[axis + 1 :])
    for places, part in parts:
        features[places] = part.features
        outputs.index_copy_(axis, places, part.outputs)
    return Features(ids, features, outputs)


def _merged(parts: Sequence[Features]) -> Features:
    """Return the samples of all parts, none of which is in two, ascending by id."""
    ids, order = torch.cat([part.ids for part in parts]).sort()
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order))
    each = torch.split(places, [len(part.ids) for part in parts])
    return put_together(ids, list(zip(each, parts, strict=True)))


def join_chunks(ids: torch.Tensor, n: int, pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> Features:
    """Join chunks of features and outputs.

    The tensors for all N rows are allocated first and filled chunk by chunk, so that memory holds N rows once.

    Parameters
    ----------
    ids
        Sample ids: int64 (N,).
    n
        Number of samples, N.
    pairs
        Features (b, D) and outputs of each chunk, in the order of the ids.
    """
    features, outputs, row = torch.empty(0, 0), torch.empty(0, 0), 0
    for some, out in pairs:
        axis = 1 if out.dim() == 3 else 0
        if not row:
            features = some.new_empty(n, *some.shape[1:])
            outputs = out.new_empty(*out.shape[:axis], n, *out.shape[axis + 1 :])
        if some.shape[1:] != features.shape[1:]:
            raise UsageError(
                f"samples have different numbers of features, {features.shape[1]} and {some.shape[1]}; name another "
                "layer, whose output is of one size."
            )
        features[row : row + len(some)] = some
        outputs.narrow(axis, row, len(some)).copy_(out)
        row += len(some)
    return Features(ids, features, outputs)
