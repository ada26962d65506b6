"""The progress bar of a run, and the warnings above it."""

from __future__ import annotations

import io
import logging
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from alcore.commands.progress import Progress, WarningHandler
from alcore.protocols import Phase


class Terminal(io.StringIO):
    """Looks like a terminal, or like a file."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that follows a run of given step records, and returns what stood on stderr."""
    monkeypatch.setenv("COLUMNS", "120")

    def call(*records: dict[str, Any], headline: str = "", terminal: bool = True) -> str:
        stderr = Terminal(terminal)
        monkeypatch.setattr(sys, "stderr", stderr)
        progress = Progress()
        progress.headline = headline
        driver: Any = SimpleNamespace(config=SimpleNamespace(max_active_learning_steps=len(records)))
        progress.alcore_run_start(driver)
        for record in records:
            progress.alcore_phase_start(Phase.QUERY)
            progress.alcore_step_end({"metrics": {}, **record})
        progress.alcore_run_end()
        return stderr.getvalue()

    return call


def test_bar_counts_steps_and_labels_and_shows_the_metric(follow: Any) -> None:
    shown = follow(
        {"labeled": 3, "metrics": {"f1": [{"step": 0, "precision": 0.25, "f1": 0.5}]}},
        {"labeled": 4, "metrics": {"f1": [{"step": 1, "precision": 0.25, "f1": 0.75}], "none": []}},
    )
    last = shown.split("\r")[-1]
    assert "2/2" in last
    assert "labels=7" in last
    assert "f1=0.750" in last
    assert "precision" not in last


@pytest.mark.parametrize("columns", [40, 56, 60, 76, 80, 200])
def test_line_fits_the_terminal_with_all_numbers(follow: Any, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = follow(*[{"labeled": 3, "metrics": {"f1": [{"step": 0, "f1": 0.5}]}}] * 2).split("\r")
    assert all(len(line.rstrip()) <= columns for line in shown)
    for words in ("2/2", "labels=6", "f1=0.500"):
        assert words in shown[-1]
    assert ("|" in shown[-1]) == (columns >= 76)


def test_bar_follows_the_terminal_that_becomes_narrower(follow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    widths = iter([100] * 3)
    monkeypatch.setattr("alcore.commands.progress._columns", lambda: next(widths, 50))
    shown = follow(*[{"labeled": 3}] * 5).split("\r")
    assert "|" in shown[1]
    assert "|" not in shown[-1]
    assert "5/5" in shown[-1]


def test_first_figure_is_shown_where_there_is_no_f1(follow: Any) -> None:
    last = follow({"labeled": 1, "metrics": {"regression": [{"step": 0, "rmse": 0.125, "mae": 1.0}]}}).split("\r")[-1]
    assert "rmse=0.125" in last
    assert "mae" not in last


def test_headline_stands_above_the_bar_and_without_a_terminal_alone(follow: Any) -> None:
    assert follow({"labeled": 1}, headline="Run r1").startswith("Run r1\n")
    assert follow({"labeled": 1}, headline="Run r1", terminal=False) == "Run r1\n"


def test_warnings_are_written_and_errors_left_to_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    handler = WarningHandler()
    for level in (logging.WARNING, logging.ERROR):
        handler.handle(logging.LogRecord("alcore", level, __file__, 1, "%s samples", (3,), None))
    assert capsys.readouterr() == ("", "alcore: warning: 3 samples\n")
