"""Samples with what a learner makes of them: its features and outputs, held in memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch

from alcore.errors import QueryError, UsageError
from alcore.inference.outputs import take_rows


class Embedded(NamedTuple):
    """Samples with their features.

    Parameters
    ----------
    ids
        Sample ids: int64 (N,); -1 for labelled samples of a pool that has no ids, or other ones.
    features
        Shape (N, D), on the CPU: float64 where the learner computes in it, else float32.
    outputs
        What the learner returned, on the CPU: N along the first axis, or along the second of posterior samples.
    targets
        Labels, shape (N, ...), or None where they are not known.
    """

    ids: torch.Tensor
    features: torch.Tensor
    outputs: torch.Tensor
    targets: torch.Tensor | None = None

    def take(self, rows: Any) -> Embedded:
        """Return some of the samples, by a slice, a mask or positions."""
        targets = None if self.targets is None else self.targets[rows]
        return Embedded(self.ids[rows], self.features[rows], take_rows(self.outputs, rows), targets)


class FeatureCache:
    """Keeps features for as long as the model stays the same.

    Parameters
    ----------
    limit
        Bytes that may be kept; what goes beyond is computed anew each time.
    """

    def __init__(self, limit: int = 2**29) -> None:
        self._limit = limit
        self._kept: dict[str, Embedded] = {}
        self._model = ""

    def find(self, model: str, kind: str) -> Embedded | None:
        """Return what is kept of this kind for this state of the model, ascending by id."""
        return self._kept.get(kind) if model == self._model else None

    def keep(self, model: str, kind: str, embedded: Embedded) -> None:
        """Keep what was computed, ascending by id, in place of what was kept for another state of the model."""
        if model != self._model:
            self._model, self._kept = model, {}
        used = sum(_bytes(one) for name, one in self._kept.items() if name != kind)
        if used + _bytes(embedded) <= self._limit:
            self._kept[kind] = embedded


def _bytes(embedded: Embedded) -> int:
    return sum(part.numel() * part.element_size() for part in embedded if isinstance(part, torch.Tensor))


def refuse_non_finite(embedded: Embedded) -> None:
    """Raise `QueryError`, naming samples whose features or outputs can't be compared: NaN, or infinite features."""
    refuse_non_finite_features(embedded)
    outputs = embedded.outputs
    if outputs.numel() and bool(outputs.amax().isnan()):
        _refuse(embedded.ids, "outputs", (outputs.movedim(1, 0) if outputs.dim() == 3 else outputs).isnan())


def refuse_non_finite_features(embedded: Embedded) -> None:
    """Raise `QueryError`, naming samples whose features are NaN or infinite."""
    features = embedded.features
    if features.numel() and not all(bool(end.isfinite()) for end in features.aminmax()):
        _refuse(embedded.ids, "features", ~features.isfinite())


def _refuse(ids: torch.Tensor, what: str, bad: torch.Tensor) -> None:
    rows = (bad.flatten(1).any(dim=1) if bad.dim() > 1 else bad).nonzero().flatten()[:5]
    known = bool((ids[rows] >= 0).all())
    which = "sample" if known else "the labelled sample at position"  # a pool may know no ids
    raise QueryError(
        f"the {what} of {which} {', '.join(map(str, (ids[rows] if known else rows).tolist()))} are NaN or infinite, so "
        "samples can't be compared; look at their inputs, and at the learner's weights."
    )


def merged(one: Embedded, other: Embedded) -> Embedded:
    """Return the samples of both, ascending by id."""
    axis = 1 if one.outputs.dim() == 3 else 0
    ids = torch.cat([one.ids, other.ids])
    features, outputs = torch.cat([one.features, other.features]), torch.cat([one.outputs, other.outputs], axis)
    return Embedded(ids, features, outputs).take(ids.argsort())


def joined(ids: torch.Tensor, n: int, pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> Embedded:
    """Put chunks of features and outputs into one tensor each, made beforehand: N rows are held once, not twice."""
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
    return Embedded(ids, features, outputs)
