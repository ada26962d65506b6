"""Choose the rows that are held out, and those of the others that are labeled at the start."""

from __future__ import annotations

import numpy as np

from alcore.errors import UsageError
from alcore_tabular.messages import setting
from alcore_tabular.raw_table import Array

_EACH_CLASS = 5
_REGRESSION = 20
_MOST_AT_FIRST = 0.25  # of the training part
_STEPS = 25
_ROOTS = 7  # labels that a run buys, in square roots of the number of samples


def hold_out(codes: Array | None, total: int, share: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Split rows into a part to train on and a part to measure on.

    Parameters
    ----------
    codes
        Class number of each row: int64, shape (N,), two members or more each; None for regression.
    total
        Number of rows, N.
    share
        Share of the rows to hold out, between 0 and 1.
    rng
        The generator to draw from.

    Returns
    -------
    tuple of numpy.ndarray
        Rows of the training part and of the held-out part, int64, ascending. Each class keeps its share in
        both, rounded, and is in both.
    """
    groups = [np.arange(total)] if codes is None else _by_class(codes)
    held = np.zeros(total, dtype=bool)
    for members in groups:
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        held[rng.permutation(members)[:count]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _by_class(codes: Array) -> list[Array]:
    """Return the rows of each class, ascending, in the order of the class numbers."""
    _, counts = np.unique(codes, return_counts=True)
    return np.split(np.argsort(codes, kind="stable"), np.cumsum(counts)[:-1])


def count_initial(initial: int | float, size: int, classes: int) -> int:
    """Return the number of samples that are labeled at the start.

    Parameters
    ----------
    initial
        An integer, or a share of the training part below 1; a share is rounded up to one of each class.
    size
        Number of samples in the training part.
    classes
        Number of classes; 0 for regression.

    Raises
    ------
    UsageError
        If there are fewer samples than that, or if an integer other than 0 is less than the number of classes.
    """
    if isinstance(initial, bool):
        raise UsageError(f"initial: {initial} is neither a number of samples nor a share of them.")
    if isinstance(initial, float):
        if not 0 < initial < 1:
            whole = f"; for {int(initial)} samples, give {setting('initial', int(initial))}" if initial >= 1 else ""
            raise UsageError(f"initial: a share must be above 0 and below 1, and {initial} is not{whole}.")
        return min(max(round(initial * size), classes, 1), size)
    fewest = max(classes, 1)
    if initial == 0:  # a start strategy makes the first selection
        return 0
    if initial < fewest:
        reason = f"the {classes} classes need a labeled sample each" if classes else "training needs a sample"
        raise UsageError(f"initial: {initial} is too few, since {reason}; give {setting('initial', fewest)} or more.")
    if initial > size:
        raise UsageError(
            f"initial: {initial} samples are to be labeled at the start, but the training part has {size} "
            f"(the others are held out). Give {size} at most, or a share such as {setting('initial', 0.1)}."
        )
    return initial


def draw_initial(codes: Array | None, size: int, count: int, rng: np.random.Generator) -> Array:
    """Draw the samples that are labeled at the start: one of each class, and any others.

    Parameters
    ----------
    codes
        Class number of each sample of the training part: int64, shape (N,); None for regression.
    size
        Number of samples, N.
    count
        Number of samples to draw; at least one of each class.
    rng
        The generator to draw from.

    Returns
    -------
    numpy.ndarray
        Sample ids, int64, shape (count,), in random order.
    """
    order = rng.permutation(size)
    if codes is None or not count:
        return order[:count]
    _, first = np.unique(codes[order], return_index=True)  # the first sample of each class in the random order
    rest = np.delete(order, first)
    return rng.permutation(np.concatenate([order[first], rest[: count - len(first)]]))


def first_labels(size: int, classes: int) -> int:
    """Return how many samples are labeled at the start where nobody says: five a class, or 20 for a regression.

    At most a quarter of the `size` samples of the training part, but one of each class. `classes` is 0 for a
    regression.
    """
    wanted = _EACH_CLASS * classes if classes else _REGRESSION
    return max(min(wanted, int(_MOST_AT_FIRST * size)), classes, 1)


def draw_few(codes: Array | None, size: int, rng: np.random.Generator) -> Array:
    """Draw the samples that are labeled at the start where nobody says how many.

    Parameters
    ----------
    codes
        Class number of each sample of the training part: int64, shape (N,); None for regression.
    size
        Number of samples, N.
    rng
        The generator to draw from.

    Returns
    -------
    numpy.ndarray
        Sample ids, int64, in random order: as many of each class, or fewer where a class has fewer.
    """
    order = rng.permutation(size)
    if codes is None:
        return order[: first_labels(size, 0)]
    classes = len(np.unique(codes))
    each = max(1, first_labels(size, classes) // classes)
    members = np.split(order[np.argsort(codes[order], kind="stable")], np.cumsum(np.bincount(codes))[:-1])
    return rng.permutation(np.concatenate([some[:each] for some in members]))


def plan_steps(size: int, labeled: int, first: int) -> tuple[int, int]:
    """Return how many steps a run has where nobody says, and how many samples are asked for in each.

    Some 25 steps give a curve. What they buy grows with the square root of the pool: two thirds of 100 samples, a fifth
    of 1,000, a few percent of 40,000; and it is at least three times what is labeled at the start.

    Parameters
    ----------
    size
        Number of samples of the training part.
    labeled
        How many of them are labeled at the start; 0 if a start strategy asks for the `first` ones in a step of its own.
    first
        What `first_labels` gives.
    """
    start = labeled or first
    bought = max(1, min(size - start, max(round(_ROOTS * size**0.5), 3 * start)))
    a_step = max(1, round(bought / _STEPS))
    if a_step > 12:  # 11 and 12 would become 10, and the steps more by a fifth
        a_step = 5 * round(a_step / 5)
    return -(-bought // a_step) + (not labeled), a_step
