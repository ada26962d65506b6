"""The command, called in this process."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator

import pytest
import torch

from alcore.cli.main import main


@pytest.fixture
def command(monkeypatch, capsys, tmp_path) -> Iterator[Callable[..., tuple[str, str]]]:
    """Call the command: ``command(*arguments, code=0)`` gives what it wrote to stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in [name for name in os.environ if name.startswith("ALCORE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "100")
    logger, threads = logging.getLogger("alcore"), torch.get_num_threads()
    before = list(logger.handlers)

    def call(*arguments: str, code: int | None = 0) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["alcore", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        logger.handlers[:] = before
        out, err = capsys.readouterr()
        assert code is None or (end.value.code or 0) == code, err
        return out, err

    yield call
    os.environ.pop("ALCORE_ONLY", None)  # which --only sets
    torch.set_num_threads(threads)
