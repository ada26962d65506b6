"""Look for better points around those that another query strategy chose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch

from alcore.errors import UsageError
from alcore.inference import FeatureCache, InferenceContext
from alcore.plugins import installed, load_factory, validate
from alcore.pools import as_sample_id
from alcore.protocols import QueryQueue, RunContext
from alcore.strategies import BaseQuery
from alcore_space.design_space import columns_of
from alcore_space.pool import SpacePool
from alcore_space.variables import Array, Category

_SHRINK = 0.5  # of the neighborhood, from one round to the next


class RefinedQuery(BaseQuery):
    """Let another query strategy choose, then let it choose again among points around its choice.

    Parameters
    ----------
    strategy
        The other strategy, by the name that a plugin offers.
    parameters
        Its parameters, without `max_samples`.
    max_samples
        How many points to ask for in a step.
    rounds
        How often it chooses again.
    neighbors
        How many points are tried around each chosen one, in each round.
    radius
        Standard deviation of the change of a number in the first round, as a share of the distance between its bounds;
        it is halved from round to round.

    Notes
    -----
    In each round the strategy chooses from its last choice and the points around that. So any strategy that looks at
    candidates and their inputs can be refined, one that scores points as well as one that chooses a set. Points keep
    bounds and constraints; integers are rounded, and a category changes with probability 0.2. A point that is no
    candidate is asked for as a generated one, by the values of its variables. Randomness comes from the run's seed.

    Time is that of the strategy for `max_samples` times `neighbors` points in each round, beside its usual pass. It
    helps where the best points of a smooth score lie between candidates, in many dimensions above all. It is known to
    bring nothing in few dimensions, where 10^6 candidates are dense. A finite space has no points between its
    candidates, and is left as it is. Points that are likely to be infeasible are weighted or left out as candidates are
    (``DriverConfig.feasibility``), and their costs weighed (``DriverConfig.per_cost``).
    """

    def __init__(
        self,
        strategy: str,
        parameters: dict[str, Any] | None = None,
        max_samples: int = 10,
        rounds: int = 3,
        neighbors: int = 100,
        radius: float = 0.1,
    ) -> None:
        self.set_max_samples(max_samples)
        for name, value in (("rounds", rounds), ("neighbors", neighbors)):
            if value < 1:
                raise UsageError(f"RefinedQuery: {name} is {value}; it must be at least 1.")
        if not 0 < radius <= 1:
            raise UsageError(f"RefinedQuery: radius is {radius}; it must be above 0 and at most 1.")
        self.rounds, self.neighbors, self.radius = rounds, neighbors, radius
        self._inner = _made(strategy, parameters or {}, max_samples)
        self.weighs_costs = bool(getattr(self._inner, "weighs_costs", False))

    def attach(self, driver: RunContext) -> None:
        """Receive the run, for both strategies."""
        super().attach(driver)
        self._inner.attach(cast(RunContext, _View(driver, self)))

    def check(self) -> None:
        """Raise `UsageError` for a pool that is no design space, and where the other strategy can't work."""
        if not isinstance(self.driver.choice_pool, SpacePool):
            raise UsageError(
                f"it refines points of a design space, and the pool is a {type(self.driver.choice_pool).__name__}; use "
                "the strategy itself."
            )
        check = getattr(self._inner, "check", None)
        if callable(check):
            check()

    def state_dict(self) -> Mapping[str, Any]:
        """Return the state of the other strategy."""
        save = getattr(self._inner, "state_dict", None)
        state: Mapping[str, Any] = save() if callable(save) else {}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        load = getattr(self._inner, "load_state_dict", None)
        if callable(load):
            load(state)

    def sample(self, query_queue: QueryQueue, *args: Any, **kwargs: Any) -> None:
        """Ask for the points of the last choice."""
        pool: SpacePool = self.driver.choice_pool
        chosen = _Choice()
        self._inner.sample(chosen, *args, **kwargs)
        if not pool.is_finite:
            generator = self.generator("neighbors")
            for turn in range(self.rounds):
                local = _Neighborhood(pool, chosen.items, self.neighbors, self.radius * _SHRINK**turn, generator)
                if not len(local.new):
                    break
                self._inner.attach(cast(RunContext, _View(self.driver, self, local)))
                again = _Choice()
                try:
                    self._inner.sample(again, *args, **kwargs)
                finally:
                    self._inner.attach(cast(RunContext, _View(self.driver, self)))
                chosen = _Choice([local.item(item) for item in again.items], again.scores)
        query_queue.put_many(chosen.items, None if None in chosen.scores else cast(Sequence[float], chosen.scores))


class _Choice:
    """Takes the place of the query queue, and keeps what a strategy puts."""

    def __init__(self, items: Iterable[Any] = (), scores: Iterable[float | None] = ()) -> None:
        self.items: list[Any] = list(items)
        self.scores: list[float | None] = list(scores)
        self._samples = {item for item in self.items if isinstance(item, int)}

    def put(self, item: Any, block: bool = True, timeout: float | None = None, *, score: float | None = None) -> None:
        """Keep an item; a sample id once."""
        del block, timeout
        sample = as_sample_id(item)
        if sample is not None:
            if sample in self._samples:
                return
            self._samples.add(sample)
        self.items.append(item if sample is None else sample)
        self.scores.append(score)

    def put_many(self, items: Iterable[Any], scores: Sequence[float] | None = None) -> None:
        """Keep several items."""
        for place, item in enumerate(items):
            self.put(item, score=None if scores is None else float(scores[place]))


