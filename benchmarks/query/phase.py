"""Time the whole query phase of a run, as users get it, against hand-written floors in plain torch.

A run of alcore is made anew for each repeat, in a folder of its own, without training and labeling; what counts is the
CPU time between the start and the end of its query phase: the ids of the pool, the learner's forward passes, features,
the choice, the checks of what was asked for, and its commit. The floor has the same pool and learner, and finds samples
in the same way, without a framework. Both run on one thread and take turns; medians are compared: `ratio`, and
`ratio_with_commit`, for which the floor also commits what it found in one transaction of a bare database, as durably as
alcore. Peak anonymous memory, above what stands when the data are there, is measured in a process for each, in a second
run of it.

Usage: python benchmarks/query/phase.py [FIGURE ...] [--repeats 5]
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gc
import json
import logging
import math
import queue
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from figures import BLOCK, K, best, draw
from query import peak
from sets import spread, squares

import alcore
from alcore import Driver, TensorPool
from alcore import config as c
from alcore.protocols import Phase

COLUMNS, CLASSES = 64, 10
SMALL, START = 5_000, 100
"""Samples of the set-based figures, and how many of them are labeled."""


class PhaseClock:
    """Notes the CPU seconds of each query phase of a run."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    @alcore.runhook
    def alcore_phase_start(self) -> None:  # noqa: D102
        self._began = time.process_time()

    @alcore.runhook
    def alcore_phase_end(self, phase: Phase) -> None:  # noqa: D102
        if phase is Phase.QUERY:
            self.seconds.append(time.process_time() - self._began)


class Mlp(torch.nn.Module):
    """A hidden layer with dropout, whose outputs are the features."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.nn.Linear(COLUMNS, COLUMNS)
        self.dropout = torch.nn.Dropout(0.3)
        self.last = torch.nn.Linear(COLUMNS, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # noqa: D102
        return self.last(self.dropout(torch.relu(self.hidden(x))))


class Case:
    """A pool with a learner, and the run of a strategy over it.

    Parameters
    ----------
    rows, labeled
        Samples, and how many of them, the first ones, are labeled.
    learner
        Makes the learner.
    strategy
        Makes the strategy.
    floor
        Given the inputs of all samples, the learner and the number of labeled ones, makes a function that chooses.
    steps
        Of the run; the last query phase counts. With more than one, samples are labeled in between.
    """

    def __init__(
        self,
        rows: int,
        labeled: int,
        learner: Callable[[], torch.nn.Module],
        strategy: Callable[[], Any],
        floor: Callable[[torch.Tensor, torch.nn.Module, int], Callable[[], Any]],
        steps: int = 1,
    ) -> None:
        torch.manual_seed(0)
        self._inputs, self._targets = draw(rows, COLUMNS), torch.arange(rows) % CLASSES
        self._learner = learner().eval()
        self._labeled, self._strategy, self._steps = labeled, strategy, steps
        self._floor = floor(self._inputs, self._learner, labeled)

    def ours(self) -> float:
        """Return the CPU seconds of the last query phase of a run."""
        from alcore_dummy import DummyLabelStrategy

        clock = PhaseClock()
        with tempfile.TemporaryDirectory() as folder:
            driver = Driver(
                c.DriverConfig(
                    batch_size=32, max_active_learning_steps=self._steps, skip_training=True,
                    skip_labeling=self._steps == 1, device="cpu", seed=0, root_log_dir=folder,
                ),
                self._learner,
                c.StrategiesConfig([self._strategy()], queue.Queue, DummyLabelStrategy()),
                c.TrainingConfig(
                    TensorPool(self._inputs, self._targets, labeled=range(self._labeled)), max_training_epochs=0
                ),
                plugins=[clock],
            )  # fmt: skip
            driver()
        return clock.seconds[-1]

    def floor(self) -> float:
        """Return the CPU seconds of the floor."""
        began = time.process_time()
        with torch.no_grad():
            self._floor()
        return time.process_time() - began


def bare_commit(database: Path) -> float:
    """Return the CPU seconds of committing K rows in one transaction of a bare database."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA synchronous = EXTRA")
        connection.execute("CREATE TABLE IF NOT EXISTS requests (id TEXT PRIMARY KEY, step, place, sample, item)")
        began = time.process_time()
        connection.execute("BEGIN IMMEDIATE")
        rows = [(f"{began}-{place}", 0, place, place, "0") for place in range(K)]
        connection.executemany("INSERT INTO requests VALUES (?, ?, ?, ?, ?)", rows)
        connection.execute("COMMIT")
        return time.process_time() - began


