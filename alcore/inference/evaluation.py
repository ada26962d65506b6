"""Run the learner over the samples that it is measured on, batch by batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, get_args

import torch

from alcore.distributed.ranks import RoundRobin
from alcore.errors import UsageError, check_choice
from alcore.inference.context import InferenceContext, inference_context
from alcore.pools.batches import rows_within
from alcore.pools.offers import answer_of, evaluation_of, knows_answers
from alcore.pools.tensor_pool import is_choosable
from alcore.protocols import RunContext

_ROWS = 4096  # most samples in a batch
_BYTES = 16 * 2**20  # and most bytes of inputs and targets
_FEW = 50  # samples to measure on, below which metrology warns

_Infer = Callable[[Any], Any]
_Batches = Iterator[tuple[Any, torch.Tensor]]

MeasuredOn = Literal["validation", "pool", "train", "unlabeled"]
"""The samples that a learner can be measured on; see `evaluate`."""


class Evaluation(NamedTuple):
    """The samples that the learner is measured on: where they come from, and (outputs, targets) batch by batch."""

    on: str
    batches: Iterator[tuple[Any, torch.Tensor]]


def evaluate(
    context: RunContext, on: MeasuredOn | None = None, infer: Callable[[Any], Any] | None = None
) -> Evaluation:
    """Run the learner over the samples that metrology measures on.

    Parameters
    ----------
    context
        The run.
    on
        ``"validation"``: the validation pool; ``"pool"``: what the training pool's ``evaluation()`` returns;
        ``"train"``: the labeled items; ``"unlabeled"``: the samples that may still be asked for, where the pool to
        choose from knows their answers. If not given, the first of ``"validation"``, ``"pool"`` and ``"train"`` that
        there is.
    infer
        Maps inputs to outputs; ``context.infer`` if None.

    Returns
    -------
    Evaluation
        `on` is what is measured on; each batch is (outputs, targets), of up to 4096 samples, and 16 MiB of inputs and
        targets. The learner is run when the batches are asked for.

    Raises
    ------
    UsageError
        If `on` is another word, or this run has no such samples.
    """
    run = inference_context(context)
    infer = infer or run.infer
    if on is None:
        on = _standard(run)
    check_choice("evaluate", "on", on, get_args(MeasuredOn))
    if on == "validation":
        if run.val_datapool is None:
            raise _missing(on, "this run has no validation pool", "give TrainingConfig a val_datapool")
        _warn_of_few(run, "held-out samples", len(run.val_datapool))
        return Evaluation(on, _items(run, run.val_datapool, infer))
    if on == "pool":
        evaluation = evaluation_of(run.train_datapool)
        if evaluation is None:
            raise _missing(on, "the training pool has no evaluation()", "give it one")
        inputs, targets = evaluation()
        _warn_of_few(run, "samples of the pool", len(targets))
        return Evaluation(on, _slices(run, inputs, targets, infer))
    if on == "train":
        return Evaluation(on, _items(run, run.train_datapool, infer))
    pool = run.choice_pool
    if not is_choosable(pool) or answer_of(pool) is None:
        raise _missing(on, "the pool to choose from can't list its unlabeled samples and their answers", "give it both")
    if not knows_answers(pool):
        raise _missing(on, "the pool to choose from doesn't know the answers of unlabeled samples", "give it targets")
    return Evaluation(on, _outputs_and_targets(run, _unlabeled(run, pool), infer))


def _standard(run: InferenceContext) -> MeasuredOn:
    if run.val_datapool is not None and len(run.val_datapool):
        return "validation"
    if evaluation_of(run.train_datapool):
        return "pool"
    if run.val_datapool is not None:
        run.warn_once(
            "metrology measures on the labeled items themselves, since the validation pool is empty: its labels have "
            "not come, or failed; these results are those of the training set."
        )
        return "train"
    run.warn_once(
        "metrology measures on the labeled items themselves, since there is no val_datapool and the training pool has "
        "no evaluation(); its results are those of the training set."
    )
    return "train"


def _warn_of_few(run: InferenceContext, what: str, count: int) -> None:
    """Warn where so few samples are measured on that metrics are hardly more than chance."""
    if not 0 < count < _FEW:
        return
    # of a share of 1/2, the widest: 1.96 sqrt(p (1 - p) / n); of the root of a mean of squares of normal errors:
    # 1.96 / sqrt(2 n)
    reach, metric = 0.98 / math.sqrt(count), "an accuracy reaches up to %.0f percentage points"
    if run.info is not None and run.info.task == "regression":
        reach, metric = 1.96 / math.sqrt(2 * count), "an RMSE reaches about %.0f%%"
    run.warn_once(
        f"metrology measures on %d {what}, which are few: the 95%% interval of {metric} to each side. Hold out "
        "more (--set data.NAME.validation=0.4 where the data has it, val_datapool in Python), or compare runs over "
        "several seeds (alcore benchmark).",
        count,
        100 * reach,
    )


def _missing(on: str, reason: str, remedy: str) -> UsageError:
    return UsageError(
        f"nothing can be measured with on={on!r}, since {reason}; {remedy}, or leave `on` out to measure on what there "
        "is."
    )


def _unlabeled(run: InferenceContext, pool: Any) -> Iterator[tuple[Any, torch.Tensor]]:
    """Yield inputs and targets of the candidates."""
    first = next(run.candidates(1), None)
    if first is None:
        return
    rows = min(_ROWS, rows_within((pool.inputs(first), _answers(pool, first)), _BYTES))
    for ids in run.candidates(rows):
        yield pool.inputs(ids), _answers(pool, ids)


def _answers(pool: Any, ids: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.as_tensor(pool.answer(sample)[1]) for sample in ids.tolist()])


def _slices(run: InferenceContext, inputs: Any, targets: torch.Tensor, infer: _Infer) -> _Batches:
    rows = min(_ROWS, rows_within((inputs, targets), _BYTES))
    parts = (slice(start, start + rows) for start in range(0, len(targets), rows))
    return _outputs_and_targets(run, ((inputs[part], targets[part]) for part in parts), infer)


def _items(run: InferenceContext, pool: Any, infer: _Infer) -> _Batches:
    return _outputs_and_targets(run, iter(run.ordered_batches(pool)), infer)


def _outputs_and_targets(run: InferenceContext, batches: Iterator[Any], infer: _Infer) -> _Batches:
    """Yield outputs and targets of all batches; the ranks share the forward passes."""
    shared = RoundRobin(run.ranks, lambda batch: infer(batch[0]))
    for batch in batches:
        yield from (_on_one_device(*done) for done in shared.add(batch))
    yield from (_on_one_device(*done) for done in shared.rest())


def _on_one_device(batch: Any, outputs: Any) -> tuple[Any, torch.Tensor]:
    """Return outputs and targets, with the targets on the outputs' device; outputs of other ranks are on the CPU."""
    targets: torch.Tensor = batch[1]
    device = outputs.device if isinstance(outputs, torch.Tensor) else targets.device
    return outputs, targets if targets.device == device else targets.to(device)
