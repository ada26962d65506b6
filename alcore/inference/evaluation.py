"""Run the learner over the samples that it is measured on, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from alcore.distributed.ranks import RoundRobin
from alcore.inference.context import InferenceContext, inference_context
from alcore.pools.batches import rows_within
from alcore.protocols import RunContext

_ROWS = 4096  # most samples in a batch
_BYTES = 16 * 2**20  # and most bytes of inputs and targets


class Evaluation(NamedTuple):
    """The samples that the learner is measured on: where they come from, and (outputs, targets) batch by batch."""

    on: str
    batches: Iterator[tuple[Any, torch.Tensor]]


def evaluate(context: RunContext) -> Evaluation:
    """Run the learner over the samples that metrology measures on.

    These are the validation pool, else what the training pool's ``evaluation()`` returns, else the labeled items.

    Returns
    -------
    Evaluation
        `on` is ``"validation"``, ``"pool"`` or ``"train"``; each batch is (outputs, targets), of up to 4096
        samples, and 16 MiB of inputs and targets.
    """
    run = inference_context(context)
    if run.val_datapool is not None:
        return Evaluation("validation", _items(run, run.val_datapool))
    if callable(getattr(run.train_datapool, "evaluation", None)):
        inputs, targets = run.train_datapool.evaluation()
        return Evaluation("pool", _slices(run, inputs, targets))
    run.warn_once(
        "metrology measures on the labeled items themselves, since there is no val_datapool and the training pool has "
        "no evaluation(); its results are those of the training set."
    )
    return Evaluation("train", _items(run, run.train_datapool))


def _slices(run: InferenceContext, inputs: Any, targets: torch.Tensor) -> Iterator[tuple[Any, torch.Tensor]]:
    rows = min(_ROWS, rows_within((inputs, targets), _BYTES))
    parts = (slice(start, start + rows) for start in range(0, len(targets), rows))
    return _outputs_and_targets(run, ((inputs[part], targets[part]) for part in parts))


def _items(run: InferenceContext, pool: Any) -> Iterator[tuple[Any, torch.Tensor]]:
    return _outputs_and_targets(run, iter(run.ordered_batches(pool)))


def _outputs_and_targets(run: InferenceContext, batches: Iterator[Any]) -> Iterator[tuple[Any, torch.Tensor]]:
    """Yield outputs and targets of all batches; the ranks share the forward passes."""
    shared = RoundRobin(run.ranks, lambda batch: run.infer(batch[0]))
    for batch in batches:
        yield from (_on_one_device(*done) for done in shared.add(batch))
    yield from (_on_one_device(*done) for done in shared.rest())


def _on_one_device(batch: Any, outputs: Any) -> tuple[Any, torch.Tensor]:
    """Return outputs and targets, with the targets on the outputs' device; outputs of other ranks are on the CPU."""
    targets: torch.Tensor = batch[1]
    device = outputs.device if isinstance(outputs, torch.Tensor) else targets.device
    return outputs, targets if targets.device == device else targets.to(device)