# -- floors: passes in blocks over all unlabeled samples, then plain torch ---------------------------------------------


def outputs(inputs: torch.Tensor, learner: Any) -> torch.Tensor:
    return torch.cat([learner(block) for block in inputs.split(4096)])


def features(inputs: torch.Tensor, learner: Any) -> torch.Tensor:
    return torch.cat([torch.relu(learner.hidden(block)) for block in inputs.split(4096)])


def both(inputs: torch.Tensor, learner: Any) -> tuple[torch.Tensor, torch.Tensor]:
    hidden = features(inputs, learner)
    return hidden, torch.softmax(learner.last(hidden), dim=1)


def entropies(p: torch.Tensor) -> torch.Tensor:
    return torch.special.entr(p.double()).sum(dim=1)


def entropy_floor(inputs: torch.Tensor, learner: Any, labeled: int) -> Callable[[], torch.Tensor]:
    rest = inputs[labeled:]

    def choose() -> torch.Tensor:
        rough = torch.empty(len(rest))
        for start in range(0, len(rest), BLOCK):  # classes on the first axis: sums of whole rows
            z = learner(rest[start : start + BLOCK]).t().contiguous()
            z.sub_(z.amax(dim=0))
            p = z.exp()
            total = p.sum(dim=0)
            torch.sub(total.log(), p.mul_(z).sum(dim=0).div_(total), out=rough[start : start + BLOCK])
        short = rough.topk(2 * K).indices.sort().values
        return short[best(entropies(torch.softmax(learner(rest[short]).double(), dim=1)))]

    return choose


def kcenter_inputs_floor(inputs: torch.Tensor, _: Any, labeled: int) -> Callable[[], torch.Tensor]:
    return lambda: spread(inputs[labeled:], squares(inputs[labeled:], inputs[:labeled]), K)


def kept_floor(inputs: torch.Tensor, _: Any, labeled: int) -> Callable[[], torch.Tensor]:
    rest = inputs[labeled:]
    near = squares(rest, inputs[:labeled])
    first = spread(rest, near, K)
    bound = torch.minimum(near, squares(rest, rest[first])).index_fill_(0, first, -1)
    return lambda: spread(rest, bound, K)


def kcenter_floor(inputs: torch.Tensor, learner: Any, labeled: int) -> Callable[[], torch.Tensor]:
    def choose() -> torch.Tensor:
        vectors, labeled_vectors = features(inputs[labeled:], learner), features(inputs[:labeled], learner)
        return spread(vectors, squares(vectors, labeled_vectors), K)

    return choose


def badge_floor(inputs: torch.Tensor, learner: Any, labeled: int) -> Callable[[], torch.Tensor]:
    def choose() -> torch.Tensor:  # distances of outer products, from products of their factors
        vectors, p = both(inputs[labeled:], learner)
        generator = torch.Generator().manual_seed(0)
        error = p - torch.nn.functional.one_hot(p.argmax(dim=1), CLASSES)
        norms = vectors.square().sum(dim=1) * error.square().sum(dim=1)
        picks, near = [int(norms.argmax())], torch.full_like(norms, math.inf)
        while len(picks) < K:
            last = picks[-1]
            between = (vectors @ vectors[last]).mul_(error @ error[last])
            near = torch.minimum(near, (norms + norms[last]).sub_(between, alpha=2).clamp_(min=0))
            near[last] = 0
            picks.append(int(torch.multinomial(near, 1, generator=generator)))
        return torch.tensor(picks)

    return choose


