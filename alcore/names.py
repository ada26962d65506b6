"""Names of strategies in a run and in its files."""

from __future__ import annotations

import re
from collections.abc import Iterable

_RESERVED = frozenset({"driver_log"})  # other files of the run directory


def snake_case(name: str) -> str:
    """Return ``f1_metrology`` for ``F1Metrology``, ``classifier_uq_query`` for ``ClassifierUQQuery``."""
    words = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name))
    return re.sub(r"\W+", "_", words).strip("_").lower()


def unique_names(names: Iterable[str], *, reserved: Iterable[str] = _RESERVED) -> list[str]:
    """Return names that differ from each other and from the reserved ones: the second ``f1`` becomes ``f1-2``."""
    taken = set(reserved)
    result = []
    for name in names:
        candidate, count = name, 1
        while candidate in taken:
            count += 1
            candidate = f"{name}-{count}"
        taken.add(candidate)
        result.append(candidate)
    return result
