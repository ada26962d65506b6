"""The command."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from helpers.command import command as command


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny batches are slower on more threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
