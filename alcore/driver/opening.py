"""How the run directory of a driver is opened: by rank 0, while the other ranks get a copy of what it holds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from alcore.distributed.packing import bytes_of
from alcore.distributed.ranks import Ranks
from alcore.driver import description, state
from alcore.errors import AlcoreError, UsageError
from alcore.pools import pool_digest
from alcore.pools.batches import tensors_of
from alcore.randomness import derive_seed, seed_everything
from alcore.store.replica import Mirror
from alcore.store.run import RunStore

if TYPE_CHECKING:
    from alcore.driver import Driver


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def create(driver: Driver) -> RunStore:
    """Make the run directory of a driver, with its first checkpoint."""
    _begin_alike(driver)
    pools = {name: pool_digest(pool) for name, pool in driver.pools().items()}
    compare_pools(driver, pools)
    first = state.collect(driver, step=0, phase="start", epoch=0)

    def make() -> RunStore:
        return RunStore.create(
            Path(driver.config.root_log_dir),
            driver.run_id,
            meta={
                "run_id": driver.run_id,
                "seed": driver.config.seed,
                "started": now(),
                "status": "running",
                "environment": description.environment(),
                "pools": pools,
                "names": {
                    "query": [driver.strategy_name(one) for one in driver.query_strategies],
                    "metrology": [driver.strategy_name(one) for one in driver.metrology_strategies],
                },
                **({"ranks": driver.ranks.size} if driver.ranks.size > 1 else {}),
            },
            experiment=driver.description or description.describe(driver),
            state=first,
        )

    return _on_rank_0(driver, make)


def reopen(driver: Driver, *, take_over: bool, other_ranks: bool) -> RunStore:
    """Open the run directory of a driver to go on with it.

    Raises
    ------
    UsageError
        When there is none, or it was begun by another number of processes and `other_ranks` doesn't allow that.
    """

    def make() -> RunStore:
        store = RunStore.open(Path(driver.config.root_log_dir), driver.run_id, take_over=take_over)
        before, here = store.meta().get("ranks", 1), driver.ranks.size
        if before != here:
            if not other_ranks:
                store.close()
                raise UsageError(
                    f"run {driver.run_id} is of {before} process{'es' if before > 1 else ''}, and here "
                    f"{'are' if here > 1 else 'is'} {here}: training would go on with other batches. Start it with "
                    f"{before}, or allow it with --other-ranks; from Python, restore(other_ranks=True)."
                )
            store.set_meta(ranks=here)
        return store

    compare_pools(driver, {})
    return _on_rank_0(driver, make)


def _on_rank_0(driver: Driver, make: Callable[[], RunStore]) -> RunStore:
    made: list[RunStore] = []

    def image() -> torch.Tensor | None:
        made.append(make())
        if driver.ranks.size == 1:
            return None
        return torch.frombuffer(bytearray(made[0].database.image()), dtype=torch.uint8)

    shared = driver.ranks.share(image)
    if made:
        return made[0]
    assert shared is not None
    mirror = Mirror(bytes(shared.numpy()))
    driver.log_dir = mirror.folder
    return mirror


def _begin_alike(driver: Driver) -> None:
    """Give all ranks the weights of rank 0, and each but that one global generators of its own, for dropout."""
    ranks = driver.ranks
    if ranks.size == 1:
        return
    shared = ranks.share(lambda: state.model_state(driver.learner))
    if not ranks.main:
        state.load_model(driver.learner, shared)
        seed_everything(derive_seed(int(driver.config.seed or 0), "rank", ranks.rank))


def compare_pools(driver: Driver, digests: Mapping[str, str]) -> None:
    """Refuse ranks that were given other data than rank 0, the data that metrology looks at among them."""
    ranks = driver.ranks
    if ranks.size == 1:
        return
    digests = dict(digests)
    with state.undisturbed():  # a pool may augment
        if driver.val_datapool is not None:
            digests["validation"] = f"{len(driver.val_datapool)} {_digest_of_items(driver.val_datapool)}"
        if callable(getattr(driver.train_datapool, "evaluation", None)):
            inputs, targets = driver.train_datapool.evaluation()
            digests["training"] = _digest([*tensors_of(inputs), targets])
        elif driver.train_datapool is not None and len(driver.train_datapool):
            digests["training"] = _digest_of_items(driver.train_datapool)
    for name in sorted(digests):
        if (rank := ranks.differing(digests[name])) is not None:
            raise UsageError(
                f"the {name} pool of rank {rank} is not that of rank 0: samples, targets or what is labelled differ. "
                "All ranks must be given the same data; derive what is drawn at random from one seed."
            )


def _digest_of_items(pool: Any) -> str:
    """Identify a pool by some of its items: those at up to 64 places all over it."""
    count = len(pool)
    places = torch.linspace(0, count - 1, min(count, 64)).long().tolist() if count else []
    return _digest([tensor for place in places for tensor in tensors_of(pool[place])])


def _digest(tensors: Sequence[Any]) -> str:
    known = hashlib.sha256()
    for one in tensors:
        known.update(bytes(bytes_of(torch.as_tensor(one)).numpy()))
    return known.hexdigest()[:16]


def compare_weights(ranks: Ranks, digest: str) -> None:
    """Refuse ranks whose learners have come apart."""
    if (rank := ranks.differing(digest)) is not None:
        raise AlcoreError(
            f"the learner of rank {rank} has other weights than that of rank 0 after training, so that its gradients "
            "were not shared: a training loop on several ranks must get its losses from train_step_fn(model, batch), "
            "and do alike on all ranks what depends on them."
        )
