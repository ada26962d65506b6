"""Call the command ``alcore`` as its users would, and see what it says."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch


class Finished(NamedTuple):
    """What a command did.

    Attributes
    ----------
    code
        The exit code.
    out, err
        What it wrote to stdout and to stderr.
    """

    code: int
    out: str
    err: str


def run_command(folder: Path, *arguments: str) -> Finished:
    """Call the command ``alcore`` with these arguments, in this process, which is quicker than to start one.

    Parameters
    ----------
    folder
        Where it is called.
    *arguments
        The words after ``alcore``.

    Returns
    -------
    Finished
        The exit code and what the command wrote. Lines are 100 characters wide. Variables of the environment that
        begin with ``ALCORE_`` are not seen by the command.
    """
    own = importlib.metadata.distribution("alcore").entry_points  # not all, since another one's may be damaged
    (script,) = own.select(group="console_scripts", name="alcore")
    out, err, code = io.StringIO(), io.StringIO(), 0
    with _process_preserved(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        sys.argv = ["alcore", *arguments]
        try:
            script.load()()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Finished(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _process_preserved(folder: Path) -> Iterator[None]:
    """Give back to the process what a command changes in it for good."""
    logger, threads = logging.getLogger("alcore"), torch.get_num_threads()
    handlers, show_warning, unraisable = list(logger.handlers), warnings.showwarning, sys.unraisablehook
    in_main_thread = threading.current_thread() is threading.main_thread()
    on_signal = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))  # noqa: TID251 - put back at the end
        patch.setattr(sys, "argv", list(sys.argv))
        patch.setenv("ALCORE_ONLY", "")  # so that what the option --only sets is undone too
        for name in [name for name in os.environ if name.startswith("ALCORE_")]:
            patch.delenv(name)
        patch.setenv("COLUMNS", "100")
        try:
            yield
        finally:
            logger.handlers[:] = handlers
            warnings.showwarning = show_warning
            sys.unraisablehook = unraisable
            for number in on_signal if in_main_thread else ():
                signal.signal(number, on_signal[number])
            torch.set_num_threads(threads)
