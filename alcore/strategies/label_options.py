"""What a label strategy offers beyond what is required of it, as the options in :mod:`alcore.protocols` list it.

Nobody else looks for these members by name. Each function says what holds where a member is missing. A strategy may be
None where there is none, or its class where only that is known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from alcore.protocols import Request

# -- LabelStrategyOptions -------------------------------------------------------------------------------------


def cost_of_one(strategy: Any) -> Callable[[Any], float | None] | None:
    """Return the function that says what the label of an item will cost; None where the strategy has none."""
    return _method(strategy, "cost")


def cost_of_many(strategy: Any) -> Callable[[torch.Tensor], torch.Tensor | None] | None:
    """Return the function that says what the labels of samples, int64 (n,), will cost; None where it has none."""
    return _method(strategy, "costs_of")


def most_at_once(strategy: Any) -> int | None:
    """Return how many requests a label strategy works on at the same time, at most; None where it doesn't say."""
    said: int | None = getattr(strategy, "at_once", None)
    return said


# -- ImmediateLabelOptions ------------------------------------------------------------------------------------


def labels_by_id(strategy: Any) -> bool:
    """Return whether a label strategy answers with bare sample ids at once, which buys nothing and draws nothing."""
    return bool(getattr(strategy, "labels_by_id", False))


# -- InProcessLabelOptions ------------------------------------------------------------------------------------


def is_idempotent(strategy: Any) -> bool:
    """Return whether a label strategy may be asked again under the same request id at no cost."""
    return bool(getattr(strategy, "idempotent", False))


def doubt_of(strategy: Any) -> Callable[[Request], bool] | None:
    """Return the function that says whether a request may have been carried out unseen; None where it has none."""
    return _method(strategy, "is_in_doubt")


def works_remotely(strategy: Any) -> bool:
    """Return whether a label strategy, or its class, also works on another machine, where there is no Driver."""
    return getattr(strategy, "remote", False) is True


# -- ElsewhereLabelOptions ------------------------------------------------------------------------------------


def may_wait(strategy: Any) -> bool:
    """Return whether a label strategy may raise `alcore.errors.Waiting`."""
    return bool(getattr(strategy, "waits", False))


def is_told(strategy: Any) -> bool:
    """Return whether the answers that a label strategy waits for are told to the run; True where it doesn't say."""
    return bool(getattr(strategy, "told", True))


def poll_of(strategy: Any) -> Callable[[str], Any] | None:
    """Return the function that says what has become of a request, by its id; None where the strategy has none."""
    return _method(strategy, "poll")


# -- what follows ---------------------------------------------------------------------------------------------


def is_tracked(strategy: Any) -> bool:
    """Return whether the requests that a label strategy takes are to be recorded.

    They need not be for one that may be asked again (`is_idempotent`), or answers with ids of the pool
    (`labels_by_id`); unless it can be polled, which tells more.
    """
    if strategy is None:
        return False
    return poll_of(strategy) is not None or not (is_idempotent(strategy) or labels_by_id(strategy))


def _method(strategy: Any, name: str) -> Callable[..., Any] | None:
    """Return a method of a label strategy; None where it has none of that name."""
    own = getattr(strategy, name, None)
    return own if callable(own) else None
