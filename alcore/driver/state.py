"""Collect the state of a run: everything that its next step depends on."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from alcore.errors import UsageError
from alcore.randomness import derive_seed, seed_everything

if TYPE_CHECKING:
    from alcore.driver import Driver


def collect(
    driver: Driver,
    *,
    step: int,
    phase: str,
    epoch: int,
    book: Mapping[str, Any] | None = None,
    small: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the state of a driver for a checkpoint; all ranks must ask for it at once.

    Parameters
    ----------
    driver
        Whose state.
    step, phase, epoch
        The place that the state belongs to: the end of this phase of this step, or of an epoch inside it.
    book
        What the step has noted so far.
    small
        What `collect_small` returned, where it isn't to be collected now.

    Returns
    -------
    dict
        ``model``, ``optimizer``, ``scheduler``, ``rng``, ``strategies``, ``loop`` and ``at``. What was labelled
        is not part of it: the database has that, and the pool is made again by appending it.
    """
    optimization = driver.optimization
    optimizer, scheduler = (optimization.optimizer, optimization.scheduler) if optimization else (None, None)
    return {
        "at": {"step": step, "phase": phase, "epoch": epoch, "book": dict(book or {})},
        "model": model_state(driver.learner),
        "optimizer": None if optimizer is None else optimizer.state_dict(),
        "scheduler": None if scheduler is None else scheduler.state_dict(),
        **(collect_small(driver) if small is None else small),
    }


def collect_small(driver: Driver) -> dict[str, Any]:
    """Return the parts of a state that phases after training may change: all but learner, optimizer and scheduler."""
    return {
        "strategies": {
            name: dict(strategy.state_dict())
            for name, strategy in driver.strategies.items()
            if callable(getattr(strategy, "state_dict", None))
        },
        "plugins": {
            name: dict(part.state_dict())
            for name, part in driver.lifecycle.parts.items()
            if callable(getattr(part, "state_dict", None))
        },
        "loop": _state_of(driver.train_loop_fn),
        **_generators(driver),
    }


def _generators(driver: Driver) -> dict[str, Any]:
    own = global_generators()
    if driver.ranks.size == 1:
        return {"rng": own}
    everywhere = driver.ranks.gather(own)
    return {"rng": everywhere[0], "rng_of_ranks": everywhere[1:]}


def load_model(learner: Any, weights: Mapping[str, Any]) -> None:
    """Give the learner the weights and buffers of a checkpoint; each must fit.

    Raises
    ------
    UsageError
        When the learner is not of the shape that was saved.
    """
    if not weights and not callable(getattr(learner, "load_state_dict", None)):
        return
    try:
        learner.load_state_dict(dict(weights))
    except (RuntimeError, KeyError) as error:
        raise UsageError(
            f"the learner is not the one of this run: {' '.join(str(error).split())[:300]}. "
            "Build it as it was built then."
        ) from error


def restore_parts(driver: Driver, state: Mapping[str, Any]) -> None:
    """Give strategies, run plugins, training loop and global generators the state of a checkpoint."""
    for kind, parts in (("strategies", driver.strategies), ("plugins", driver.lifecycle.parts)):
        for name, saved in state[kind].items():
            part = parts.get(name)
            if part is None:
                driver.logger.warning("the run had a %s %r with state, and this driver has none", kind[:-1], name)
            elif callable(getattr(part, "load_state_dict", None)):
                part.load_state_dict(saved)
    if state["loop"] is not None and callable(getattr(driver.train_loop_fn, "load_state_dict", None)):
        driver.train_loop_fn.load_state_dict(state["loop"])  # type: ignore[union-attr]
    rank, everywhere = driver.ranks.rank, [state["rng"], *state.get("rng_of_ranks", [])]
    if rank < len(everywhere):
        set_global_generators(everywhere[rank])
    else:  # there were fewer
        seed_everything(derive_seed(int(driver.config.seed or 0), "rank", rank, state["at"]["step"]))


def model_state(learner: Any) -> dict[str, Any]:
    """Return the learner's ``state_dict`` as a plain dict; empty for a learner without one."""
    return dict(_state_of(learner) or {})


def model_digest(learner: Any) -> str:
    """Return 16 hexadecimal digits that identify the learner's weights and buffers."""
    known = hashlib.sha256()
    for name, value in model_state(learner).items():
        known.update(name.encode())
        if isinstance(value, torch.Tensor):
            flat = value.detach().cpu().clone(memory_format=torch.contiguous_format).reshape(-1)
            known.update(flat.view(torch.uint8).numpy().data)
        else:
            known.update(repr(value).encode())
    return known.hexdigest()[:16]


def global_generators() -> dict[str, Any]:
    """Return the state of the global generators of python, numpy and torch, large parts as arrays."""
    version, internal, gauss = random.getstate()
    numpy_state = np.random.get_state(legacy=False)
    assert isinstance(numpy_state, dict)
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": numpy_state,
        "python": {"version": version, "internal": np.array(internal, dtype=np.int64), "gauss": gauss},
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_global_generators(state: Mapping[str, Any]) -> None:
    """Set the global generators to what `global_generators` returned."""
    python = state["python"]
    random.setstate((python["version"], tuple(int(word) for word in python["internal"]), python["gauss"]))
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Put the global generators back as they were, whatever the block draws from them."""
    before = global_generators()
    try:
        yield
    finally:
        set_global_generators(before)


def _state_of(part: Any) -> Any:
    return part.state_dict() if callable(getattr(part, "state_dict", None)) else None
