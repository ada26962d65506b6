"""The script that runs a program as a job, at most once, and says how it ended."""

from __future__ import annotations

import contextlib
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from alcore_labelers.attempts import Ended
from alcore_labelers.program_files import FileFault, read_file

SCRIPT = "job.sh"
STARTED = "started"
"""Made by the job before anything else, exclusively."""
_EXIT = "exit"  # what the job writes last: exit code, begin and end
_OUT_OF_TIME = 124  # the exit code of timeout(1)

_TEMPLATE = """\
#!/bin/sh
# A job of alcore: it runs its program once, whoever starts it how often.
cd {folder} || exit 1
( set -C; echo "$$ $(hostname 2>/dev/null)" > {started} ) 2>/dev/null || exit 0
{exports}
begin=$(date +%s.%N)
{command} < /dev/null > stdout 2> stderr
code=$?
echo "$code $begin $(date +%s.%N)" > {exit}.part && mv {exit}.part {exit}
"""


def job_script(
    folder: Path, arguments: Sequence[str], env: Mapping[str, str], time_limit: float | None, grace: float
) -> bytes:
    """Return the script of a job.

    Parameters
    ----------
    folder
        In which it works.
    arguments
        The program and its arguments, which are quoted: the shell changes nothing in them.
    env
        Variables for the program.
    time_limit
        Seconds after which the program is ended with its process group; None for no limit.
    grace
        Seconds between SIGTERM and SIGKILL then.
    """
    limited = [] if time_limit is None else ["timeout", "-k", f"{grace:g}", f"{time_limit:g}"]
    text = _TEMPLATE.format(
        folder=shlex.quote(str(folder)),
        started=STARTED,
        exit=_EXIT,
        exports="\n".join(f"export {name}={shlex.quote(value)}" for name, value in env.items()),
        command=shlex.join([*limited, *arguments]),
    )
    return text.encode()


def how_it_ended(folder: Path, time_limit: float | None) -> Ended | None:
    """Return what the script of a job wrote at its end; None where it has not come to its end."""
    try:
        content = read_file(folder, _EXIT, 1 << 12)
    except FileFault as fault:
        return Ended(None, 0.0, reason=str(fault))
    if content is None:
        return None
    try:
        first, begin, end = content.decode("ascii", errors="replace").split()
        code, seconds = int(first), max(_second(end) - _second(begin), 0.0)
        if not math.isfinite(seconds):
            raise ValueError
    except ValueError:
        return Ended(None, 0.0, reason=f"the file {_EXIT} of the job is damaged")
    return Ended(
        _signed(code),
        seconds,
        timed_out=time_limit is not None and code in (_OUT_OF_TIME, 137) and seconds >= time_limit,
    )


def has_started(folder: Path) -> bool:
    """Tell whether a job has begun to work; looks again at a network file system."""
    with contextlib.suppress(OSError):
        next(folder.iterdir(), None)
    return (folder / STARTED).exists()


def host_of(folder: Path) -> str:
    """Return the name of the machine on which a job began; empty where that is not known."""
    try:
        content = read_file(folder, STARTED, 1 << 12)
    except FileFault:
        return ""
    words = (content or b"").decode("utf-8", errors="replace").split()
    return words[1] if len(words) == 2 else ""


def seconds_worked(folder: Path) -> float:
    """Return for how long a job has worked that has not said so: from its start to the last that it wrote."""
    try:
        begin = (folder / STARTED).lstat().st_mtime
        return max(0.0, *(path.lstat().st_mtime - begin for path in folder.iterdir()))
    except OSError:
        return 0.0


def _second(text: str) -> float:
    """Return a time that date(1) gave, which has no fractions everywhere."""
    return float(re.sub(r"\.\D*$", "", text))


def _signed(code: int) -> int:
    """Return the exit code of a shell, negative for a signal."""
    return 128 - code if code > 128 else code
