"""Stream a pool through the learner: in chunks of one shape, keeping only the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from alcore.errors import QueryError, UsageError
from alcore.placement import tensors_of

if TYPE_CHECKING:
    from alcore.driver import Driver

_CHUNK_BYTES = 2**20
_MIN_ROWS, _MAX_ROWS = 32, 4096
EVALUATION_ROWS = 4096


class Ranked(NamedTuple):
    """The best samples, best first: ids int64 (k,) and their scores (k,)."""

    ids: torch.Tensor
    scores: torch.Tensor


class TopK:
    """Keeps the k best of a stream, by (score, sample id): the higher score, then the lower id.

    Parameters
    ----------
    k
        How many to keep.

    Notes
    -----
    Ids must arrive in ascending order; a stable sort then leaves equal scores in the order of their ids.
    Memory is O(k + chunk).
    """

    def __init__(self, k: int) -> None:
        self._k = k
        self._ids = torch.empty(0, dtype=torch.int64)
        self._scores = torch.empty(0)

    def add(self, ids: torch.Tensor, scores: torch.Tensor) -> None:
        """Take in a chunk: ids int64 (n,), scores (n,) of any floating-point type."""
        if not len(ids) or not self._k:
            return
        scores = scores.detach().cpu()
        if bool(torch.isnan(scores).any()):
            bad = ids[torch.isnan(scores)][:5].tolist()
            raise QueryError(
                f"the score of sample {', '.join(map(str, bad))} is NaN, so samples can't be ranked; look at "
                "the learner's output for it, or at its inputs."
            )
        if len(self._ids):
            ids = torch.cat([self._ids, ids])
            scores = torch.cat([self._scores.to(scores.dtype), scores])
        if len(scores) > self._k:
            worst = torch.topk(scores, self._k, sorted=False).values.min()
            better = scores >= worst
            ids, scores = ids[better], scores[better]
        order = torch.sort(scores, descending=True, stable=True).indices[: self._k]
        self._ids, self._scores = ids[order], scores[order]

    def result(self) -> Ranked:
        """Return what was kept, best first."""
        return Ranked(self._ids, self._scores)


def chunks(
    driver: Driver, infer: Callable[[Any], Any] | None = None, *, ids: torch.Tensor | None = None
) -> Iterator[tuple[torch.Tensor, Any]]:
    """Yield the candidates of a driver's pool with the learner's outputs for them.

    Every forward pass of one pool has the same number of rows, so that a sample's score does not depend
    on where it stands: the tail is padded with its last sample, and the padding dropped. A pool that fits
    in one chunk is padded to a power of two.

    Parameters
    ----------
    driver
        Gives the candidates and the learner.
    infer
        Maps inputs to outputs; ``driver.infer`` where it is None.
    ids
        Look at these samples, int64 (N,), in place of all candidates; every pass has the full number of rows then.

    Yields
    ------
    tuple
        Ids, int64 (n,), and outputs for n samples (n along the last axis but one of posterior samples).
    """
    pool, rows, infer = driver.choice_pool, 0, infer or driver.infer
    for block in driver.candidates(_MAX_ROWS) if ids is None else _split(driver, ids):
        if not rows:
            size = sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(pool.inputs(block[:1])))
            rows = max(_MIN_ROWS, min(_MAX_ROWS, _power_of_two(_CHUNK_BYTES // max(size, 1))))
            shape = rows if ids is not None or len(block) > rows else min(rows, _power_of_two(2 * len(block) - 1))
        for part in torch.split(block, rows):
            n = len(part)
            padded = part if n == shape else torch.cat([part, part[-1:].expand(shape - n)])
            yield part, first_rows(infer(pool.inputs(padded)), n, shape)


def _split(driver: Driver, ids: torch.Tensor) -> Iterator[torch.Tensor]:
    for block in torch.split(ids, _MAX_ROWS) if len(ids) else ():
        driver.safe_point()
        yield block


def _power_of_two(n: int) -> int:
    """Return the largest power of two up to `n`, and 0 for 0."""
    return (1 << n.bit_length()) >> 1


def first_rows(outputs: Any, n: int, rows: int) -> Any:
    """Return the outputs of the first `n` of `rows` samples; posterior samples stand on the first of three axes."""
    if isinstance(outputs, tuple):
        return tuple(first_rows(one, n, rows) for one in outputs)
    if n == rows or not isinstance(outputs, torch.Tensor):
        return outputs
    return outputs[:, :n] if outputs.dim() == 3 else outputs[:n]


def top_k(
    driver: Driver, score: Callable[[Any], torch.Tensor], k: int, infer: Callable[[Any], Any] | None = None
) -> Ranked:
    """Return the k candidates with the highest scores.

    Parameters
    ----------
    driver
        Gives the candidates and the learner.
    score
        Maps the learner's outputs for B samples to scores (B,); higher is asked for first.
    k
        How many; fewer come back when the pool holds fewer.
    infer
        Maps inputs to outputs; ``driver.infer`` where it is None.

    Raises
    ------
    QueryError
        When a score is NaN.
    """
    best = TopK(k)
    if k:
        for ids, outputs in chunks(driver, infer):
            best.add(ids, check_scores(score(outputs), len(ids)))
    return best.result()


def subset(driver: Driver, size: int | float | None, generator: torch.Generator) -> torch.Tensor:
    """Return candidates drawn at random: ascending ids, int64 (n,).

    Parameters
    ----------
    driver
        Gives the candidates.
    size
        How many; a float is a fraction of them, rounded up; None takes all.
    generator
        What is drawn from: one number a candidate.
    """
    if size is None:
        found = list(driver.candidates())
        return torch.cat(found) if found else torch.empty(0, dtype=torch.int64)
    k = size if isinstance(size, int) else math.ceil(size * sum(len(ids) for ids in driver.candidates()))
    chosen = TopK(k)
    for ids in driver.candidates():
        chosen.add(ids, torch.rand(len(ids), generator=generator, dtype=torch.float64))
    return chosen.result().ids.sort().values


def check_scores(scores: Any, n: int) -> torch.Tensor:
    """Return scores that are one number a sample, or raise `UsageError`."""
    if not isinstance(scores, torch.Tensor) or scores.shape != (n,):
        what = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise UsageError(f"score(outputs) returned {what} for {n} samples; it must return a tensor ({n},).")
    return scores


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
    for start in range(0, len(targets), EVALUATION_ROWS):
        part = slice(start, start + EVALUATION_ROWS)
        yield driver.infer(inputs[part]), targets[part]


def _items(driver: Driver, pool: Any) -> Iterator[tuple[Any, torch.Tensor]]:
    for inputs, targets in driver.ordered_batches(pool):
        yield driver.infer(inputs), targets
