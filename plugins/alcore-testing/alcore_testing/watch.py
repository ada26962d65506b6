"""Look on while a part works: what did it touch, and how much memory did it hold at once?"""

from __future__ import annotations

import contextlib
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from alcore.pools import total_of, unlabeled_ids
from alcore.randomness import global_rng_state
from alcore_testing.plain import same, text_of

T = TypeVar("T")


@contextlib.contextmanager
def untouched(driver: Any = None, *, learner: bool = True, generators: bool = True) -> Iterator[None]:
    """Raise AssertionError if the block leaves anything behind in what isn't its own.

    Looked at are the global generators of python, numpy and torch, the settings of torch, the learner (weights,
    buffers, gradients, what requires them, hooks, and the mode of each module) and the pools (how many
    samples are labeled, and which are not).

    Parameters
    ----------
    driver
        Whose learner and pools are watched; None watches the process alone.
    learner
        Whether the learner must stay as it was.
    generators
        Whether the global generators must.
    """
    watched: dict[str, Callable[[], Any]] = {"settings of torch": _settings}
    if generators:
        watched |= {"global generators": _random_numbers}
    if driver is not None:
        names = ("train_datapool", "val_datapool", "unlabeled_datapool")
        pools = [pool for pool in (getattr(driver, name, None) for name in names) if pool is not None]
        watched |= {"pools": lambda: [_pool(pool) for pool in pools]}
    if driver is not None and learner:
        parts = {"weights": _weights, "gradients": _gradients, "modes": _modes, "hooks": _hooks}
        watched |= {f"learner's {name}": _reader(look, driver) for name, look in parts.items()}
    before = {name: look() for name, look in watched.items()}
    yield
    changed = [name for name, look in watched.items() if look() != before[name]]
    assert not changed, f"it must leave these as they were: {', '.join(changed)}"


class Unwritten:
    """Remembers the tensors and arrays that a part is given, to find out whether it wrote to them.

    A write is found by the bytes of a copy, and by the version counter of a tensor, which counts writes that left the
    values as they were or restored them.
    """

    def __init__(self) -> None:
        self._given: list[tuple[str, Any, Any, int]] = []

    def given(self, what: str, value: T) -> T:
        """Remember the tensors and arrays in a value, and return the value.

        Parameters
        ----------
        what
            Names them in the message.
        value
            A tensor, an array, or containers of these; anything else in it is passed over.
        """
        for leaf in tree_leaves(value):
            if isinstance(leaf, torch.Tensor):
                self._given.append((what, leaf, leaf.detach().clone(), _version(leaf)))
            elif isinstance(leaf, np.ndarray):
                self._given.append((what, leaf, leaf.copy(), 0))
        return value

    def check(self) -> None:
        """Raise AssertionError if one of them was written to; the message says which."""
        for what, one, before, version in self._given:
            assert same(one, before), f"it wrote to the {what} that it was given; work on a copy"
            assert _version(one) == version, f"it wrote to the {what} that it was given, if the same values"

    def watch(self, driver: Any) -> None:
        """Remember everything that parts of a run are given by its driver and its pools from now on."""
        self._follow(driver, "infer", "outputs of the learner")
        self._follow_each(driver, "candidates", "ids of the candidates")
        self._follow_each(driver, "ordered_batches", "inputs and targets of a pool")
        driver.feature_cache = _WatchedCache(driver.feature_cache, self)
        for pool in (driver.train_datapool, driver.val_datapool, driver.unlabeled_datapool):
            self.watch_pool(pool)

    def watch_pool(self, pool: Any) -> None:
        """Remember what a pool gives from now on."""
        for name, what in _OF_POOLS.items():
            if callable(getattr(pool, name, None)):
                self._follow(pool, name, what)
        if isinstance(ids := getattr(pool, "labeled_ids", None), torch.Tensor):
            self.given("labeled_ids of a pool", ids)

    def _follow(self, owner: Any, name: str, what: str) -> None:
        """Remember what a method of an object returns."""
        method = getattr(owner, name)
        setattr(owner, name, lambda *args, **kwargs: self.given(what, method(*args, **kwargs)))

    def _follow_each(self, owner: Any, name: str, what: str) -> None:
        """Remember each thing that a method of an object yields."""
        method = getattr(owner, name)
        setattr(owner, name, lambda *args, **kwargs: (self.given(what, yielded) for yielded in method(*args, **kwargs)))


