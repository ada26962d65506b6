"""Data from tables: CSV and NPZ files of numbers and categories.

Importing this package imports neither torch nor numpy; its names are loaded when they are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import alcore
from alcore.lazy import lazy_names

if TYPE_CHECKING:
    from alcore_tabular.data import table
    from alcore_tabular.messages import TableWarning


__all__ = ["TableWarning", "alcore_data", "alcore_data_files", "table"]
__getattr__ = lazy_names(__name__, {"data": ["table"], "messages": ["TableWarning"]})


@alcore.hookimpl
def alcore_data() -> Mapping[str, str]:
    """Offer ``--data csv``, which reads CSV and NPZ files."""
    return {"csv": "alcore_tabular.data:table"}


@alcore.hookimpl
def alcore_data_files() -> Mapping[str, str]:
    """Let ``alcore run FILE`` read such files by ``--data csv``."""
    return {".csv": "csv", ".tsv": "csv", ".npz": "csv"}