def typiclust_floor(inputs: torch.Tensor, learner: Any, labeled: int) -> Callable[[], torch.Tensor]:
    from sklearn.cluster import MiniBatchKMeans

    def choose() -> torch.Tensor:
        vectors = features(inputs, learner)
        model = MiniBatchKMeans(labeled + K, n_init=1, batch_size=5000, random_state=0)
        clusters = torch.from_numpy(model.fit_predict(vectors.numpy())).long()
        counts = torch.bincount(clusters[:labeled], minlength=labeled + K)
        sizes = torch.bincount(clusters[labeled:], minlength=labeled + K)
        picks: list[int] = []
        for cluster in (counts * 10**6 - sizes).argsort(stable=True).tolist():
            rows = (clusters[labeled:] == cluster).nonzero().flatten() + labeled
            if len(rows) > 5 and len(picks) < K:
                distances = torch.cdist(vectors[rows], vectors[rows])
                near = distances.topk(min(20, len(rows) // 2) + 1, largest=False).values.mean(dim=1)
                picks.append(int(rows[near.argmin()]))
        return torch.tensor(picks)

    return choose


RADIUS = 3.0


def probcover_floor(inputs: torch.Tensor, learner: Any, labeled: int) -> Callable[[], torch.Tensor]:
    def choose() -> torch.Tensor:
        vectors, labeled_vectors = features(inputs[labeled:], learner), features(inputs[:labeled], learner)
        inside = torch.cdist(vectors, vectors) <= RADIUS
        uncovered = ~(torch.cdist(vectors, labeled_vectors) <= RADIUS).any(dim=1)
        gains, picks = inside[:, uncovered].sum(dim=1), []
        for _ in range(K):
            picks.append(int(gains.argmax()))
            new = inside[picks[-1]] & uncovered
            uncovered &= ~new
            gains = gains - inside[:, new].sum(dim=1)
            gains[picks] = -1
        return torch.tensor(picks)

    return choose


def cluster_margin_floor(inputs: torch.Tensor, learner: Any, labeled: int) -> Callable[[], torch.Tensor]:
    from sklearn.cluster import AgglomerativeClustering

    def choose() -> torch.Tensor:
        vectors, p = both(inputs[labeled:], learner)
        first, second = p.topk(2, dim=1).values.unbind(dim=1)
        short = (first - second).topk(10 * K, largest=False).indices
        clusters = torch.from_numpy(AgglomerativeClustering(K, linkage="average").fit_predict(vectors[short].numpy()))
        order = clusters.argsort(stable=True)
        sizes = torch.bincount(clusters)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order)) - (sizes.cumsum(0) - sizes)[clusters[order]]
        return short[(place * K + sizes.argsort().argsort()[clusters]).argsort()[:K]]

    return choose


def density_floor(inputs: torch.Tensor, learner: Any, labeled: int) -> Callable[[], torch.Tensor]:
    def choose() -> torch.Tensor:
        vectors, p = both(inputs[labeled:], learner)
        unit = torch.nn.functional.normalize(vectors)
        return best(entropies(p) * (unit @ unit.mean(dim=0)).clamp(min=0))

    return choose


def class_balanced_floor(inputs: torch.Tensor, learner: Any, labeled: int) -> Callable[[], Any]:
    counts = torch.bincount(torch.arange(labeled) % CLASSES, minlength=CLASSES)

    def choose() -> list[int]:
        p = torch.softmax(outputs(inputs[labeled:], learner), dim=1)
        uncertain, predicted = entropies(p).argsort(descending=True), p.argmax(dim=1)
        left = [uncertain[predicted[uncertain] == label].tolist() for label in range(CLASSES)]
        have, picks = counts.tolist(), []
        while len(picks) < K:
            least = min((label for label in range(CLASSES) if left[label]), key=have.__getitem__)
            picks.append(left[least].pop(0))
            have[least] += 1
        return picks

    return choose


def stratified_floor(inputs: torch.Tensor, learner: Any, labeled: int) -> Callable[[], torch.Tensor]:
    def choose() -> torch.Tensor:
        predicted = outputs(inputs[labeled:], learner).argmax(dim=1)
        shares = (torch.bincount(predicted, minlength=CLASSES) * K / len(predicted)).round().long()
        rows = [(predicted == label).nonzero().flatten() for label in range(CLASSES)]
        return torch.cat([some[torch.randperm(len(some))[:n]] for some, n in zip(rows, shares.tolist(), strict=True)])

    return choose


DRAWS, PICKS = 20, 10


def batchbald_floor(inputs: torch.Tensor, learner: Any, labeled: int) -> Callable[[], torch.Tensor]:
    learner = copy.deepcopy(learner)
    learner.dropout.train()

    def choose() -> torch.Tensor:
        hidden = features(inputs[labeled:], learner)
        p = torch.stack([torch.softmax(learner.last(learner.dropout(hidden)), dim=1) for _ in range(DRAWS)])
        generator = torch.Generator().manual_seed(0)
        joint = torch.ones(1, DRAWS)  # of each configuration, for each draw
        inner = torch.special.entr(p).sum(dim=2).mean(dim=0)
        flat, picks = p.reshape(DRAWS, -1), []
        for _ in range(PICKS):
            total, mass = torch.zeros(flat.shape[1]), joint.mean(dim=1)
            for some, share in zip(joint.split(64), mass.split(64), strict=True):
                given = (some @ flat).div_(DRAWS).clamp_(min=1e-38)
                total -= (given * (given / share[:, None]).log_()).sum(dim=0)
            gain = total.reshape(p.shape[1], CLASSES).sum(dim=1) - inner
            gain[picks] = -math.inf
            picks.append(int(gain.argmax()))
            joint = (joint[:, None] * p[:, picks[-1]].t()[None]).reshape(-1, DRAWS)
            if len(joint) > 1000:
                drawn = torch.multinomial(joint.mean(dim=1), 1000, replacement=True, generator=generator)
                joint = joint[drawn] / (joint[drawn].mean(dim=1, keepdim=True) * 1000)
        return torch.tensor(picks)

    return choose


