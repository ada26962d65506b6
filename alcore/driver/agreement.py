"""What the ranks of a run must have in common: data, weights, requests and labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from alcore.codec import dumps
from alcore.distributed.ranks import Ranks
from alcore.driver.pool_set import PoolSet
from alcore.driver.request_queue import RequestQueue
from alcore.errors import AlcoreError, UsageError
from alcore.inference.learner import load_model, model_digest, model_state
from alcore.pools.batches import tensors_of
from alcore.pools.offers import evaluation_of, plain_items
from alcore.protocols import EndKind, EndReason
from alcore.randomness import derive_seed, preserve_rng_state, seed_everything
from alcore.store.replica import Replica
from alcore.store.rows import AskedRequest
from alcore.store.run import RunStore
from alcore.tensors import bytes_of

_COMPARED_ITEMS = 64


def begin_alike(ranks: Ranks, learner: Any, seed: int) -> None:
    """Give all ranks the weights of rank 0, and each but rank 0 global generators of its own, for dropout."""
    if ranks.size == 1:
        return
    weights = ranks.share(lambda: model_state(learner))
    if not ranks.main:
        load_model(learner, weights)
        seed_everything(derive_seed(seed, "rank", ranks.rank))


def agree_on_end(ranks: Ranks, reason: EndReason | None) -> EndReason | None:
    """Return the reason of rank 0 to end the run; all ranks must call this at once."""
    shared = ranks.share(lambda: None if reason is None else [reason.kind.value, reason.text])
    return None if shared is None else EndReason(EndKind(shared[0]), shared[1])


def compare_pools(ranks: Ranks, pools: PoolSet, digests: Mapping[str, str]) -> None:
    """Refuse ranks that were given other data than rank 0, including the data that metrology looks at.

    Parameters
    ----------
    ranks
        All must call this at once.
    pools
        Those of this rank.
    digests
        The digests of pools that are known already, by name.
    """
    if ranks.size == 1:
        return
    digest_of = dict(digests)
    with preserve_rng_state():  # a pool may augment
        if pools.validation is not None:
            digest_of["validation"] = f"{len(pools.validation)} {_digest_of_items(pools.validation)}"
        if evaluation := evaluation_of(pools.train):
            inputs, targets = evaluation()
            digest_of["training"] = _digest([*tensors_of(inputs), targets])
        elif pools.train is not None and len(pools.train):
            digest_of["training"] = _digest_of_items(pools.train)
    for name in sorted(digest_of):
        if (rank := ranks.differing(digest_of[name])) is not None:
            raise UsageError(
                f"the {name} pool of rank {rank} is not that of rank 0: samples, targets or what is labeled differ. "
                "All ranks must be given the same data; derive what is drawn at random from one seed."
            )


def compare_weights(ranks: Ranks, learner: Any) -> None:
    """End the run where the learner of a rank has other weights than that of rank 0 after training."""
    if ranks.size == 1:
        return
    if (rank := ranks.differing(model_digest(learner))) is not None:
        raise AlcoreError(
            f"the learner of rank {rank} has other weights than that of rank 0 after training, so its gradients were "
            "not averaged: a training loop on several ranks must get its losses from train_step_fn(model, batch), and "
            "decide alike on all ranks what depends on them."
        )


def agree_on_requests(ranks: Ranks, queue: RequestQueue) -> None:
    """Let what rank 0 has asked for so far count on all ranks: a strategy may choose otherwise on another rank."""
    if ranks.size > 1:
        asked, budget_left = ranks.share(lambda: ([request.as_list() for request in queue.asked], queue.budget_left))
        if not ranks.main:
            queue.adopt([AskedRequest.of_list(fields) for fields in asked], budget_left)


def share_labels(ranks: Ranks, store: RunStore, step: int) -> None:
    """Give the other ranks what rank 0 committed in the labeling phase of a step."""
    if ranks.size > 1:
        changes = ranks.share(lambda: store.transfer.label_changes(step))
        if isinstance(store, Replica):
            store.apply_label_changes(changes)


def compare_labels(ranks: Ranks, store: RunStore, step: int, pool: Any) -> None:
    """End the run where a rank has other labels than rank 0, or its training pool another number of items."""
    if ranks.size == 1:
        return
    rows = hashlib.sha256(dumps(store.transfer.label_rows(step)).encode()).hexdigest()
    if (rank := ranks.differing([rows, None if pool is None else len(pool)])) is not None:
        raise AlcoreError(
            f"rank {rank} has other labels than rank 0 after step {step}; start the run again, and it goes on from "
            "what is committed."
        )


def _digest_of_items(pool: Any) -> str:
    """Identify a pool by some of its items: those at up to 64 positions, evenly spread; items are not augmented."""
    pool = plain_items(pool)  # ranks draw different random numbers
    count = len(pool)
    positions = torch.linspace(0, count - 1, min(count, _COMPARED_ITEMS)).long().tolist() if count else []
    return _digest([tensor for position in positions for tensor in tensors_of(pool[position])])


def _digest(tensors: Sequence[Any]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(bytes_of(torch.as_tensor(tensor)).numpy().data)
    return digest.hexdigest()[:16]
