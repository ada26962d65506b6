"""Lets tests import what lies beside them, the package `store_model`, and records what is flushed and renamed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("store_model")
sys.path.append(str(Path(__file__).parent))


@pytest.fixture
def disk_events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | bytes]]:
    """What was flushed and renamed so far: a flushed file by the content that it then has, the others by name."""
    found: list[tuple[str, str | bytes]] = []
    fsync = os.fsync

    def recorded_fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        found.append(("fsync folder", path.name) if path.is_dir() else ("fsync", path.read_bytes()))
        fsync(descriptor)

    def recorded(rename: Any) -> Any:
        def method(self: Path, target: Path) -> Path:
            found.append(("rename", Path(target).name))
            return rename(self, target)

        return method

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    for name in ("rename", "replace"):
        monkeypatch.setattr(Path, name, recorded(getattr(Path, name)))
    return found
