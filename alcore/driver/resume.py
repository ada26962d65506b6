"""Resume a run: bring a Driver with fresh parts to the last checkpoint of its run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from alcore.driver.answers import append_labels
from alcore.driver.description import environment
from alcore.driver.item_types import with_types
from alcore.driver.parts import RunParts
from alcore.driver.pool_set import PoolSet
from alcore.errors import UsageError
from alcore.inference.learner import load_model
from alcore.plugins.discovery import differences
from alcore.pools.offers import pool_digest
from alcore.protocols import EndKind, EndReason
from alcore.store import checkpoints
from alcore.store.endings import end_of
from alcore.store.files import checkpoint_path
from alcore.store.run import RunStore


class ResumePoint(NamedTuple):
    """Where a run goes on.

    Parameters
    ----------
    step
        The step under way.
    epochs
        How many epochs of its training are done.
    trained
        Whether its training is over, whatever the number of epochs.
    record
        Losses and number of epochs of that training so far.
    one_step_behind
        The listeners whose state in the checkpoint was saved before they were called with ``alcore_step_end`` of the
        last finished step, so that they are to be called with it again.
    """

    step: int
    epochs: int
    trained: bool
    record: Mapping[str, Any]
    one_step_behind: frozenset[str]


def resume(store: RunStore, checkpoint: str | None, *, meta: Mapping[str, Any], parts: RunParts) -> ResumePoint:
    """Give every part of a run the state that it had at a checkpoint; all ranks must call this at once.

    Parameters
    ----------
    store
        The run.
    checkpoint
        File name of the checkpoint; the last one where it is None.
    meta
        What is known about the run as a whole.
    parts
        As they were before the run.

    Raises
    ------
    UsageError
        When a pool or the learner is not the one of the run, or the checkpoint is damaged.
    """
    pools, ranks, trainer, learner, logger = parts.pools, parts.ranks, parts.trainer, parts.learner, parts.logger
    _check_pools(pools, meta["pools"], meta["run_id"])
    if ranks.main:
        _compare_environment(meta["environment"], logger)
    rows = store.steps.checkpoints()
    initial = ranks.share(lambda: _load(store, rows, rows[0]["file"]))
    chosen = rows[-1] if checkpoint is None else _find(rows, checkpoint)
    saved = with_types(ranks.share(lambda: _load(store, rows, chosen["file"])), pools)
    inside = chosen["phase"] == "training"
    at = saved["at"]
    point = ResumePoint(
        chosen["step"] + (chosen["phase"] == "labeling"),
        chosen["epoch"] if inside else 0,
        bool(at.get("trained")),
        at["record"],
        frozenset(saved["plugins"] if chosen["phase"] == "labeling" else ()),
    )

    load_model(learner, initial["model"])
    if trainer is not None:
        trainer.make_optimization()
    load_model(learner, saved["model"])
    if trainer is not None:
        cold_start = pools.train is not None and not len(pools.train)
        trainer.restore(store.steps.first_training() if cold_start else 0, chosen["step"], saved, inside=inside)
    _append_labels(store, pools, point.step, logger)
    if callable(getattr(learner, "rebuild", None)):  # its state is a function of what is labeled
        learner.rebuild(pools.train)
    parts.candidates.mask(store.requests.samples(point.step))
    for strategy in parts.strategies.metrology:
        strategy.records[:] = with_types(store.steps.records(point.step, parts.strategies.name_of(strategy)), pools)
    for warning in parts.checkpointer.restore(saved, int(meta["seed"])):
        logger.warning(warning)
    return point


def why_finished(store: RunStore, meta: Mapping[str, Any], budget: float | None) -> EndReason | None:
    """Return why a run has ended, unless the driver's settings, or what happened since, now allow more of it."""
    end = end_of(meta)
    match None if end is None else end.kind:
        case None | EndKind.WAITING | EndKind.STEPS:  # the driver counts its steps itself
            return None
        case EndKind.LABELS_FAIL | EndKind.LABELS_REFUSED:  # the user may have mended the cause
            return None
        case EndKind.BUDGET:
            had = meta.get("budget")
            return None if budget is None or (had is not None and budget > had) else end
        case EndKind.START_WAITING | EndKind.START_FAILED:
            return None if store.requests.waits_before(store.steps.committed()) else end
    return end


def _check_pools(pools: PoolSet, digests: Mapping[str, str], run_id: str) -> None:
    for name, pool in pools.identified().items():
        if digests.get(name) != pool_digest(pool):
            raise UsageError(
                f"the {name} pool is not the one that run {run_id} began with: samples, targets or what is labeled at "
                "the start differ. Give the driver the same data, as it was before the run."
            )


def _compare_environment(then: Mapping[str, Any], logger: logging.Logger) -> None:
    """Warn of what has changed since the run began, as results may differ in their last digits."""
    now = environment()
    for name, value in then.items():
        if name != "plugins" and now.get(name) != value:
            logger.warning("%s was %s when the run began and is %s now", name, value, now.get(name))
    for change in differences(then):
        logger.warning("a plugin is not the one that the run began with: %s", change)


def _find(rows: list[dict[str, Any]], file: str) -> dict[str, Any]:
    for row in rows:
        if row["file"] == Path(file).name:
            return row
    raise UsageError(
        f"the run has no checkpoint {file!r}; the last ones are {', '.join(row['file'] for row in rows[-3:])}."
    )


def _load(store: RunStore, rows: list[dict[str, Any]], file: str) -> dict[str, Any]:
    place = next(i for i, row in enumerate(rows) if row["file"] == file)
    try:
        return checkpoints.load(checkpoint_path(store.folder, file), rows[place]["sha256"])
    except UsageError as error:
        if not place:
            raise
        raise UsageError(
            f"{error} The one before it is {rows[place - 1]['file']}: go on from there with "
            f"--checkpoint {rows[place - 1]['file']}, which trains again what came after it and buys nothing twice."
        ) from error


def _append_labels(store: RunStore, pools: PoolSet, before: int, logger: logging.Logger) -> None:
    """Append the labels of all steps before this one, in the order in which they were appended then."""
    for step in range(before if pools.train is not None else 0):
        for label, error in append_labels(pools, store.labels.accepted(step)):
            logger.warning("the training pool refuses the label of %r of step %d: %s", label.request.item, step, error)
