"""Messages of the command on stderr; importing this module imports nothing but the standard library."""

from __future__ import annotations

import os
import sys


def rank() -> int:
    """Return the number of this process, as torchrun sets it."""
    text = os.environ.get("RANK", "0")
    return int(text) if text.isdigit() else 0


def say(text: str, *, on_every_rank: bool = False) -> None:
    """Print a message on stderr; on rank 0 only, unless it concerns every rank."""
    if on_every_rank or not rank():
        print(message(text), file=sys.stderr)


def message(text: str) -> str:
    """Return a line with who says it: the command, and its rank where that is not 0."""
    return f"alcore, rank {rank()}: {text}" if rank() else f"alcore: {text}"
