"""Take a run up again: bring a driver that was made anew to the last checkpoint of its run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alcore.codec import loads
from alcore.driver import answers, description, state
from alcore.driver import stopping as ending
from alcore.errors import UsageError
from alcore.pools import pool_digest
from alcore.store import checkpoints, history
from alcore.store.run import RunStore

if TYPE_CHECKING:
    from alcore.driver import Driver


class Point(NamedTuple):
    """Where a run goes on: a step, how many epochs of its training are done, and what it noted of them.

    `position` is where in the epoch after these the loader was, if that one was under way; `trained` says that the
    training was over, whatever the number of epochs.
    """

    step: int
    epochs: int
    book: Mapping[str, Any]
    position: Mapping[str, Any] | None = None
    trained: bool = False


def restore(driver: Driver, store: RunStore, checkpoint: str | None) -> Point:
    """Give every part of a driver the state it had at a checkpoint.

    Parameters
    ----------
    driver
        Made anew, with the parts of the run: fresh pools, learner and strategies.
    store
        The run.
    checkpoint
        File name of the checkpoint; the last one where it is None.

    Raises
    ------
    UsageError
        When a pool or the learner is not the one of the run, or the checkpoint is damaged.
    """
    meta = store.meta()
    _check_pools(driver, meta["pools"])
    if driver.ranks.main:
        _compare_environment(driver, meta["environment"])
    driver.config.seed = meta["seed"]
    rows = store.checkpoints()
    share = driver.ranks.share
    initial = share(lambda: _load(store, rows, rows[0]["file"]))
    chosen = rows[-1] if checkpoint is None else _find(rows, checkpoint)
    saved = share(lambda: _load(store, rows, chosen["file"]))
    inside = chosen["phase"] == "training"
    step = chosen["step"] + (chosen["phase"] == "labeling")
    at = saved["at"]
    epochs = chosen["epoch"] if inside else 0
    point = Point(step, epochs, at["book"], at.get("position"), bool(at.get("trained")))

    state.load_model(driver.learner, initial["model"])
    driver.make_optimization()
    state.load_model(driver.learner, saved["model"])
    started = driver.train_datapool is None or len(driver.train_datapool)
    driver.first_training = 0 if started else history.first_training(store.database)
    if driver.optimization is not None:
        turn = chosen["step"] - (driver.first_training or 0)
        driver.optimization.restore(turn, saved, inside=inside)
    _append_labels(driver, store, point.step)
    if callable(getattr(driver.learner, "rebuild", None)):  # its state is a function of what is labelled
        driver.learner.rebuild(driver.train_datapool)
    driver.take(history.samples_before(store.database, point.step))
    for strategy in driver.metrology_strategies:
        strategy.records[:] = history.records_before(store.database, point.step, driver.strategy_name(strategy))
    state.restore_parts(driver, saved)
    return point


def _check_pools(driver: Driver, digests: Mapping[str, str]) -> None:
    for name, pool in driver.pools().items():
        if digests.get(name) != pool_digest(pool):
            raise UsageError(
                f"the {name} pool is not the one that run {driver.run_id} began with: samples, targets or what is "
                "labelled at the start differ. Give the driver the same data, as it was before the run."
            )


def _compare_environment(driver: Driver, then: Mapping[str, Any]) -> None:
    """Warn of what has changed since, as results may differ in their last digits."""
    now = description.environment()
    for name, value in then.items():
        if name != "plugins" and now.get(name) != value:
            driver.logger.warning("%s was %s when the run began and is %s now", name, value, now.get(name))
    for gone in sorted(set(then["plugins"]) - set(now["plugins"])):
        name, version = gone.rsplit(" ", 1)
        here = next((one for one in now["plugins"] if one.rsplit(" ", 1)[0] == name), "not installed")
        driver.logger.warning("the run began with plugin %s %s, and it is %s now", name, version, here)


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
        return checkpoints.load(store.folder / "ckpt" / file, rows[place]["sha256"])
    except UsageError as error:
        if not place:
            raise
        raise UsageError(
            f"{error} The one before it is {rows[place - 1]['file']}: go on from there with "
            f"--checkpoint {rows[place - 1]['file']}, which trains again what came after it and buys nothing twice."
        ) from error


def _append_labels(driver: Driver, store: RunStore, before: int) -> None:
    """Append the labels of all steps before this one, as they were appended then."""
    if driver.train_datapool is None:
        return
    for step in range(before):
        for item in answers.for_pool(history.delivered_in(store.database, step), driver.unlabeled_datapool):
            driver.train_datapool.append(item)


def why_finished(driver: Driver, store: RunStore) -> str | None:
    """Return why a run has ended, unless the driver's settings now allow more of it."""
    meta = store.meta()
    if meta["status"] != "done" or meta.get("reason") is None:
        return None
    reason, budget = str(meta["reason"]), driver.config.budget
    if reason.startswith("all "):
        return None  # the driver counts its steps itself
    if reason.startswith("the budget") and (budget is None or budget > store.spent()):
        return None
    if reason.startswith(ending.NOTHING_LABELLED) and history.waits_before(
        store.database, history.steps_ended(store.database)
    ):
        return None
    return reason


def labeler_state(store: RunStore) -> str | None:
    """Return what was committed with the last answer, if anything was."""
    rows = store.database.read("SELECT value FROM meta WHERE key = 'labeler'")
    return loads(rows[0]["value"]) if rows else None