def linear() -> torch.nn.Module:
    return torch.nn.Linear(COLUMNS, CLASSES)


def set_cases() -> dict[str, Callable[[], Case]]:
    """Return the set-based figures on `SMALL` samples."""
    from alcore_bayes import BatchBALDQuery
    from alcore_diversity import (
        BADGEQuery,
        ClassBalancedQuery,
        ClusterMarginQuery,
        InformationDensityQuery,
        KCenterQuery,
        ProbCoverQuery,
        StratifiedQuery,
        TypiClustQuery,
    )
    from alcore_regression import GSxQuery

    made: dict[str, tuple[Callable[[], Any], Any]] = {
        "kcenter": (lambda: KCenterQuery(K), kcenter_floor),
        "badge": (lambda: BADGEQuery(K), badge_floor),
        "typiclust": (lambda: TypiClustQuery(K), typiclust_floor),
        "probcover": (lambda: ProbCoverQuery(K, delta=RADIUS), probcover_floor),
        "cluster-margin": (lambda: ClusterMarginQuery(K), cluster_margin_floor),
        "density": (lambda: InformationDensityQuery(K), density_floor),
        "class-balanced": (lambda: ClassBalancedQuery(K), class_balanced_floor),
        "stratified": (lambda: StratifiedQuery(K), stratified_floor),
        "gsx": (lambda: GSxQuery(K), kcenter_inputs_floor),
        "batchbald": (lambda: BatchBALDQuery(PICKS, samples=DRAWS, num_samples=1000), batchbald_floor),
    }
    return {f"{name}-5000": lambda parts=parts: Case(SMALL + START, START, Mlp, *parts) for name, parts in made.items()}


def cases() -> dict[str, Callable[[], Case]]:
    """Return all figures by name."""
    from alcore_diversity import KCenterQuery
    from alcore_uq import ClassifierUQQuery

    large, labeled = 2 * 10**5, 1000
    return {
        "entropy": lambda: Case(10**6, 0, linear, lambda: ClassifierUQQuery(K, "entropy"), entropy_floor),
        "kcenter": lambda: Case(large + labeled, labeled, linear, lambda: KCenterQuery(K), kcenter_inputs_floor),
        "kcenter-inputs": lambda: Case(
            large + labeled, labeled, linear, lambda: KCenterQuery(K, layer="inputs"), kcenter_inputs_floor
        ),
        "kcenter-kept": lambda: Case(large + labeled, labeled, linear, lambda: KCenterQuery(K), kept_floor, steps=2),
        **set_cases(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = list(cases())
    parser.add_argument("figures", nargs="*", choices=[[], *names], help="all where none is named")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory-of", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    if options.memory_of:
        part = getattr(cases()[options.figures[0]](), options.memory_of)
        part()
        print(peak(part))
        return
    for name in options.figures or names:
        case = cases()[name]()
        seconds: dict[str, list[float]] = {"ours": [], "floor": [], "commit": []}
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(options.repeats + 1):  # the first is a warm-up
                gc.collect()
                seconds["ours"].append(case.ours())
                seconds["floor"].append(case.floor())
                seconds["commit"].append(bare_commit(Path(folder) / "bare.db"))
        median = {part: statistics.median(taken[1:]) for part, taken in seconds.items()}
        memory = {part: round(memory_of(name, part), 1) for part in ("ours", "floor")}
        print(
            json.dumps(
                {
                    "name": f"query-phase/{name}",
                    **{part: round(one, 4) for part, one in median.items()},
                    "ratio": round(median["ours"] / median["floor"], 2),
                    "ratio_with_commit": round(median["ours"] / (median["floor"] + median["commit"]), 2),
                    **{f"{part}_mb": one for part, one in memory.items()},
                    "repeats": options.repeats,
                    "k": K,
                }
            ),
            flush=True,
        )


def memory_of(figure: str, part: str) -> float:
    """Measure a part of a figure in a process of its own."""
    command = [sys.executable, str(Path(__file__)), figure, "--memory-of", part]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
