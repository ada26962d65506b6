"""Stream a pool through the learner in chunks of one shape, and keep only the best samples."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from tqdm import tqdm

from alcore.distributed.ranks import Ranks, RoundRobin
from alcore.errors import QueryError, UsageError
from alcore.inference.context import InferenceContext, inference_context
from alcore.inference.feasibility import weighted_by
from alcore.inference.ranking import Ranked, TopK, merge, rows_reaching
from alcore.outputs.kinds import first_rows
from alcore.outputs.modes import eval_mode
from alcore.pools.batches import tensors_of
from alcore.pools.candidates import listed_range, lists_windows
from alcore.protocols import RunContext

# A chunk is large enough that its forward pass takes far longer than the Python code around it, and small enough that
# what is computed from it stays in the processor's cache.
_MIN_ROWS, _MAX_ROWS = 32, 2**16
_CHUNK_BYTES = 2**24  # of inputs with one axis; a quarter for others, which a learner's layers often enlarge
_CHUNK_WORK = 2**26  # rows times weights
_CHUNK_UNITS = 2**24  # rows times weights per input number, at most
_FREE = 1e-100  # what a label that costs nothing is taken to cost
_LISTED_ROWS = 2**10  # rows of a pass over listed samples, of which there may be few
_LARGEST_DYNAMIC_BLOCK = 2**25 - 2**16  # just below the upper bound of glibc's dynamic mmap threshold
_WEIGHTS_OF_OTHERS = 2**14  # assumed for a learner that is not a module

Estimate = Callable[[Any], tuple[torch.Tensor, float] | None]


def chunks(
    context: RunContext,
    infer: Callable[[Any], Any] | None = None,
    *,
    ids: torch.Tensor | None = None,
    pool: Any = None,
    shard: tuple[int, int] | None = None,
    samples: int = 1,
) -> Iterator[tuple[torch.Tensor, Any]]:
    """Yield the candidates of a run with the learner's outputs for them.

    Every forward pass over a pool has the same number of rows, so that the score of a sample does not depend on its
    position. The last chunk is padded with its last sample, and the outputs for the padding are dropped. A pool that
    fits in one chunk is padded to a power of two. Passes over listed samples (`ids`) have up to 1024 rows, however many
    samples are listed. A pass of more than a second shows a progress bar on a terminal.

    Parameters
    ----------
    context
        The run, with its candidates and learner.
    infer
        Maps inputs to outputs; ``context.infer`` if None.
    ids
        Samples to take in place of all candidates: int64 (N,).
    pool
        The pool of the samples; the pool to choose from if None.
    shard
        ``(rank, processes)``: yield each chunk whose number modulo `processes` is `rank`. If None, the ranks of the run
        share the forward passes, and every rank yields all chunks.
    samples
        Outputs a sample, such as the K samples of a posterior; chunks are smaller by this factor.

    Yields
    ------
    tuple
        Ids, int64 (n,), and the outputs for these n samples. The samples are on the first axis; for posterior samples
        (K, n, C) on the second.
    """
    run = inference_context(context)
    pool, infer = run.choice_pool if pool is None else pool, infer or run.infer
    _raise_mmap_threshold()
    rows = shape = number = 0

    def outputs_of(part: torch.Tensor) -> Any:
        n = len(part)
        padded = part if n == shape else torch.cat([part, part[-1:].expand(shape - n)])
        return first_rows(infer(pool.inputs(padded)), n, shape)

    shared = RoundRobin(run.ranks if shard is None else Ranks(), outputs_of)
    rank, processes = shard or (0, 1)
    with eval_mode(run.learner), _progress(run, pool, ids) as advance:  # once, not for each chunk
        for block in run.candidates(_MAX_ROWS) if ids is None else _split(run, ids):
            if not rows:
                rows = chunk_rows(run, pool.inputs(block[:1]), samples)
                if ids is not None:
                    rows = shape = min(rows, _LISTED_ROWS)
                else:
                    shape = rows if len(block) > rows else min(rows, _power_of_two(2 * len(block) - 1))
            for part in torch.split(block, rows) if len(block) > rows else (block,):
                if number % processes == rank:
                    yield from shared.add(part)
                number += 1
                advance(part)
        yield from shared.rest()


@functools.cache
def _raise_mmap_threshold() -> None:
    """Free one large block, once a process.

    glibc's malloc raises its dynamic ``M_MMAP_THRESHOLD`` to the size of a freed block. After that it keeps the memory
    of the learner's layer outputs, in place of mapping and unmapping it at each forward pass.
    """
    torch.empty(_LARGEST_DYNAMIC_BLOCK, dtype=torch.uint8)


def chunk_rows(run: InferenceContext, one: Any, samples: int = 1) -> int:
    """Return how many samples are passed through the learner at once: a power of two.

    It is at least the size of a training batch, and more as far as memory and the size of the learner allow.

    Parameters
    ----------
    run
        The run, with its learner.
    one
        The inputs of one sample, as a batch.
    samples
        Outputs a sample.
    """
    tensors, learner = tensors_of(one), run.learner
    numbers = sum(tensor.numel() for tensor in tensors)
    size = max(1, sum(tensor.numel() * tensor.element_size() for tensor in tensors))
    share = 1 if all(tensor.dim() <= 2 for tensor in tensors) else 4
    weights, units = _WEIGHTS_OF_OTHERS, 1
    if isinstance(learner, torch.nn.Module):
        weights = max(1, sum(p.numel() for p in learner.parameters()))
        units = max(1, weights // max(1, numbers))
    fitting = min(_MAX_ROWS // samples, _CHUNK_BYTES // size) // share
    most = min(fitting, _CHUNK_WORK // weights, _CHUNK_UNITS // units)
    least = max(1, min(_MIN_ROWS, 2 * _CHUNK_BYTES // size), min(run.batch_size, _MAX_ROWS))
    return _power_of_two(max(most, least))


def _split(run: InferenceContext, ids: torch.Tensor) -> Iterator[torch.Tensor]:
    for block in torch.split(ids, _MAX_ROWS) if len(ids) else ():
        run.safe_point()
        yield block


@contextlib.contextmanager
def _progress(run: InferenceContext, pool: Any, ids: torch.Tensor | None) -> Iterator[Callable[[torch.Tensor], None]]:
    """Show the progress of a pass on a terminal; the bar appears after a second and is removed at the end."""
    with tqdm(desc="scoring", unit=" samples", unit_scale=True, delay=1, leave=False, disable=None) as bar:
        if bar.disable:
            yield lambda _part: None
            return
        by_id = ids is None and lists_windows(pool)  # counting the candidates would take a pass of its own
        first, end = listed_range(pool, run.active_learning_step_idx) if by_id else (0, 0)
        bar.total = end - first if by_id else len(pool.unlabeled_indices() if ids is None else ids)
        yield lambda part: bar.update(int(part[-1]) + 1 - first - bar.n if by_id else len(part))


def _power_of_two(n: int) -> int:
    """Return the largest power of two up to `n`, and 0 for 0."""
    return (1 << n.bit_length()) >> 1


def top_k(
    context: RunContext,
    score: Callable[[Any], torch.Tensor],
    k: int,
    infer: Callable[[Any], Any] | None = None,
    estimate: Estimate | None = None,
    shard: tuple[int, int] | None = None,
    samples: int = 1,
    worth: Callable[[Any], torch.Tensor] | None = None,
) -> Ranked:
    """Return the k candidates with the highest scores, or where the run wants that, the highest worth per cost.

    With ``DriverConfig.feasibility = "weight"`` scores are weighted by how likely a label is, once samples failed as
    infeasible: scores of at least 0 are multiplied with the probability, and others divided by it.

    Parameters
    ----------
    context
        The run, with its candidates and learner.
    score
        Maps the learner's outputs for B samples to scores (B,); the higher, the sooner a sample is asked for.
    k
        How many candidates; all of them if the pool has fewer.
    infer
        Maps inputs to outputs; ``context.infer`` if None.
    estimate
        As `PointwiseQuery.estimate`, for outputs (B, ...). Samples that the estimate rules out are not scored.
    shard, samples
        As in `chunks`. The results of the processes are put together by `merge`; if `shard` is None, this is done for
        the ranks of the run.
    worth
        Takes the place of `score` where the run chooses by score per cost (``DriverConfig.per_cost``): not negative.

    Raises
    ------
    QueryError
        If a score is NaN, or a worth is negative and is to be divided by a cost.
    """
    run = inference_context(context)
    ranks = run.ranks
    if shard is None and ranks.size > 1:
        mine = top_k(context, score, k, infer, estimate, (ranks.rank, ranks.size), samples, worth)
        return merge([Ranked(*fields) for fields in ranks.gather(tuple(mine))], k)
    best = TopK(k)
    if not k:
        return best.result()
    feasibility = run.feasibility
    waiting: list[tuple[torch.Tensor, torch.Tensor]] = []
    with contextlib.closing(chunks(context, infer, shard=shard, samples=samples)) as stream:  # type: ignore[type-var]
        for ids, outputs in stream:
            costs, weights = context.costs(ids), feasibility.weights(ids)
            rough = None if estimate is None or costs is not None or weights is not None else estimate(outputs)
            if rough is None:
                _score_waiting(waiting, score, best)
                measure = score if costs is None else worth or score
                scores = check_scores(measure(outputs), len(ids))
                scores = scores if weights is None else weighted_by(scores, weights)
                best.add(ids, scores if costs is None else _per_cost(ids, scores, costs))
                continue
            rows = _possible_top_k(*rough, best.floor, k)
            if len(rows):
                waiting.append((ids[rows], outputs[rows.to(outputs.device)]))
            if best.floor is None or sum(len(some) for some, _ in waiting) >= 2 * k:
                _score_waiting(waiting, score, best)
        _score_waiting(waiting, score, best)
    return best.result()


def _per_cost(ids: torch.Tensor, worth: torch.Tensor, costs: torch.Tensor) -> torch.Tensor:
    """Return what samples are worth for what they cost: float64 (n,). What costs nothing comes first."""
    worth = worth.detach().double().cpu()
    if bool((worth < 0).any()):
        raise QueryError(
            f"the score of sample {int(ids[worth < 0][0])} is {float(worth[worth < 0][0]):.4g}, and a negative score "
            "can't be divided by a cost: leave out per_cost, take another measure, or give the strategy a method "
            "worth(scores) that is not negative."
        )
    return per_cost(worth, costs)


def per_cost(scores: torch.Tensor, costs: torch.Tensor | None) -> torch.Tensor:
    """Return scores of at least 0 divided by costs, where costs count: (N,); what costs nothing comes first.

    Parameters
    ----------
    scores
        Shape (N,).
    costs
        What `RunContext.costs` returned for the samples: shape (N,), or None.
    """
    return scores if costs is None else scores / costs.clamp(min=_FREE)


def _possible_top_k(rough: torch.Tensor, error: float, floor: float | None, k: int) -> torch.Tensor:
    """Return the rows of a chunk that may be among the k best, judged by their estimates."""
    rough = rough.detach().cpu()
    rows = torch.arange(len(rough))
    if floor is not None:
        rows = rows_reaching(rough, floor - error) if not float(rough.max()) < floor - error else rows[:0]
    if len(rows) > 2 * k:
        rough = rough[rows]
        rows = rows[rows_reaching(rough, float(torch.topk(rough, k).values[-1]) - 2 * error)]
    return rows


def _score_waiting(
    waiting: list[tuple[torch.Tensor, torch.Tensor]], score: Callable[[Any], torch.Tensor], best: TopK
) -> None:
    """Score the samples that the estimate left, of several chunks at once."""
    if waiting:
        ids, outputs = (torch.cat(parts) for parts in zip(*waiting, strict=True))
        waiting.clear()
        best.add(ids, check_scores(score(outputs), len(ids)))


def subset(context: RunContext, size: int | float | None, generator: torch.Generator) -> torch.Tensor:
    """Return candidates drawn at random: ascending ids, int64 (n,).

    Parameters
    ----------
    context
        The run, with its candidates.
    size
        How many to draw; a float is a fraction of them, rounded up; None takes all.
    generator
        The generator to draw from: one number for each candidate.

    Notes
    -----
    Memory is O(n). A fraction needs one pass over the ids to count them, and another to draw.
    """
    kept = inference_context(context).feasibility.kept
    if size is None:
        parts = [kept(ids) for ids in context.candidates()]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)
    if not isinstance(size, int):
        count = sum(len(kept(ids)) for ids in context.candidates())
        size = math.ceil(round(size * count, 6))  # 0.1 * 30 is a bit more than 3
    chosen = TopK(size)
    for ids in map(kept, context.candidates()):
        chosen.add(ids, torch.rand(len(ids), generator=generator, dtype=torch.float64))
    return chosen.result().ids.sort().values


def check_scores(scores: Any, n: int) -> torch.Tensor:
    """Return `scores` if they are one number for each of `n` samples, else raise `UsageError`."""
    if not isinstance(scores, torch.Tensor) or scores.shape != (n,):
        what = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise UsageError(f"score(outputs) returned {what} for {n} samples; it must return a tensor ({n},).")
    return scores
