"""Samples with the features and outputs that a learner computes for them, held in memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch

from alcore.errors import QueryError, UsageError
from alcore.inference.outputs import take_rows


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


class FeatureCache:
    """Keeps features for as long as the model stays the same and nobody writes to them.

    Parameters
    ----------
    limit
        Bytes to keep at most; features beyond that are computed each time.
    """

    def __init__(self, limit: int = 2**29) -> None:
        self._limit = limit
        self._kept: dict[str, Features] = {}
        self._versions: dict[str, tuple[int, ...]] = {}
        self._model = ""

    def find(self, model: str, kind: str) -> Features | None:
        """Return the features of this kind for this state of the model, ascending by id, or None.

        What a strategy wrote to, though it is to read alone, is None: the next strategy must not get it.
        """
        kept = self._kept.get(kind) if model == self._model else None
        return kept if kept is not None and _versions(kept) == self._versions[kind] else None

    def keep(self, model: str, kind: str, features: Features) -> None:
        """Keep features, ascending by id. Features for another state of the model are dropped."""
        if model != self._model:
            self._model, self._kept = model, {}
        used = sum(_bytes(one) for name, one in self._kept.items() if name != kind)
        if used + _bytes(features) <= self._limit:
            self._kept[kind], self._versions[kind] = features, _versions(features)


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
    known = bool((ids[rows] >= 0).all())
    which = "sample" if known else "the labeled sample at position"
    raise QueryError(
        f"the {what} of {which} {', '.join(map(str, (ids[rows] if known else rows).tolist()))} are NaN or infinite, so "
        "samples can't be compared; look at their inputs, and at the learner's weights."
    )


def merge_by_id(one: Features, other: Features) -> Features:
    """Return the samples of both, ascending by id."""
    axis = 1 if one.outputs.dim() == 3 else 0
    ids = torch.cat([one.ids, other.ids])
    features, outputs = torch.cat([one.features, other.features]), torch.cat([one.outputs, other.outputs], axis)
    return Features(ids, features, outputs).take(ids.argsort())


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
