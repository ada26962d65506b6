"""Run the learner over the samples that it is measured on, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from alcore.distributed.ranks import Dealt

if TYPE_CHECKING:
    from alcore.driver import Driver

EVALUATION_ROWS = 4096


class Evaluation(NamedTuple):
    """What to measure the learner on: which samples, and their outputs and targets chunk by chunk."""

    on: str
    batches: Iterator[tuple[Any, torch.Tensor]]


def evaluate(driver: Driver) -> Evaluation:
    """Run the learner over the samples that metrology is to use.

    These are the validation pool, else what the training pool's ``evaluation()`` returns, else the labelled
    items.

    Returns
    -------
    Evaluation
        `on` is ``"validation"``, ``"pool"`` or ``"train"``; each batch is (outputs, targets), of up to 4096
        samples.
    """
    if driver.val_datapool is not None:
        return Evaluation("validation", _items(driver, driver.val_datapool))
    if callable(getattr(driver.train_datapool, "evaluation", None)):
        inputs, targets = driver.train_datapool.evaluation()
        return Evaluation("pool", _slices(driver, inputs, targets))
    driver.warn_once(
        "metrology looks at the labelled items themselves: there is no val_datapool, and the training "
        "pool has no evaluation(); the figures are of the training set."
    )
    return Evaluation("train", _items(driver, driver.train_datapool))


def _slices(driver: Driver, inputs: Any, targets: torch.Tensor) -> Iterator[tuple[Any, torch.Tensor]]:
    parts = (slice(start, start + EVALUATION_ROWS) for start in range(0, len(targets), EVALUATION_ROWS))
    return _dealt(driver, ((inputs[part], targets[part]) for part in parts))


def _items(driver: Driver, pool: Any) -> Iterator[tuple[Any, torch.Tensor]]:
    return _dealt(driver, iter(driver.ordered_batches(pool)))


def _dealt(driver: Driver, batches: Iterator[Any]) -> Iterator[tuple[Any, torch.Tensor]]:
    """Yield outputs and targets of batches, for which each rank computes some of the outputs."""
    dealt = Dealt(driver.ranks, lambda batch: driver.infer(batch[0]))
    for batch in batches:
        yield from (_pair(*done) for done in dealt.add(batch))
    yield from (_pair(*done) for done in dealt.rest())


def _pair(batch: Any, outputs: Any) -> tuple[Any, torch.Tensor]:
    """Return outputs and targets, both where the outputs are: those that other ranks computed are on the CPU."""
    targets: torch.Tensor = batch[1]
    here = outputs.device if isinstance(outputs, torch.Tensor) else targets.device
    return outputs, targets if targets.device == here else targets.to(here)