_OF_POOLS = {
    "inputs": "inputs of a pool",
    "batch": "inputs and targets of a pool",
    "answer": "inputs and targets of a pool",
    "evaluation": "inputs and targets of a pool",
    "unlabeled_indices": "unlabeled_indices of a pool",
}


class _WatchedCache:
    """The features that a run keeps for all its strategies, watched."""

    def __init__(self, cache: Any, unwritten: Unwritten) -> None:
        self._cache, self._unwritten = cache, unwritten

    def find(self, model: str, kind: str) -> Any:
        """Return what is kept."""
        return self._cache.find(model, kind)

    def keep(self, model: str, kind: str, features: Any) -> None:
        """Keep features, which all strategies of the step get."""
        self._cache.keep(model, kind, self._unwritten.given("features and outputs of samples", features))


def _version(value: Any) -> int:
    """Return how often a tensor was written to; 0 for what doesn't count it."""
    return 0 if not isinstance(value, torch.Tensor) or value.is_inference() else value._version


def _reader(look: Callable[[Any], Any], driver: Any) -> Callable[[], Any]:
    return lambda: look(driver.learner)


def _random_numbers() -> str:
    return text_of(global_rng_state())


def _settings() -> tuple[Any, ...]:
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
    )


def _pool(pool: Any) -> Any:
    lists = callable(getattr(pool, "unlabeled_indices", None)) and (total_of(pool) or len(pool)) < 10**5
    return len(pool), [ids.tolist() for ids in unlabeled_ids(pool)] if lists else None


def _weights(learner: Any) -> str:
    state = learner.state_dict() if callable(getattr(learner, "state_dict", None)) else {}
    return text_of(dict(state))


def _gradients(learner: Any) -> list[Any]:
    named = learner.named_parameters() if isinstance(learner, torch.nn.Module) else ()
    return [(name, one.requires_grad, one.grad is None, _numbers(one.grad)) for name, one in named]


def _numbers(tensor: torch.Tensor | None) -> str:
    return "" if tensor is None else text_of(tensor)


def _modes(learner: Any) -> list[Any]:
    named = learner.named_modules() if isinstance(learner, torch.nn.Module) else ()
    return [(name, one.training) for name, one in named]


def _hooks(learner: Any) -> list[Any]:
    named = learner.named_modules() if isinstance(learner, torch.nn.Module) else ()
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [(name, [len(getattr(one, kind)) for kind in kinds], sorted(vars(one))) for name, one in named]


class peak_memory(TorchDispatchMode):  # type: ignore[no-untyped-call]  # noqa: N801 - used as a function is
    """Measure the most memory that a block holds at once, beyond what was there before.

    Attributes
    ----------
    tensors : int
        Bytes of the storages of tensors that torch made in the block and that were alive together, at most.
    other : int
        The same for Python objects and NumPy arrays.
    peak : int
        The sum of the two.

    Notes
    -----
    Resident memory says little about a small problem, since allocators keep what was freed, and `tracemalloc` doesn't
    see torch. So each operation's result passes through here, and counts until its storage is freed. That is exact and
    the same at each run.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tensors = self.other = self._alive = 0
        self._known: set[int] = set()

    @property
    def peak(self) -> int:
        """Bytes of tensors and of everything else."""
        return self.tensors + self.other

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Spare torch the import of its compiler, which takes seconds and would be counted."""
        return False

    def __enter__(self) -> peak_memory:
        tracemalloc.start()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self.other = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it made."""
        given = {
            leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)
        }
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata not in given:
                self._count(leaf.untyped_storage())
        self.tensors = max(self.tensors, self._alive)
        return result

    def _count(self, storage: Any) -> None:
        """Count a storage until it is freed; views share it."""
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self._alive += size
            weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._alive -= size
