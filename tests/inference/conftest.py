"""Chunks of few rows, so that a small pool has several."""

from __future__ import annotations

import pytest

from alcore.inference import streaming


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 4 to 16 rows."""
    monkeypatch.setattr(streaming, "_MIN_ROWS", 4)
    monkeypatch.setattr(streaming, "_MAX_ROWS", 16)


@pytest.fixture
def smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 4 to 8 rows."""
    monkeypatch.setattr(streaming, "_MIN_ROWS", 4)
    monkeypatch.setattr(streaming, "_MAX_ROWS", 8)
