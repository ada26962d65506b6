"""Stream a pool through the learner: in chunks of one shape, keeping only the best."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from alcore.distributed.ranks import Dealt, Ranks
from alcore.errors import UsageError
from alcore.inference.evaluation import Evaluation as Evaluation
from alcore.inference.evaluation import evaluate as evaluate
from alcore.inference.outputs import first_rows
from alcore.inference.ranking import Ranked as Ranked
from alcore.inference.ranking import TopK as TopK
from alcore.inference.ranking import merge as merge
from alcore.inference.ranking import reaching
from alcore.pools.batches import eval_mode, tensors_of

if TYPE_CHECKING:
    from alcore.driver import Driver

# A chunk is so large that the work on it dwarfs what python does around it, and no larger: what is computed from it
# should stay in the processor's cache.
_MIN_ROWS, _MAX_ROWS = 32, 2**16
_CHUNK_BYTES = 2**24  # of inputs with one axis; of others, which the layers of a learner often make larger, a fourth
_CHUNK_WORK = 2**26  # rows times weights
_CHUNK_UNITS = 2**24  # rows times what the weights make of one, at most
_FREED_ONCE = 2**25 - 2**16  # just below the most that glibc's malloc learns from
_OTHER_WEIGHTS = 2**14  # what a learner that is no module counts for

Estimate = Callable[[Any], tuple[torch.Tensor, float] | None]


def chunks(
    driver: Driver,
    infer: Callable[[Any], Any] | None = None,
    *,
    ids: torch.Tensor | None = None,
    pool: Any = None,
    shard: tuple[int, int] | None = None,
    samples: int = 1,
) -> Iterator[tuple[torch.Tensor, Any]]:
    """Yield the candidates of a driver's pool with the learner's outputs for them.

    Every forward pass of one pool has the same number of rows, so that a sample's score does not depend
    on where it stands: the tail is padded with its last sample, and the padding dropped. A pool that fits
    in one chunk is padded to a power of two. Passes that take longer than a second show a bar on a terminal.

    Parameters
    ----------
    driver
        Gives the candidates and the learner.
    infer
        Maps inputs to outputs; ``driver.infer`` where it is None.
    ids
        Look at these samples, int64 (N,), in place of all candidates; every pass has the full number of rows then.
    pool
        Where the samples are; the pool to choose from where it is None.
    shard
        ``(rank, processes)``: yield every so manieth chunk, so that the processes see each chunk once between them.
        Where it is None, each rank of the run computes its share, and all of them yield every chunk.
    samples
        How many outputs a sample has, those of K samples of a posterior; chunks are so many times smaller.

    Yields
    ------
    tuple
        Ids, int64 (n,), and outputs for n samples (n along the last axis but one of posterior samples).
    """
    pool, infer = driver.choice_pool if pool is None else pool, infer or driver.infer
    _teach_malloc()
    rows = shape = number = 0

    def outputs_of(part: torch.Tensor) -> Any:
        n = len(part)
        padded = part if n == shape else torch.cat([part, part[-1:].expand(shape - n)])
        return first_rows(infer(pool.inputs(padded)), n, shape)

    dealt = Dealt(driver.ranks if shard is None else Ranks(), outputs_of)
    rank, processes = shard or (0, 1)
    with eval_mode(driver.learner), _progress(pool, ids) as advance:  # once, not for each chunk
        for block in driver.candidates(_MAX_ROWS) if ids is None else _split(driver, ids):
            if not rows:
                rows = chunk_rows(driver, pool.inputs(block[:1]), samples)
                shape = rows if ids is not None or len(block) > rows else min(rows, _power_of_two(2 * len(block) - 1))
            for part in torch.split(block, rows) if len(block) > rows else (block,):
                if number % processes == rank:
                    yield from dealt.add(part)
                number += 1
                advance(part)
        yield from dealt.rest()


@functools.cache
def _teach_malloc() -> None:
    """Free a large block, once a process: malloc learns from it not to ask the system for each layer's output."""
    torch.empty(_FREED_ONCE, dtype=torch.uint8)


