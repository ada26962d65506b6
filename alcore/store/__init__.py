"""The run directory: one SQLite database as the single source of truth, checkpoint files, an inbox, and a lock.

Names in ``__all__`` are public; none of them imports torch.
"""

from __future__ import annotations

from alcore.codec import export_json, loads, parse_json, parse_toml
from alcore.store.files import StorageError, cant_write, fsync_path, write_whole
from alcore.store.folders import appearing_folder
from alcore.store.fork import Fork, fork_run
from alcore.store.reading import (
    Position,
    Run,
    Summary,
    figures,
    find_run,
    parts_of,
    run_folders,
    runs_within,
    settings_of,
    summaries,
)
from alcore.store.retention import Retention, parse_retention

__all__ = [
    "Fork",
    "Position",
    "Retention",
    "Run",
    "StorageError",
    "Summary",
    "appearing_folder",
    "cant_write",
    "export_json",
    "figures",
    "find_run",
    "fork_run",
    "fsync_path",
    "loads",
    "parse_json",
    "parse_retention",
    "parse_toml",
    "parts_of",
    "run_folders",
    "runs_within",
    "settings_of",
    "summaries",
    "write_whole",
]
