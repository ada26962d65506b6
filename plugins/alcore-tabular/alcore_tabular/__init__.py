"""Data from tables: CSV and NPZ files of numbers and categories.

Importing this package imports neither torch nor numpy; its names are loaded when they are used.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    from alcore_tabular.data import table
    from alcore_tabular.messages import TableWarning

_MODULE_OF = {"TableWarning": "alcore_tabular.messages", "table": "alcore_tabular.data"}

__all__ = ["TableWarning", "alcore_data", "alcore_data_files", "table"]


@alcore.hookimpl
def alcore_data() -> Mapping[str, str]:
    """Offer ``--data csv``, which reads CSV and NPZ files."""
    return {"csv": "alcore_tabular.data:table"}


@alcore.hookimpl
def alcore_data_files() -> Mapping[str, str]:
    """Let ``alcore run FILE`` read such files by ``--data csv``."""
    return {".csv": "csv", ".tsv": "csv", ".npz": "csv"}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'alcore_tabular' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
