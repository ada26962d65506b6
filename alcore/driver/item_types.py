"""Values of a user's classes come back from the run directory as objects of these classes, or not at all."""

from __future__ import annotations

from typing import Any

from alcore.codec import learn_types_in, resolved, unknown_types
from alcore.driver.pool_set import PoolSet
from alcore.errors import UsageError
from alcore.randomness import preserve_rng_state

_NO_POOLS = PoolSet(None, None, None)


def with_types(value: Any, pools: PoolSet = _NO_POOLS) -> Any:
    """Return a value as it was before it was stored.

    Parameters
    ----------
    value
        What the store returned. A value of a class that this process has not met is a `alcore.codec.StoredObject`.
    pools
        The classes of their items become known where one is missing.

    Raises
    ------
    UsageError
        If a class is not known then either.
    """
    if not unknown_types(value):
        return value
    for pool in pools:
        if pool is not None and hasattr(pool, "__getitem__") and len(pool):
            with preserve_rng_state():
                learn_types_in(pool[0])
    value = resolved(value)
    if unknown := unknown_types(value):
        raise UsageError(
            f"the run has values of {', '.join(unknown)}, and this program has no class of that name and with these "
            "fields where alcore looks: in the modules of the pools, the strategies and the learner, and among the "
            "items of the pools. alcore imports no module that a run directory names; import the class in the module "
            "of a strategy or pool, and don't define it inside a function."
        )
    return value
