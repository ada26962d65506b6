"""Random streams: one for each use, derived from the seed of the run."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def derive_seed(seed: int, *purpose: object) -> int:
    """Return a 63-bit seed for one purpose: the head of a SHA-256 over the seed and the words of the purpose.

    Parameters
    ----------
    seed
        Of the run.
    *purpose
        Words that name the use, such as step, phase, strategy and epoch; told apart by their ``str``.
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
