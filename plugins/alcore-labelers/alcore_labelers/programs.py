"""Run a program with all that it starts, and end it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from alcore_labelers.attempts import Ended

GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""
_PROC = Path("/proc")


def run_program(
    arguments: Sequence[str],
    folder: Path,
    env: Mapping[str, str],
    timeout: float | None,
    stop: threading.Event,
    grace: float = GRACE,
) -> Ended | None:
    """Run a program in a folder, and wait for it; its output goes to the files ``stdout`` and ``stderr`` there.

    Parameters
    ----------
    arguments
        The program and its arguments; no shell sees them.
    folder
        Where it works.
    env
        Variables beside those of this process.
    timeout
        Seconds after which it is ended, with its whole process group.
    stop
        Set to end it at once.
    grace
        Seconds that it has for its end after SIGTERM.

    Returns
    -------
    Ended or None
        None where it was stopped.
    """
    begin = time.monotonic()
    try:
        with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
            process = subprocess.Popen(
                list(arguments),
                cwd=folder,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
    except (OSError, ValueError) as error:
        return Ended(None, 0.0, reason=str(error))
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(0.05 if timeout is None else max(0.0, min(0.05, begin + timeout - time.monotonic())))
            return Ended(code, time.monotonic() - begin)
        timed_out = timeout is not None and time.monotonic() - begin >= timeout
        if timed_out or stop.is_set():
            _end_group(process, grace)
            return None if stop.is_set() else Ended(process.returncode, time.monotonic() - begin, timed_out=True)


def _end_group(process: subprocess.Popen[bytes], grace: float) -> None:
    """End the process group of a program that is running."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def running_in(folders: Iterable[Path]) -> dict[Path, list[int]]:
    """Return the processes that were started for these folders, and are alive; of this machine, and of this user.

    They are known by the variable ``ALCORE_FOLDER`` with which they were started. Without ``/proc`` none is found.
    """
    wanted = {os.fsencode(f"ALCORE_FOLDER={folder}"): folder for folder in folders}
    processes: dict[Path, list[int]] = {}
    for process in _PROC.glob("[0-9]*") if wanted else ():
        try:
            environ = (process / "environ").read_bytes()  # empty for one that has ended and is not yet reaped
        except OSError:
            continue
        for variable in environ.split(b"\0"):
            if variable in wanted:
                processes.setdefault(wanted[variable], []).append(int(process.name))
                break
    return processes


def end_processes(folder: Path, grace: float = GRACE) -> bool:
    """End what is running of a folder; return whether there was anything."""
    until, ended = time.monotonic() + grace, False
    number = signal.SIGTERM
    while processes := running_in([folder]).get(folder):
        ended = True
        for process in processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, number)
        if time.monotonic() > until:
            if number is signal.SIGKILL:
                break
            number, until = signal.SIGKILL, time.monotonic() + grace
        time.sleep(0.02)
    return ended
