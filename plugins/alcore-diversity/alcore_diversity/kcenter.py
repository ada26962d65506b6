"""Greedy k-center (core-set): repeatedly choose the sample that is farthest from all labeled ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from alcore.inference import Features, labeled_features, learner_state, subset
from alcore.protocols import QueryQueue, RunContext
from alcore.strategies import SetQuery
from alcore_diversity.checks import chosen_features
from alcore_diversity.distances import Frame, blocks, exact_squares, joined, quick_squares
from alcore_diversity.nearest_center import NearestCenter

# Upper bounds are computed from few centers for all samples, and from more centers for the samples with large bounds.
_FIRST_CENTERS = 64  # centers for all samples
_SOME_CENTERS = 256  # centers for the _LOWERED samples with the largest bounds
_LOWERED = 3072  # samples; a fourth of them, again with the largest bounds, take all centers
_SHORTLIST = 256  # samples with exact distances, of which picks are made
_SMALL_BATCH = 16  # picks; for up to this many, half the shortlist and a third of the samples are enough
_MOST_KEPT = 2**29  # bytes of features kept between steps
_FEW_PICKS = 8  # of a shortlist; with fewer, more samples are lowered next time


def k_center(
    features: torch.Tensor, labeled: torch.Tensor, n: int, safe_point: Callable[[], object] = lambda: None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose the sample farthest from its nearest center, make it a center, and so on.

    Parameters
    ----------
    features
        Of N candidates: shape (N, D), finite.
    labeled
        The first centers: shape (L, D). If there are none, the candidate nearest to the mean of all is chosen first.
    n
        How many to choose; all N if there are fewer.
    safe_point
        Called regularly; it may raise to end the computation.

    Returns
    -------
    tuple of torch.Tensor
        Positions, int64 (k,), in the order in which they were chosen, and the distance of each to its nearest center
        at that time, float64 (k,): infinite for the first one if there were no centers.

    Notes
    -----
    Picks are those of Euclidean distances in double precision, of equal distances the first, although most distances
    are not computed. A product in single precision with an error bound gives each sample an upper bound from some
    centers. The bounds of the few samples with the largest ones are then lowered by all centers, and exact distances
    are computed for the largest of these. Picks are made among them while they exceed all other bounds.
    """
    return farthest_first(NearestCenter(features, labeled), n, safe_point)


