"""Forty of the offsets of ``signals.py``, of which ``make faults`` takes 1,500, and one of each other command."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

OFFSETS, PARTS = 40, 2


@pytest.fixture(scope="module")
def signals() -> Any:
    """The module ``signals.py``."""
    spec = importlib.util.spec_from_file_location("alcore_faults_signals", Path(__file__).with_name("signals.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def loaded(signals: Any) -> Iterator[Any]:
    """A process that has torch loaded."""
    if sys.platform != "linux":
        pytest.skip("what a process does with signals is read in /proc")
    with signals.Loaded() as process:
        yield process


@pytest.mark.parametrize("part", range(PARTS))
def test_signal_at_any_moment_ends_the_command_as_it_says(signals: Any, loaded: Any, tmp_path: Path, part: int) -> None:
    measured = signals.whole(loaded, tmp_path)
    places = [place for place in range(OFFSETS) if place // 4 % PARTS == part]
    answers = list(signals.sweep(places, OFFSETS, loaded, measured, tmp_path))
    assert [fault for _, found in answers for fault in found] == []
    assert any("130" in word for word, _ in answers), "each signal came too early or too late"


@pytest.fixture(scope="module")
def others(signals: Any, loaded: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder for all other commands."""
    return signals.Others(loaded, tmp_path_factory.mktemp("others"))


def test_signal_ends_any_other_command_as_it_says(signals: Any, others: Any) -> None:
    commands = [text for text in signals.OTHERS if not text.startswith("benchmark")]  # which has a test of its own
    answers = [answer for text in commands for answer in others.sweep(text, [0], 2)]
    assert [fault for _, found in answers for fault in found] == []
    assert len(answers) == len(commands) > 10