def chunk_rows(driver: Driver, one: Any, samples: int = 1) -> int:
    """Return how many samples go through the learner at once, a power of two, judging by the input of one.

    At least the training's batch, and as many more as memory and the size of the learner allow. Where each of them gets
    several outputs, `samples` says how many.
    """
    tensors, learner = tensors_of(one), driver.learner
    numbers = sum(tensor.numel() for tensor in tensors)
    size = max(1, sum(tensor.numel() * tensor.element_size() for tensor in tensors))
    share = 1 if all(tensor.dim() <= 2 for tensor in tensors) else 4
    weights, units = _OTHER_WEIGHTS, 1
    if isinstance(learner, torch.nn.Module):
        weights = max(1, sum(p.numel() for p in learner.parameters()))
        units = max(1, weights // max(1, numbers))
    fitting = min(_MAX_ROWS // samples, _CHUNK_BYTES // size) // share
    most = min(fitting, _CHUNK_WORK // weights, _CHUNK_UNITS // units)
    least = max(1, min(_MIN_ROWS, 2 * _CHUNK_BYTES // size), min(driver.config.batch_size, _MAX_ROWS))
    return _power_of_two(max(most, least))


def _split(driver: Driver, ids: torch.Tensor) -> Iterator[torch.Tensor]:
    for block in torch.split(ids, _MAX_ROWS) if len(ids) else ():
        driver.safe_point()
        yield block


@contextlib.contextmanager
def _progress(pool: Any, ids: torch.Tensor | None) -> Iterator[Callable[[torch.Tensor], None]]:
    """Show how far a pass is, with rate and time left; it appears after a second and leaves nothing behind."""
    with tqdm(desc="scoring", unit=" samples", unit_scale=True, delay=1, leave=False, disable=None) as bar:
        if bar.disable:
            yield lambda _part: None
            return
        places = ids is None and hasattr(pool, "total")  # counting the candidates would take a pass of its own
        bar.total = pool.total if places else len(pool.unlabeled_indices() if ids is None else ids)
        yield lambda part: bar.update(int(part[-1]) + 1 - bar.n if places else len(part))


def _power_of_two(n: int) -> int:
    """Return the largest power of two up to `n`, and 0 for 0."""
    return (1 << n.bit_length()) >> 1


def top_k(
    driver: Driver,
    score: Callable[[Any], torch.Tensor],
    k: int,
    infer: Callable[[Any], Any] | None = None,
    estimate: Estimate | None = None,
    shard: tuple[int, int] | None = None,
    samples: int = 1,
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
    estimate
        Gives what `PointwiseQuery.estimate` does, for outputs (B, ...). Where that rules a sample out, it isn't scored.
    shard, samples
        As in `chunks`; `merge` puts together what the processes found. Where `shard` is None, that is done for the
        ranks of the run.

    Raises
    ------
    QueryError
        When a score is NaN.
    """
    if shard is None and driver.ranks.size > 1:
        mine = top_k(driver, score, k, infer, estimate, (driver.ranks.rank, driver.ranks.size))
        return merge([Ranked(*one) for one in driver.ranks.gather(tuple(mine))], k)
    best = TopK(k)
    if not k:
        return best.result()
    waiting: list[tuple[torch.Tensor, torch.Tensor]] = []
    with contextlib.closing(chunks(driver, infer, shard=shard, samples=samples)) as stream:  # type: ignore[type-var]
        for ids, outputs in stream:
            rough = None if estimate is None else estimate(outputs)
            if rough is None:
                _score(waiting, score, best)
                best.add(ids, check_scores(score(outputs), len(ids)))
                continue
            rows = _hopeful(*rough, best.floor, k)
            if len(rows):
                waiting.append((ids[rows], outputs[rows.to(outputs.device)]))
            if best.floor is None or sum(len(some) for some, _ in waiting) >= 2 * k:
                _score(waiting, score, best)
        _score(waiting, score, best)
    return best.result()


def _hopeful(rough: torch.Tensor, error: float, floor: float | None, k: int) -> torch.Tensor:
    """Return the places of samples that may be among the k best, of all so far and of these."""
    rough = rough.detach().cpu()
    rows = torch.arange(len(rough))
    if floor is not None:
        rows = reaching(rough, floor - error) if not float(rough.max()) < floor - error else rows[:0]
    if len(rows) > 2 * k:
        rough = rough[rows]
        rows = rows[reaching(rough, float(torch.topk(rough, k).values[-1]) - 2 * error)]
    return rows


def _score(waiting: list[tuple[torch.Tensor, torch.Tensor]], score: Callable[[Any], torch.Tensor], best: TopK) -> None:
    """Score what waits, of several chunks at once: each has only a few hopeful samples."""
    if waiting:
        ids, outputs = (torch.cat(parts) for parts in zip(*waiting, strict=True))
        waiting.clear()
        best.add(ids, check_scores(score(outputs), len(ids)))


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

    Notes
    -----
    Memory is O(n). A fraction takes a pass over the ids to count them, and another to draw.
    """
    if size is None:
        found = list(driver.candidates())
        return torch.cat(found) if found else torch.empty(0, dtype=torch.int64)
    if not isinstance(size, int):
        size = math.ceil(round(size * sum(map(len, driver.candidates())), 6))  # 0.1 * 30 is a bit more than 3
    chosen = TopK(size)
    for ids in driver.candidates():
        chosen.add(ids, torch.rand(len(ids), generator=generator, dtype=torch.float64))
    return chosen.result().ids.sort().values


def check_scores(scores: Any, n: int) -> torch.Tensor:
    """Return scores that are one number a sample, or raise `UsageError`."""
    if not isinstance(scores, torch.Tensor) or scores.shape != (n,):
        what = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise UsageError(f"score(outputs) returned {what} for {n} samples; it must return a tensor ({n},).")
    return scores
