"""The command, called in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from alcore_testing import run_command

import alcore.cli.application  # noqa: F401 - now, or a module would keep the function by which a test replaces another


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """Call the command: ``command(*arguments, code=0)`` gives what it wrote to stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, code: int | None = 0) -> tuple[str, str]:
        done = run_command(tmp_path, *arguments)
        assert code in (None, done.code), done.err
        return done.out, done.err

    return call
