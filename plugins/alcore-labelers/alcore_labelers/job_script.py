"""The script that runs a program as a job, at most once, and says that it is alive and how it ended."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shlex
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from alcore.store import parse_json
from alcore_labelers.attempts import Ended
from alcore_labelers.program_files import FileFault, read_file

SCRIPT = "job.sh"
STARTED = "started"
"""Made by the job before anything else, exclusively: process, host, and its id at the scheduler, or ``-``."""
TERMS = "job.json"
"""What the attempt was submitted with."""
HEARTBEAT = "heartbeat"
"""A number that goes up as long as the job is alive."""
TERMINATED = "terminated"
"""Made where the job was sent SIGTERM: what the scheduler said of it then."""
_EXIT = "exit"  # what the job writes last: exit code, begin, end, and TERM where it was sent that
_OUT_OF_TIME = 124  # the exit code of timeout(1)
_REVOKED = "- - revoked"  # in place of what the job writes
_LIMIT = 1 << 16  # bytes of what the script writes
_SKEW = 600.0  # seconds by which the clock of a file server may be ahead

_TEMPLATE = """\
#!/bin/sh
# A job of alcore: it runs its program once, whoever starts it how often.
cd {folder} || exit 1
( set -C; echo "$$ $(uname -n) {job_id}" > {started} ) 2>/dev/null || exit 0
ALCORE_FOLDER= sh -c {beats} heartbeat $$ {seconds} < /dev/null > /dev/null 2>&1 &
_alcore_beats=$! _alcore_sent=
trap '_alcore_sent=TERM' TERM
_alcore_begin=$(date +%s.%N)
{command} < /dev/null > stdout 2> stderr
_alcore_code=$?
_alcore_end=$(date +%s.%N)
[ $_alcore_code -eq 0 ] && [ -e result.json -o -e result.npz ] || sleep 0.1 || sleep 1
[ $_alcore_code -ne 143 ] || _alcore_sent=TERM
echo "$_alcore_code $_alcore_begin $_alcore_end $_alcore_sent" > {exit}.part && mv {exit}.part {exit}
kill $_alcore_beats 2>/dev/null
while kill -0 $_alcore_beats 2>/dev/null; do wait $_alcore_beats; done
exit 0
"""  # a signal to all processes of a job may come to the program first: hence the pause, and the second look at 143
_BEATS = """\
end() {{
  kill $pause
  case "$(cat {exit})" in ""|*TERM*) {inquiry} > {terminated}.part; mv {terminated}.part {terminated};; esac
  exit
}}
trap end TERM
count=0
while
  if [ -r /proc/$$/stat ]; then read -r a b c parent d < /proc/$$/stat; else parent=$(ps -o ppid= -p $$); fi
  [ $parent -eq $1 ]
do
  count=$((count + 1))
  echo $count > {heartbeat}
  sleep $2 & pause=$!
  wait $pause || exit
done
"""  # it ends with its parent, the job; a process id alone might be another one's by then, or a zombie's


class Start(NamedTuple):
    """What a job wrote first.

    Parameters
    ----------
    host
        The machine on which it began; empty where that is not known.
    job_id
        Its id at the scheduler, as it knows it itself; empty where it doesn't.
    is_revoked
        Whether the driver took the place of the job, which can't begin any more.
    """

    host: str = ""
    job_id: str = ""
    is_revoked: bool = False


class Terms(NamedTuple):
    """What an attempt was submitted with, whatever the parameters are now.

    Parameters
    ----------
    time_limit
        Seconds after which its program is ended; None for no limit.
    heartbeat
        Seconds between two of its heartbeats; None where it has none.
    """

    time_limit: float | None
    heartbeat: float | None


def job_script(
    folder: Path,
    arguments: Sequence[str],
    env: Mapping[str, str],
    time_limit: float | None,
    grace: float,
    *,
    heartbeat: float = 10.0,
    id_variable: str = "",
    inquiry: str = "",
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
    heartbeat
        Seconds between two heartbeats.
    id_variable
        The variable in which the scheduler tells a job its id; empty where there is none.
    inquiry
        A command of the shell that prints what the scheduler says of the job; called where the job is sent SIGTERM.
    """
    beats = _BEATS.format(exit=_EXIT, inquiry=inquiry or ":", terminated=TERMINATED, heartbeat=HEARTBEAT)
    text = _TEMPLATE.format(
        folder=shlex.quote(str(folder)),
        started=STARTED,
        exit=_EXIT,
        job_id=f"${{{id_variable}:--}}" if id_variable else "-",
        beats=shlex.quote(beats),
        seconds=f"{heartbeat:g}",
        command=_command(arguments, env, time_limit, grace),
    )
    return os.fsencode(text)


def _command(arguments: Sequence[str], env: Mapping[str, str], time_limit: float | None, grace: float) -> str:
    """Return the line that runs the program.

    Its variables are set by env(1): the script itself keeps its own, and no builtin of the shell is called, whatever
    the name of the program is. timeout(1) is found by the PATH of the script, the program by its own.
    """
    variables = [f"{name}={value}" for name, value in env.items()]
    if time_limit is not None:
        limit = f'"$(command -v timeout)" -k {grace:g} {time_limit:g}'
        return f"env -- {shlex.join(variables)} {limit} {shlex.join(arguments)}"
    if "=" in arguments[0]:  # env(1) would take it for one more variable
        arguments = ["/bin/sh", "-c", 'exec "$0" "$@"', *arguments]
    return f"env -- {shlex.join([*variables, *arguments])}"


