"""Names: which run ids are allowed, and what strategies are called in a run."""

from __future__ import annotations

import re
from collections.abc import Iterable

from alcore.errors import UsageError

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RESERVED = frozenset({"driver_log"})  # names of other files in the run directory


def check_run_id(run_id: str) -> str:
    """Return `run_id` if it is one; raise `UsageError` otherwise."""
    if not _RUN_ID.fullmatch(run_id):
        raise UsageError(
            f"run id {run_id!r}: use 1 to 100 letters, digits, dots, dashes and underscores, a letter or digit first."
        )
    return run_id


def snake_case(name: str) -> str:
    """Return ``f1_metrology`` for ``F1Metrology``, ``classifier_uq_query`` for ``ClassifierUQQuery``."""
    words = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name))
    return re.sub(r"\W+", "_", words).strip("_").lower()


def unique_names(names: Iterable[str]) -> list[str]:
    """Tell equal names apart: the second ``f1`` is ``f1-2``."""
    taken = set(_RESERVED)
    result = []
    for name in names:
        candidate, count = name, 1
        while candidate in taken:
            count += 1
            candidate = f"{name}-{count}"
        taken.add(candidate)
        result.append(candidate)
    return result