def farthest_first(
    near: NearestCenter, n: int, safe_point: Callable[[], object] = lambda: None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose as `k_center`, from bounds that may be known already.

    Chosen samples become centers of `near`, and are not candidates afterwards.
    """
    n = min(n, int(np.count_nonzero(near.bound.numpy() >= 0)))
    picks: list[int] = []
    squares: list[float] = []
    if n and not len(near.centers):
        picks, squares = [nearest_to_mean(near.features)], [torch.inf]
        near.add(near.features[picks])
        near.store(torch.tensor(picks), torch.tensor([-1.0], dtype=torch.float64))
    near.lower(None, min(len(near.centers), _FIRST_CENTERS))
    sizes = (_LOWERED // 3, _SHORTLIST // 2) if n <= _SMALL_BATCH else (_LOWERED, _SHORTLIST)
    lowered, shortlist = sizes
    while len(picks) < n:
        safe_point()
        top, all_ = None, lowered > len(near) // 8
        if all_:
            near.lower(None, len(near.centers))
        else:
            top = _largest(near.bound, lowered)
            near.lower(top.rows, min(len(near.centers), _SOME_CENTERS))
            near.lower(_largest(near.bound, lowered // 4, top).rows, len(near.centers))
        new = _pick(near, _largest(near.bound, shortlist, top), n - len(picks))
        picks += [pick for pick, _ in new]
        squares += [square for _, square in new]
        shortlist = sizes[1] if new else 2 * shortlist
        lowered = 2 * lowered if not new or (len(new) < _FEW_PICKS and not all_) else sizes[0]
    return torch.tensor(picks, dtype=torch.int64), torch.tensor(squares, dtype=torch.float64).sqrt_()


class _Top(NamedTuple):
    """The samples with the largest bounds: ascending positions, and the best other sample, by (bound, position)."""

    rows: torch.Tensor
    next_bound: float
    next_row: int


def _largest(bound: torch.Tensor, size: int, among: _Top | None = None) -> _Top:
    """Return the samples with the largest bounds, of all samples or of an earlier result."""
    values = bound if among is None else bound[among.rows]
    if len(values) <= size:
        return among or _Top(torch.arange(len(bound)), -1.0, len(bound))
    plain = values.numpy()  # numpy is several times as fast as torch here
    least = np.partition(plain, len(plain) - size - 1)[len(plain) - size - 1]
    reach = torch.from_numpy(np.flatnonzero(plain >= least))
    tied = values[reach] == float(least)
    rest = tied & (tied.cumsum(0) > size - (~tied).sum())
    rows = reach if among is None else among.rows[reach]
    next_ = float(least), -int(rows[rest][0])
    if among is not None:
        next_ = max(next_, (among.next_bound, -among.next_row))
    return _Top(rows[~rest], next_[0], -next_[1])


def _pick(near: NearestCenter, top: _Top, n: int) -> list[tuple[int, float]]:
    """Choose up to n of the top samples, in order: those that no other sample can exceed."""
    settled = near.settle(top.rows)
    values = settled.values
    new: list[tuple[int, float]] = []
    while len(new) < n:
        best = int(values.argmax())  # of equal values the first
        square, pick = float(values[best]), int(top.rows[best])
        if square < max(top.next_bound, 0) or (square == top.next_bound and pick > top.next_row):
            break
        new.append((pick, square))
        if square:  # otherwise it coincides with a center
            settled.choose(best)
        values[best] = -1
    near.add(near.features[[pick for pick, square in new if square]])
    near.store(top.rows, values)
    return new


def nearest_to_mean(features: torch.Tensor) -> int:
    """Return the position of the sample nearest to the mean of all; of equally near ones the first."""
    parts = list(blocks(*features.shape))
    mean = torch.stack([features[part].double().sum(dim=0) for part in parts]).sum(dim=0, keepdim=True) / len(features)
    frame = Frame(features)
    center, norm = frame.scaled(mean)
    squares, error = [], []
    for part in parts:
        x, norms = frame.scaled(features[part])
        squares.append(quick_squares(x, norms, center, norm).flatten())
        error.append(frame.error(norms, float(norm)))
    quick, off = torch.cat(squares), torch.cat(error)
    rows = (quick - off <= (quick + off).amin()).nonzero().flatten()
    return int(rows[exact_squares(features[rows], mean).argmin()])


class _Kept(NamedTuple):
    """Kept for the next step: the state that features depend on, sample ids, ids of centers, and distances."""

    state: str
    ids: torch.Tensor
    centers: torch.Tensor
    near: NearestCenter


class KCenterQuery(SetQuery):
    """Ask for the samples farthest from all labeled ones: greedy k-center, known as core-set.

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.
    candidates
        How many unlabeled samples to choose from, drawn at random in each step; a float is a fraction of them, and
        None takes all.
    layer
        Features of a sample: ``""`` for the penultimate activations, ``"inputs"`` for the inputs, otherwise the dotted
        name of a submodule of the learner.

    Notes
    -----
    With f the features, L the labeled and the pending samples and P those picked so far, the next one is

        argmax over x of min over c in L and P of ||f(x) - f(c)||,

    of equally far ones that with the lowest id. With nothing labeled or pending, the sample nearest to the mean is
    first. The largest remaining distance is at most twice that of the best possible choice. The score is the distance.

    Time is O(N L D) at worst and usually a small part of that; memory O(N) beside the features, O(N D). If features
    stay the same, since they are the inputs or nothing is trained, up to 512 MiB of them are kept in memory between
    steps with their distances, and a step computes few distances. Picks don't depend on what is kept.

    It helps where the features tell samples apart well (pretrained or self-supervised ones) and batches are large. It
    is known to hurt with many classes or features, with outliers, for which it asks first, and with features
    of a learner that was trained on few labels.

    References
    ----------
    Sener and Savarese (2018), Active learning for convolutional neural networks: a core-set approach, ICLR.
    Gonzalez (1985), Clustering to minimize the maximum intercluster distance.
    """

    needs_outputs = False

    def __init__(self, max_samples: int = 10, candidates: int | float | None = None, layer: str = "") -> None:
        super().__init__(max_samples, candidates, layer)
        self._kept: _Kept | None = None

    def attach(self, driver: RunContext) -> None:
        """Receive the run; distances of an earlier run are dropped."""
        super().attach(driver)
        self._kept = None

    def choose(
        self, candidates: Features, labeled: Features, n: int, pending: Features | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return positions, farthest first, and their distances to the nearest center."""
        return farthest_first(_begin(candidates, labeled, pending), n, self.driver.safe_point)

    def sample(self, query_queue: QueryQueue, *args: Any, **kwargs: Any) -> None:
        """Ask for the samples that `choose` returns, starting from the distances of the previous step if possible."""
        ids = subset(self.driver, self.candidates, self.generator("candidates"))
        n = min(self.wanted, len(ids))
        if not n:
            return
        labeled = labeled_features(self.driver, self.layer, outputs=False)
        pending, state = self.gather_pending(), self._state()
        centers = labeled.ids if pending is None else torch.cat([labeled.ids, pending.ids])
        kept = self._take_kept(state, ids, centers, labeled, pending)
        if kept is None:
            near = _begin(self.gather(ids), labeled, pending)
            kept = _Kept(state, ids, centers, near)
        positions, distances = farthest_first(kept.near, n, self.driver.safe_point)
        chosen = kept.ids[positions]
        features = kept.near.features
        if state and features.numel() * features.element_size() <= _MOST_KEPT:
            self._kept = kept._replace(centers=torch.cat([centers, chosen]))
        query_queue.put_many(chosen.tolist(), distances.tolist())

    def _state(self) -> str:
        """Return the state that features depend on beside the inputs; "" if it may change in each step."""
        learner = self.driver.learner
        plain = not isinstance(learner, torch.nn.Module) and not callable(getattr(learner, "features", None))
        if self.layer == "inputs" or (not self.layer and plain):
            return "inputs"
        return "" if self.driver.trains else learner_state(self.driver)

    def _take_kept(
        self, state: str, ids: torch.Tensor, centers: torch.Tensor, labeled: Features, pending: Features | None
    ) -> _Kept | None:
        """Return what was kept, with samples labeled or requested since then as centers, or None if it can't be used.

        Parameters
        ----------
        state
            The state that features depend on.
        ids
            Of the candidates.
        centers
            Ids of the labeled and the pending samples, which follow.
        labeled, pending
            Those samples.
        """
        kept, self._kept = self._kept, None
        if kept is None or kept.state != state or not bool(torch.isin(kept.centers, centers).all()):
            return None
        if bool((centers < 0).any()):
            return None  # of a labeled sample without an id nobody knows whether it is new
        new = ~torch.isin(centers, kept.centers)
        rows = torch.searchsorted(kept.ids, centers[new]).clamp_(max=len(kept.ids) - 1)
        near = kept.near
        if not torch.equal(kept.ids[rows], centers[new]):
            return None  # one of them was not a candidate
        near.bound[rows] = -1
        left = kept.ids.numpy()[near.bound.numpy() >= 0]  # numpy is several times as fast as torch here
        if not np.array_equal(left, ids.numpy()):
            return None
        near.add(joined(near.features, labeled.features, *([] if pending is None else [pending.features]))[new])
        return kept


def _begin(candidates: Features, labeled: Features, pending: Features | None) -> NearestCenter:
    return NearestCenter(candidates.features, chosen_features(candidates, labeled, pending))
