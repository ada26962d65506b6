"""Class balance: ask for samples that equalize the number of labels of each class, by predicted classes."""

from __future__ import annotations

import heapq

import torch

from alcore.errors import UsageError
from alcore.inference import Features
from alcore.strategies import SetQuery
from alcore_diversity.checks import Measure, check_measure, probabilities, refuse_unless_classifier, uncertainty_of


def class_balanced(predicted: torch.Tensor, uncertainty: torch.Tensor, counts: torch.Tensor, n: int) -> torch.Tensor:
    """Choose the most uncertain sample of the class with the fewest labels and chosen samples, n times.

    Parameters
    ----------
    predicted
        Class of each sample: int64, shape (N,), from 0 to C - 1.
    uncertainty
        Shape (N,).
    counts
        Number of labels of each class: int64, shape (C,).
    n
        How many to choose; all N if there are fewer.

    Returns
    -------
    torch.Tensor
        Positions, int64 (k,), in the order in which they were chosen. Of classes with equally few labels the first
        is taken, and of equally uncertain samples the first. A class without further predicted samples is left out.
    """
    order = torch.sort(uncertainty, descending=True, stable=True).indices
    order = order[torch.sort(predicted[order], stable=True).indices]  # class by class
    ends = torch.bincount(predicted, minlength=len(counts)).cumsum(dim=0).tolist()
    starts = [0, *ends[:-1]]
    heap = [(count, label) for label, count in enumerate(counts.tolist()) if starts[label] < ends[label]]
    heapq.heapify(heap)
    chosen: list[int] = []
    while heap and len(chosen) < n:
        count, label = heap[0]
        chosen.append(starts[label])
        starts[label] += 1
        if starts[label] < ends[label]:
            heapq.heapreplace(heap, (count + 1, label))
        else:
            heapq.heappop(heap)
    return order[chosen]


class ClassBalancedQuery(SetQuery):
    """Ask for samples that are predicted to be of the classes with the fewest labels.

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.
    candidates
        How many unlabeled samples to choose from, drawn at random in each step; a float is a fraction of them, and
        None takes all.
    uncertainty
        Measure that decides within a class: ``"entropy"``, ``"margin"`` or ``"least_confidence"``.

    Notes
    -----
    The next sample is always the most uncertain one that is predicted to be of the class with the smallest number of
    labels and picks; a pending sample counts as a label of its predicted class. The score is the uncertainty. With
    nothing labeled all classes start with 0 labels. For posterior samples, their mean probability is used.

    Time is O(N (C + log N)), memory O(N C).

    It helps with classes of very unequal size, where random or uncertain samples are nearly all of the largest one.
    It is known to hurt where the learner can't predict the rare classes yet, since it then asks for its mistakes, and
    where the result is judged by accuracy under the natural frequencies.

    References
    ----------
    The rule of class-balancing active learning; compare Bengar, van de Weijer, Fuentes and Raducanu (2022),
    Class-balanced active learning for image classification, WACV, who solve it as an optimization problem.
    """

    needs_features = False

    def __init__(
        self, max_samples: int = 10, candidates: int | float | None = None, uncertainty: Measure = "entropy"
    ) -> None:
        super().__init__(max_samples, candidates)
        check_measure("ClassBalancedQuery", uncertainty)
        self.uncertainty = uncertainty

    def check(self) -> None:
        """Raise `UsageError` for regression, and for outputs that are not a classifier's."""
        refuse_unless_classifier(self.driver)

    def choose(
        self, candidates: Features, labeled: Features, n: int, pending: Features | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return positions, the rarest class first, and their uncertainty."""
        class_shares = probabilities(candidates, self.driver)
        uncertainty = uncertainty_of(self.uncertainty, class_shares)
        counts = label_counts(labeled.targets, class_shares.shape[1])
        if pending is not None and len(pending.ids):
            expected = probabilities(pending, self.driver).argmax(dim=1)
            counts += torch.bincount(expected, minlength=len(counts))
        positions = class_balanced(class_shares.argmax(dim=1), uncertainty, counts, n)
        return positions, uncertainty[positions]


def label_counts(targets: torch.Tensor | None, classes: int) -> torch.Tensor:
    """Return the number of labels of each class: int64, shape (C,).

    Parameters
    ----------
    targets
        Shape (L,) or (L, 1): classes from 0, or for two classes any numbers, of which those above 0 are the second
        class. None counts as no labels.
    classes
        C.
    """
    if targets is None or not len(targets):
        return torch.zeros(classes, dtype=torch.int64)
    flat = targets.reshape(len(targets), -1)
    if flat.shape[1] != 1:
        raise UsageError(
            f"targets of shape {tuple(targets.shape[1:])} each are not classes, so labels can't be counted by class; "
            "use another query strategy."
        )
    labels = (flat[:, 0] > 0).long() if classes == 2 else flat[:, 0].long()
    if not bool(((labels >= 0) & (labels < classes)).all()):
        raise UsageError(
            f"targets go from {int(labels.min())} to {int(labels.max())}, and the learner has {classes} classes; they "
            "must be numbered from 0."
        )
    return torch.bincount(labels, minlength=classes)
