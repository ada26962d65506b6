"""To which group each measured sample belongs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from alcore.errors import UsageError, did_you_mean
from alcore.pools import labeled_ids
from alcore.protocols import RunContext

_MOST = 100  # groups; more are surely not meant


class Groups:
    """The groups of the samples that are measured on, in the order of evaluation.

    Parameters
    ----------
    owner
        Name of the strategy, for messages.
    context
        The run.
    given
        The name of a column of the pool's ``columns``, or a mapping from sample id to group.
    on
        What is measured on.
    """

    def __init__(self, owner: str, context: RunContext, given: str | Mapping[int, Any], on: str) -> None:
        pool = measured_pool(context, on)
        self._values = _column(owner, pool, given, on) if isinstance(given, str) else given
        self._ids = _sample_ids(context, pool, on)

    def of_next(self, count: int) -> list[str | None]:
        """Return the groups of the next samples; None for one that belongs to none."""
        return [self._group(sample) for _, sample in zip(range(count), self._ids, strict=False)]

    def _group(self, sample: int) -> str | None:
        try:
            group = self._values[sample]
        except (KeyError, IndexError):
            return None
        return None if group is None else str(group)


def check_number(owner: str, groups: int) -> None:
    """Raise `UsageError` for too many groups."""
    if groups > _MOST:
        raise UsageError(
            f"{owner}: groups gives more than {_MOST} different groups; name a column of categories, or map samples to "
            "fewer groups."
        )


def measured_pool(context: RunContext, on: str) -> Any:
    """Return the pool whose sample ids the measured samples have."""
    if on == "validation":
        return context.val_datapool
    return context.choice_pool if on == "unlabeled" else context.train_datapool


def _column(owner: str, pool: Any, name: str, on: str) -> Any:
    columns = getattr(pool, "columns", None)
    if not isinstance(columns, Mapping) or not columns:
        raise UsageError(
            f"{owner}: groups is {name!r}, and the pool that is measured on ({on}), a {type(pool).__name__}, has no "
            "columns of categories; give a mapping from sample id to group, or data whose pools have them, such as "
            "--data csv (data.csv.categories names columns of numbers that are categories)."
        )
    if name not in columns:
        raise UsageError(f"{owner}: groups is {name!r}, which is no column: {did_you_mean(name, columns)}.")
    return columns[name]


def _sample_ids(context: RunContext, pool: Any, on: str) -> Iterator[int]:
    """Yield the ids of the measured samples in the order of evaluation; positions, where a pool has no ids."""
    if on == "unlabeled":
        for ids in context.candidates():
            yield from ids.tolist()
    elif on != "pool" and (labeled := labeled_ids(pool)) is not None:
        yield from labeled.tolist()
    else:
        place = 0
        while True:
            yield place
            place += 1
