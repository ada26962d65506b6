"""Pointwise figures of ``query.py``: what alcore does, and a floor by hand in plain torch that finds the same."""

from __future__ import annotations

import dataclasses
import math
import queue
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

K = 100  # how many are chosen
BLOCK = 2**14

Choice = Callable[[], Any]


@dataclasses.dataclass
class Figure:
    """What alcore and the floor do, what double precision says, and what peers are given."""

    ours: Choice
    floor: Choice
    expected: Callable[[], torch.Tensor] | None = None  # None: what is chosen is drawn at random
    data: dict[str, Any] = dataclasses.field(default_factory=dict)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def best(scores: torch.Tensor, k: int = K) -> torch.Tensor:
    return torch.sort(scores, descending=True, stable=True).indices[:k]


class Asked(list[int]):
    """Takes in what a strategy asks for, as the query queue does."""

    def put_many(self, items: Any, scores: Any = None) -> None:  # noqa: D102, ARG002
        self.extend(items)


def uncertainty(pool: Any, learner: torch.nn.Module) -> Choice:
    """Return the choice of alcore's uncertainty sampling by entropy, with a driver as a run has it."""
    from alcore_uq import ClassifierUQQuery

    from alcore import Driver
    from alcore import config as c

    query = ClassifierUQQuery(K, "entropy")
    Driver(
        c.DriverConfig(batch_size=32, max_active_learning_steps=1, skip_training=True, device="cpu", seed=0),
        learner,
        c.StrategiesConfig(query_strategies=[query], queue_cls=queue.Queue),
        c.TrainingConfig(pool, max_training_epochs=0),
    )

    def choose() -> Asked:
        asked = Asked()
        query.sample(asked)
        return asked

    return choose


# -- pointwise scores: the whole way through pool, learner and strategy ------------------------------------------------


def entropy(_: str) -> Figure:
    """Entropy of 10 classes, 10^6 outputs."""
    from alcore import TensorPool

    logits = 2 * draw(10**6, 10)

    def floor() -> torch.Tensor:
        rough = torch.empty(len(logits))
        for start in range(0, len(logits), BLOCK):  # classes on the first axis: sums of whole rows
            z = logits[start : start + BLOCK].t().contiguous()
            z.sub_(z.amax(dim=0))
            p = z.exp()
            total = p.sum(dim=0)
            torch.sub(total.log(), p.mul_(z).sum(dim=0).div_(total), out=rough[start : start + BLOCK])
        short = rough.topk(2 * K).indices.sort().values
        return short[best(exact(logits[short]))]

    def exact(rows: torch.Tensor) -> torch.Tensor:
        return torch.special.entr(torch.softmax(rows.double(), dim=1)).sum(dim=1)

    return Figure(
        uncertainty(TensorPool(logits), torch.nn.Identity()), floor, lambda: best(exact(logits)), {"logits": logits}
    )


def binary(_: str) -> Figure:
    """Two classes with one column of logits, 10^6 outputs."""
    from alcore import TensorPool

    logits = 2 * draw(10**6)
    return Figure(
        uncertainty(TensorPool(logits), torch.nn.Identity()),
        lambda: logits.abs().topk(K, largest=False).indices,
        lambda: best(-logits.double().abs()),
        {"binary": logits},
    )


def mapped(path: str) -> Figure:
    """A linear classifier on a memory-mapped array of 64 columns."""
    from alcore import TensorPool

    torch.manual_seed(0)
    learner = torch.nn.Linear(64, 1)
    weight, bias = learner.weight.detach().t(), learner.bias.detach()

    def rows(mode: str = "r") -> Any:
        return np.load(path, mmap_mode=mode)

    def floor() -> torch.Tensor:
        array = torch.from_numpy(rows("c"))
        least, ids, worst = torch.empty(0), torch.empty(0, dtype=torch.int64), math.inf
        for start in range(0, len(array), BLOCK):
            scores = torch.addmm(bias, array[start : start + BLOCK], weight).flatten().abs_()
            if float(scores.min()) < worst:
                least, places = torch.cat([least, scores]).topk(K, largest=False)
                ids = torch.cat([ids, torch.arange(start, start + len(scores))])[places]
                worst = float(least[-1])
        return ids

    def expected() -> torch.Tensor:  # of the same logits: what the learner itself rounds is not the matter here
        with torch.no_grad():
            parts = torch.from_numpy(rows("c")).split(BLOCK)
            return best(-torch.cat([learner(part).flatten() for part in parts]).double().abs())

    return Figure(
        lambda: uncertainty(TensorPool(rows()), learner)(), floor, expected, {"rows": rows, "learner": learner}
    )


POINTWISE = {made.__name__: made for made in (entropy, binary, mapped)}
