"""A first selection for simulations: one sample of each class, and random samples."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch

from alcore.errors import UsageError
from alcore.inference import subset
from alcore.pools import answer_of, knows_answers
from alcore.protocols import QueryQueue
from alcore.strategies import BaseQuery


def one_of_each(ids: torch.Tensor, answer: Callable[[int], Hashable], n: int, classes: int | None = None) -> list[int]:
    """Choose the first n samples, but the first of each class before samples of a class that was chosen already.

    Parameters
    ----------
    ids
        Sample ids in random order: int64, shape (N,).
    answer
        Returns the class of a sample.
    n
        How many to choose; all N if there are fewer.
    classes
        Number of classes: once all were found, no more answers are looked up. None looks up every answer.

    Returns
    -------
    list of int
        Ids: the first of each class in the order in which they were found, then the others.
    """
    firsts: dict[Hashable, int] = {}
    for sample in ids.tolist():
        if len(firsts) == min(n, n if classes is None else classes):
            break
        firsts.setdefault(answer(sample), sample)
    chosen = list(firsts.values())
    others = ids[: n + len(chosen)]
    others = others[~torch.isin(others, torch.tensor(chosen, dtype=torch.int64))]
    return chosen + others[: n - len(chosen)].tolist()


class StratifiedStart(BaseQuery):
    """Ask for at least one sample of each class, and for random ones: a first selection for simulations.

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.

    Notes
    -----
    It looks up the answers of unlabeled samples, so it needs a pool that knows them. It is for comparing strategies
    from a start that has all classes, as many published protocols do. With fewer samples than classes it asks for as
    many classes as possible. The sample of a class is drawn uniformly from that class, and the others from all
    remaining samples. The learner is not used, and may be untrained.

    Answers are looked up in random order until each class was found; memory is O(N) ids.

    It helps to start classifiers that can't be trained on one class. It is known to give
    optimistic results, since a real first selection does not know the classes: use ``random`` where a result must hold
    in practice.
    """

    def __init__(self, max_samples: int = 10) -> None:
        self.set_max_samples(max_samples)

    def check(self) -> None:
        """Raise `UsageError` for a pool that doesn't know its answers, or whose answers are not classes."""
        ids = next(self.driver.candidates(1), None)
        pool, info = self.driver.choice_pool, self.driver.info
        if info is not None and info.task != "classification":
            raise UsageError(f"it takes samples of each class, and the task of this data is {info.task}; use random.")
        if answer_of(pool) is None or not knows_answers(pool):
            raise UsageError(
                f"it looks up answers, and {type(pool).__name__} doesn't know those of unlabeled samples, as in any "
                "real run; use random."
            )
        if ids is not None:
            self._answer(int(ids[0]))

    def sample(self, query_queue: QueryQueue, *args: Any, **kwargs: Any) -> None:
        """Ask for `max_samples` candidates, the first of each class before the others."""
        ids = subset(self.driver, None, self.generator())
        ids = ids[torch.randperm(len(ids), generator=self.generator())]
        info = self.driver.info
        query_queue.put_many(one_of_each(ids, self._answer, self.wanted, info.classes if info is not None else None))

    def _answer(self, sample: int) -> Hashable:
        self.driver.safe_point()
        target = torch.as_tensor(self.driver.choice_pool.answer(sample)[1])
        if target.numel() != 1:
            raise UsageError(
                f"it takes one sample of each class, and the answer of sample {sample} has shape "
                f"{tuple(target.shape)}; use random."
            )
        return target.item()
