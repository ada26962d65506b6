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

_SUBMITS = "ALCORE_SUBMITS"  # the variable of a command that submits a job: its name, and the session of the driver
_PREFIX = os.fsencode(f"{_SUBMITS}=")


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
    """Return whether what a scheduler said is of a kind that passes: it can't be reached, or has a limit for now.

    That tells nothing of what it did before.
    """
    return _PASSING.search(said) is not None


def call_submit(name: str, arguments: Sequence[str], env: Mapping[str, str] | None = None) -> Called:
    """Call the command that submits the job of this name, so that `end_submit` finds it where the driver is killed."""
    mark = {_SUBMITS: f"{name} {os.getsid(0)}"}
    return call(arguments, env={**(os.environ if env is None else env), **mark})


def end_submit(name: str, seconds: float = 10.0) -> None:
    """Kill what is left of a command that was submitting the job of this name, and wait for its end.

    A command that a killed driver left, and that waits for its scheduler, would submit its job later. Its processes are
    known by a variable, and by the session of that driver: a job, or the client of a scheduler that waits with it, has
    the variable too, and a session of its own.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        processes = [
            process
            for process in map(_submitting, Path("/proc").glob("[0-9]*"))
            if process is not None and process[0] == name
        ]
        if not processes:
            return
        for _, process in processes:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.02)


def _submitting(process: Path) -> tuple[str, int] | None:
    """Return the name of the job that a process submits, and its id; None where it submits none."""
    try:
        variables = (process / "environ").read_bytes().split(b"\0")
        mark = next((variable for variable in variables if variable.startswith(_PREFIX)), b"")
        name, session = mark.removeprefix(_PREFIX).decode().split(" ")
        return (name, int(process.name)) if os.getsid(int(process.name)) == int(session) else None
    except (OSError, ValueError):
        return None