def terms_file(terms: Terms) -> bytes:
    """Return what is written to ``job.json``."""
    return (json.dumps(terms._asdict()) + "\n").encode()


def terms_of(folder: Path, default: Terms) -> Terms:
    """Return what an attempt was submitted with; `default` where that was not written, or can't be read."""
    try:
        content = read_file(folder, TERMS, _LIMIT)
        if content is None:
            return default
        terms = parse_json(content)
        limit, heartbeat = (_positive(terms[name]) for name in Terms._fields)
        return Terms(limit, heartbeat)
    except (FileFault, ValueError, LookupError, TypeError, OverflowError):
        return default


def how_it_ended(folder: Path, time_limit: float | None) -> Ended | None:
    """Return what the script of a job wrote at its end; None where it has not come to its end.

    A program that failed after its job was sent SIGTERM counts as ended by that signal, whatever its exit code is; one
    with exit code 0 may have been done, or have ended before it was: `Ended.was_terminated` says so.
    """
    try:
        content = read_file(folder, _EXIT, 1 << 12)
    except FileFault as fault:
        return Ended(None, 0.0, reason=str(fault))
    if content is None:
        return None
    try:
        first, begin, end, *sent = content.decode("ascii", errors="replace").split()
        code, seconds = int(first), max(_second(end) - _second(begin), 0.0)
        if not math.isfinite(seconds) or sent not in ([], ["TERM"]):
            raise ValueError
    except ValueError:
        return Ended(None, 0.0, reason=f"the file {_EXIT} of the job is damaged")
    timed_out = time_limit is not None and code in (_OUT_OF_TIME, 137) and seconds >= time_limit
    was_terminated = bool(sent) and not timed_out
    signed = -signal.SIGTERM if was_terminated and code else _signed(code)
    return Ended(signed, seconds, timed_out=timed_out, was_terminated=was_terminated)


def has_started(folder: Path) -> bool:
    """Return whether a job has begun to work; looks again at a network file system."""
    with contextlib.suppress(OSError):
        next(folder.iterdir(), None)
    return (folder / STARTED).exists()


def start_of(folder: Path) -> Start:
    """Return what a job wrote first; empty where it has not begun, or could not write."""
    content = _text(folder, STARTED)
    words = content.split()
    if content.strip() == _REVOKED:
        return Start(is_revoked=True)
    host, job_id = (*words[1:3], "", "")[:2]
    return Start("" if host == "-" else host, "" if job_id == "-" else job_id)


def revoke(folder: Path) -> bool:
    """Take the place of a job that has not begun, so that it never will; return False where it has begun.

    Where the folder can't be written, the job can't begin either, and nothing is done.
    """
    try:
        descriptor = os.open(folder / STARTED, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    except FileExistsError:
        return start_of(folder).is_revoked
    except OSError:
        return True
    with contextlib.suppress(OSError), os.fdopen(descriptor, "w") as file:
        file.write(f"{_REVOKED}\n")
    return True


def heartbeat_of(folder: Path) -> tuple[int, str] | None:
    """Return what changes with each heartbeat of a job; None where it has none.

    The time in it is that of the file's machine: it is compared with an earlier one, and with no other clock.
    """
    text = _text(folder, HEARTBEAT)  # opened, so that a network file system asks its server
    try:
        return (folder / HEARTBEAT).lstat().st_mtime_ns, text
    except OSError:
        return None


def said_at_end(folder: Path) -> str:
    """Return what the scheduler said when the job was sent SIGTERM; empty where that is not known."""
    return _text(folder, TERMINATED)


def was_sent_term(folder: Path) -> bool:
    """Return whether a job was sent SIGTERM, as far as it could write that."""
    ended = how_it_ended(folder, None)
    return (ended is not None and ended.was_terminated) or (folder / TERMINATED).exists()


def seconds_worked(folder: Path) -> float:
    """Return for how long a job has worked that has not said so: from its start to the last that it wrote.

    A time that has not come yet, by a program that sets the times of its files, tells nothing.
    """
    latest = time.time() + _SKEW
    try:
        begin = (folder / STARTED).lstat().st_mtime
        times = [path.lstat().st_mtime for path in folder.iterdir()]
    except OSError:
        return 0.0
    return max(0.0, *(time - begin for time in times if time <= latest))


def _text(folder: Path, name: str) -> str:
    try:
        return (read_file(folder, name, _LIMIT) or b"").decode("utf-8", errors="replace")
    except FileFault:
        return ""


def _positive(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError
    return float(value)


def _second(text: str) -> float:
    """Return a time that date(1) gave, which has no fractions everywhere."""
    return float(re.sub(r"\.\D*$", "", text))


def _signed(code: int) -> int:
    """Return the exit code of a shell, negative for a signal."""
    return 128 - code if code > 128 else code
