"""Random numbers: a generator for each use, derived from the seed of the run, and the state of the global ones."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch


def derive_seed(seed: int, *purpose: object) -> int:
    """Return a 63-bit seed for one purpose: the head of a SHA-256 over the seed and the words of the purpose.

    Parameters
    ----------
    seed
        Of the run.
    *purpose
        Words that name the use, such as step, phase, strategy and epoch; distinguished by their ``str``.
    """
    words = "\x1f".join(str(word) for word in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "little") >> 1


def derive_generator(seed: int, *purpose: object) -> torch.Generator:
    """Return a CPU generator for one purpose; see `derive_seed`."""
    generator = torch.Generator()
    generator.manual_seed(derive_seed(seed, *purpose))
    return generator


def seed_everything(seed: int) -> None:
    """Seed the global generators of python, numpy and torch, for code that draws from them."""
    random.seed(derive_seed(seed, "python"))
    np.random.seed(derive_seed(seed, "numpy") % 2**32)
    torch.manual_seed(derive_seed(seed, "torch"))


def global_rng_state() -> dict[str, Any]:
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


def set_global_rng_state(state: Mapping[str, Any]) -> None:
    """Set the global generators to what `global_rng_state` returned."""
    python = state["python"]
    random.setstate((python["version"], tuple(int(word) for word in python["internal"]), python["gauss"]))
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextlib.contextmanager
def preserve_rng_state() -> Iterator[None]:
    """Restore the state of the global generators after the block, whatever it draws from them."""
    before = global_rng_state()
    try:
        yield
    finally:
        set_global_rng_state(before)
