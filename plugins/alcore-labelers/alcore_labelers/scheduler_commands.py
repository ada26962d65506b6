"""Call the commands of a scheduler."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from alcore_labelers.schedulers import NotSubmittedError, SchedulerFault

TIMEOUT = 120.0
"""Seconds that a command of a scheduler may take."""
_PASSING = re.compile(
    r"unable to contact|timed? ?out|connect|zero bytes|transport|temporar|try again|policy|communication"
    r"|socket|message (send|receive)|shutdown|authentication|can't find an address|name or service|in standby"
    r"|interrupted|unavailable|not responding|credential",
    re.IGNORECASE,
)
"""What commands of schedulers say where the same may work later."""


class Called(NamedTuple):
    """What a command returned."""

    code: int
    out: str
    err: str


def call(arguments: Sequence[str], timeout: float = TIMEOUT, env: Mapping[str, str] | None = None) -> Called:
    """Call a command of a scheduler, in the language C.

    Parameters
    ----------
    arguments
        The command and its arguments.
    timeout
        Seconds that it may take.
    env
        Its environment; that of this process if it is not given.

    Raises
    ------
    SchedulerFault
        If it takes too long; it is killed then.
    NotSubmittedError
        If it can't be executed.
    """
    try:
        done = subprocess.run(
            list(arguments),
            env={**(os.environ if env is None else env), "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SchedulerFault(f"{arguments[0]} did not end in {timeout:g} s") from error
    except (OSError, ValueError) as error:
        raise NotSubmittedError(f"{arguments[0]} can't be called: {error}") from error
    return Called(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace").strip())


def may_pass(said: str) -> bool:
    """Tell whether what a scheduler said is of a kind that passes: it can't be reached, or has a limit for now."""
    return _PASSING.search(said) is not None


def end_commands_with(argument: str, seconds: float = 10.0) -> None:
    """Kill the processes of this machine that were called with this argument, and wait for their end.

    A command that a killed driver left, and that waits for its scheduler, would submit its job later.
    """
    wanted, until = os.fsencode(argument), time.monotonic() + seconds
    while time.monotonic() < until:
        found = [path for path in Path("/proc").glob("[0-9]*") if wanted in _arguments(path)]
        if not found:
            return
        for path in found:
            with contextlib.suppress(OSError):
                os.kill(int(path.name), signal.SIGKILL)
        time.sleep(0.02)


def _arguments(process: Path) -> list[bytes]:
    try:
        return (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
