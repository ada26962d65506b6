"""What a pool offers beyond what is required of it, as the protocols ``Pool...`` of :mod:`alcore.protocols` list it.

No other module looks for these members by name, with two exceptions: `alcore.pools.candidates` looks for those of
`PoolWindows`, and `alcore.pools.provenance` for those of `PoolProvenance`. These functions take None, too, for a pool
that is not known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from alcore.pools.candidates import unlabeled_ids
from alcore.pools.tensor_pool import as_sample_id, is_choosable

# -- PoolIdentity ---------------------------------------------------------------------------------------------


def has_digest(pool: Any) -> bool:
    """Return whether a pool identifies itself by ``digest()``."""
    return callable(getattr(pool, "digest", None))


def pool_digest(pool: Any) -> str:
    """Return text that identifies a pool: its ``digest()``, else a digest of its length and unlabeled ids."""
    if has_digest(pool):
        return str(pool.digest())
    digest = hashlib.sha256(str(len(pool)).encode())
    if is_choosable(pool):
        for ids in unlabeled_ids(pool):
            digest.update(np.ascontiguousarray(ids.numpy()).tobytes())
    return digest.hexdigest()


# -- PoolTraining ---------------------------------------------------------------------------------------------


def has_batch(pool: Any) -> bool:
    """Return whether the labeled items of a pool are fetched as whole batches, by ``batch(positions)``."""
    return _method(pool, "batch") is not None


def plain_items(pool: Any) -> Any:
    """Return the labeled items of a pool without augmentation, with ``len`` and ``[index]``."""
    return getattr(pool, "plain", pool)


def labeled_ids(pool: Any) -> torch.Tensor | None:
    """Return the ids of the labeled samples in training order, int64 (L,); None where the pool doesn't say."""
    ids: torch.Tensor | None = getattr(pool, "labeled_ids", None)
    return ids


# -- PoolAnswers ----------------------------------------------------------------------------------------------


def knows_answers(pool: Any) -> bool:
    """Return whether a sample id alone is enough to label it; True where the pool doesn't say."""
    return bool(getattr(pool, "knows_answers", True))


def answer_of(pool: Any) -> Callable[[int], Any] | None:
    """Return the function that gives ``(input, target)`` of a sample; None where the pool has none."""
    return _method(pool, "answer")


def evaluation_of(pool: Any) -> Callable[[], tuple[Any, torch.Tensor]] | None:
    """Return the function that gives inputs and targets to measure on; None where the pool has none."""
    return _method(pool, "evaluation")


# -- PoolChecks -----------------------------------------------------------------------------------------------


def label_check(pool: Any) -> Callable[[Any], str | None] | None:
    """Return the function that says what is wrong with the value of a label; None where the pool has none."""
    return _method(pool, "check")


def item_check(pool: Any) -> Callable[[Any], str | None] | None:
    """Return the function that says what keeps an item from being appended; None where the pool has none."""
    return _method(pool, "check_item")


# -- PoolInputs -----------------------------------------------------------------------------------------------


def input_check(*pools: Any) -> Callable[[Any], str | None] | None:
    """Return what says what is wrong with a generated input: of the first pool that has it; None where none has."""
    return next(filter(None, (_method(pool, "check_input") for pool in pools)), None)


def as_input(pool: Any, item: Any) -> Any:
    """Return the learner's input of a generated one; the same where the pool doesn't make it of another form."""
    own = _method(pool, "as_input")
    return item if own is None else own(item)


# -- PoolPrice ------------------------------------------------------------------------------------------------


def tells_costs(pool: Any) -> bool:
    """Return whether a pool says what the label of a sample, or of a generated input, is expected to cost."""
    return _method(pool, "cost") is not None or _method(pool, "input_cost") is not None


def cost_of(pool: Any, item: Any) -> float | None:
    """Return what a pool says that the label of an item is expected to cost, or None where it says nothing.

    Parameters
    ----------
    pool
        The pool to choose from; None where it is not known.
    item
        A sample id, for ``cost``, or a generated input, for ``input_cost`` (`alcore.protocols.PoolPrice`).
    """
    sample = as_sample_id(item)
    say = _method(pool, "input_cost" if sample is None else "cost")
    said = None if say is None else say(item if sample is None else sample)
    return None if said is None else float(said)


def many_costs(pool: Any) -> Callable[[torch.Tensor], torch.Tensor | None] | None:
    """Return the function that says what the labels of samples, int64 (n,), cost; None where the pool has none."""
    return _method(pool, "costs_of")


# -- PoolFidelity ---------------------------------------------------------------------------------------------


def fidelity_of(pool: Any, item: Any) -> Any:
    """Return how exact the label of a sample id, or of a generated input, is to be; None where the pool says nothing.

    What is returned can be written as JSON.
    """
    say = _method(pool, "fidelity" if isinstance(item, int) else "input_fidelity")
    return None if say is None else say(item)


def at_highest_fidelity(pool: Any, samples: torch.Tensor) -> torch.Tensor | None:
    """Return the inputs of samples, int64 (n,), at the highest fidelity; None where all labels are alike."""
    say = _method(pool, "at_highest_fidelity")
    return None if say is None else say(samples)


def _method(pool: Any, name: str) -> Callable[..., Any] | None:
    """Return a method of a pool; None where it has none of that name."""
    own = getattr(pool, name, None)
    return own if callable(own) else None
