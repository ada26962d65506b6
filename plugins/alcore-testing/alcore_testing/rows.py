"""How many samples core passes through the learner at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def rows_at_once(most: int, least: int | None = None) -> Iterator[None]:
    """Let core pass at most so many samples through the learner at once, to see that results don't depend on it.

    Parameters
    ----------
    most
        Most samples in a chunk that is scored, and in a batch that is evaluated.
    least
        Fewest samples in a chunk, however large their outputs are; `most` by default, so that chunks are of one size.

    Notes
    -----
    Core chooses these numbers for speed, so they are no settings; this changes its constants.
    """
    constants = {
        "inference.streaming._MIN_ROWS": most if least is None else least,
        "inference.streaming._MAX_ROWS": most,
        "inference.evaluation._ROWS": most,
        "training.loader._ORDERED_ROWS": most,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in constants.items():
            patch.setattr(f"alcore.{name}", value)
        yield