class _Neighborhood:
    """Chosen points and points around them, as a pool to choose from.

    Parameters
    ----------
    pool
        The space.
    chosen
        Sample ids and generated points.
    neighbors, radius
        As in `RefinedQuery`.
    generator
        What the neighbors are drawn from.

    Attributes
    ----------
    new : list of dict
        The points that are no samples of the pool. Their ids here follow those of the pool.
    """

    def __init__(
        self, pool: SpacePool, chosen: Sequence[Any], neighbors: int, radius: float, generator: torch.Generator
    ) -> None:
        self._pool = pool
        self._ids = [item for item in chosen if isinstance(item, int)]
        points = [item for item in chosen if not isinstance(item, int)]
        shown = pool.shown(self._ids)
        centers = points + [{name: shown[name][row] for name in shown} for row in range(len(self._ids))]
        self.new: list[dict[str, Any]] = [dict(point) for point in points]
        if centers:
            around = self._around(columns_of(centers, pool.space.names), neighbors, radius, generator)
            self.new += [point for point in pool.without_added(around) if point not in centers]
        self.total = pool.total + len(self.new)
        self._inputs = torch.empty(0, pool.space.features)
        if self.new:
            self._inputs = torch.from_numpy(pool.space.inputs(columns_of(self.new, pool.space.names)))

    def _around(
        self, centers: Mapping[str, Array], neighbors: int, radius: float, generator: torch.Generator
    ) -> list[dict[str, Any]]:
        space = self._pool.space
        columns = {}
        for variable in space.variables:
            repeated = np.repeat(centers[variable.name], neighbors)
            if isinstance(variable, Category):
                other = torch.randint(variable.count, (len(repeated),), generator=generator).numpy()
                changes = torch.rand(len(repeated), generator=generator, dtype=torch.float64).numpy() < 0.2
                columns[variable.name] = np.where(changes, np.array(variable.choices)[other], repeated)
                continue
            drawn = torch.randn(len(repeated), generator=generator, dtype=torch.float64).numpy()
            columns[variable.name] = variable.values(np.clip(variable.places(repeated) + radius * drawn, 0, 1))
        keep = np.flatnonzero(space.allowed(columns))
        lists = [columns[name][keep].tolist() for name in space.names]
        different = dict.fromkeys(zip(*lists, strict=True))  # at a corner, and of whole numbers, many are alike
        return [dict(zip(space.names, point, strict=True)) for point in different]

    def unlabeled_indices(self) -> torch.Tensor:
        """Return the ids of the chosen points and of those around them."""
        own = torch.arange(self._pool.total, self.total)
        return torch.cat([torch.tensor(sorted(self._ids), dtype=torch.int64), own])

    def inputs(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the learner's inputs of samples of the pool, and of the points around them."""
        own = ids >= self._pool.total
        rows = torch.empty(len(ids), self._pool.space.features)
        rows[own] = self._inputs[ids[own] - self._pool.total]
        rows[~own] = self._pool.inputs(ids[~own])
        return rows

    def at_highest_fidelity(self, ids: torch.Tensor) -> torch.Tensor | None:
        """Return the inputs of these points at the highest fidelity; None without a fidelity."""
        return self._pool.moved_to_highest(self.inputs(ids))

    def item(self, chosen: Any) -> Any:
        """Return what a chosen id is asked for by: itself, or the values of a point."""
        if not isinstance(chosen, int) or chosen < self._pool.total:
            return chosen
        return self.new[chosen - self._pool.total]


class _View:
    """The run as the other strategy sees it: with the name of this one, and perhaps with other candidates."""

    def __init__(self, driver: RunContext, owner: RefinedQuery, local: _Neighborhood | None = None) -> None:
        self._driver, self._owner, self._local = driver, owner, local
        if local is not None:  # features are known by the ids of samples, which are others here
            self.feature_cache = FeatureCache()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    @property
    def choice_pool(self) -> Any:
        return self._driver.choice_pool if self._local is None else self._local

    def candidates(self, size: int = 2**16) -> Iterator[torch.Tensor]:
        if self._local is None:
            yield from self._driver.candidates(size)
        else:
            yield from map(self.feasibility.offered, torch.split(self._local.unlabeled_indices(), size))

    @property
    def feasibility(self) -> Any:
        model = cast(InferenceContext, self._driver).feasibility
        return model if self._local is None else model.over(self._local)

    def costs(self, samples: torch.Tensor) -> torch.Tensor | None:
        if self._local is None:
            return self._driver.costs(samples)
        return self._driver.costs([self._local.item(sample) for sample in samples.tolist()])

    def strategy_name(self, strategy: Any) -> str:
        return self._driver.strategy_name(self._owner if strategy is self._owner._inner else strategy)


def _made(name: str, parameters: Mapping[str, Any], max_samples: int) -> Any:
    if ":" in name:
        raise UsageError(
            f"RefinedQuery: strategy is {name!r}; it must be a name that a plugin offers: `alcore plugins` lists them."
        )
    factory = load_factory(installed().offer("query", name))
    checked, faults = validate(factory, {**parameters, "max_samples": max_samples}, "query.refined.parameters")
    if faults:
        raise UsageError(f"{'; '.join(faults)}.")
    return factory(**checked)
