"""A fork server: imports everything once, then lives and ends runs as it is told, one task a line of JSON.

A task is the lives of one run. Each but the last meets a fault; then it is checked that what is on the disk is
sound, and the run is taken up again. The last life must end well. A fault is one of

- ``{"after": 0.012}``: SIGKILL after so many seconds;
- ``{"thread": "main", "call": "fsync", "when": 3, "action": "kill"}``: SIGKILL instead of this thread's third fsync;
  an action ``"ENOSPC"`` or ``"EIO"`` lets the call fail instead, with ``"lasting"`` it and all that follow, and those
  that ``"also"`` names; with ``"again"`` the same process then takes the run up again;
- ``{"trace": "FILE"}``: no fault; strace writes down what the life does.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import get_native_id
from typing import Any

import experiment
import torch
from alcore_testing import differences
from harness import CALLS, RUN_ID
from mutants import MUTANT, leave_out
from verdict import essence, judge, sound

DURATION = 60  # seconds after which a life counts as hung


class Child:
    """A life in a process of its own, which waits for `go` before it touches anything."""

    def __init__(self, place: Path, *, again: bool = False, mutant: str | None = None) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(DURATION)
        self.pid = os.fork()
        if not self.pid:
            self.socket.close()
            _child(place, theirs, again, mutant)
        theirs.close()
        self.worker = json.loads(self.socket.recv(1000))["worker"]

    def go(self) -> float:
        self.socket.send(b"go")
        return time.monotonic()

    def outcome(self) -> dict[str, Any]:
        """Wait for the end; ``killed`` where it didn't come to say how that was."""
        try:
            text = self.socket.recv(65536)
        except ConnectionResetError:
            text = b""
        except TimeoutError:
            os.kill(self.pid, signal.SIGKILL)
            text = b'{"how": "hung"}'
        self.socket.close()
        status = os.waitpid(self.pid, 0)[1]
        if text:
            return dict(json.loads(text))
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        return {"how": "killed" if killed else f"ended with wait status {status}"}


def _child(place: Path, parent: socket.socket, again: bool, mutant: str | None) -> None:
    """Be the child: say who is there, wait, live, tell how it ended; by calls that no fault is injected into."""
    log = os.open(place / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    executor = ThreadPoolExecutor(1)
    parent.send(json.dumps({"worker": executor.submit(get_native_id).result()}).encode())
    parent.recv(10)
    if mutant is not None:
        os.environ[MUTANT] = mutant
    leave_out(os.environ.get(MUTANT))
    told: dict[str, Any] = {"how": "done"}
    errors = []
    try:
        experiment.live(place / "root", place / "log", executor)
    except BaseException as error:  # noqa: BLE001 - to be judged by the parent
        errors.append(error)
        trace = [f"{place.filename}:{place.lineno}" for place in traceback.extract_tb(error.__traceback__)]
        told = {"how": "error", "type": type(error).__name__, "message": str(error), "raised": trace}
        if again:  # the same process tries once more, where a lock left behind would stop it
            try:
                experiment.live(place / "root", place / "log", executor)
            except BaseException as second:  # noqa: BLE001
                errors.append(second)
                told["again"] = f"{type(second).__name__}: {second}"
    parent.send(json.dumps(told).encode())
    with contextlib.suppress(OSError):  # a fault may last
        for error in errors:
            traceback.print_exception(error)
    os._exit(0)


@contextlib.contextmanager
def strace(thread: int, options: list[str], output: Path) -> Iterator[None]:
    """Attach strace to a thread for as long as the block runs; the thread must be waiting."""
    command = ["strace", "-y", "-e", "signal=none", "-o", str(output), *options, "-p", str(thread)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as tracer:
        assert tracer.stderr is not None
        line = tracer.stderr.readline()
        if "attached" not in line:
            raise RuntimeError(f"strace: {line}{tracer.stderr.read()}")
        yield
        tracer.stderr.read()


def life(place: Path, fault: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """Live once, meet the fault, and return how it ended."""
    child = Child(place, again=fault.get("again", False), mutant=fault.get("mutant"))
    if "after" in fault:
        began = child.go()
        time.sleep(max(0.0, fault["after"] - (time.monotonic() - began)))
        os.kill(child.pid, signal.SIGKILL)
        return child.outcome()
    if "trace" in fault:
        options = ["-f", "-s", str(fault.get("size", 0)), "-e", f"trace={','.join(CALLS)},renameat2"]
        with strace(child.pid, options, Path(fault["trace"])):
            child.go()
            told = child.outcome()
        return {**told, "main": child.pid, "worker": child.worker}
    call, action = fault["call"], fault["action"]
    effect = "signal=SIGKILL" if action == "kill" else f"error={action}"
    lasting = "+" if fault.get("lasting") else ""
    injected = {call: fault["when"], **fault.get("also", {})}
    options = ["-s", "0", "-e", f"trace={','.join(injected)}"]
    for name, when in injected.items():
        options += ["-e", f"inject={name}:{effect}:when={when}{lasting}"]
    output = place / "strace"
    with strace(child.worker if fault["thread"] == "worker" else child.pid, options, output):
        child.go()
        told = child.outcome()
    told["hit"] = hit(output, fault)
    if told["hit"] is None or not re.search(rf'{place}(/root|[">])', told["hit"]):
        notes.append(f"missed its point: {told['hit']}")
    return told


def hit(output: Path, fault: dict[str, Any]) -> str | None:
    """Return the call that the fault met."""
    lines = [line for line in output.read_text(errors="replace").splitlines() if line.startswith(fault["call"] + "(")]
    return lines[fault["when"] - 1] if len(lines) >= fault["when"] else None


def paid(place: Path) -> list[str]:
    log = place / "log"
    return log.read_text().splitlines() if log.exists() else []


def run_task(task: dict[str, Any], expected: dict[str, Any] | None) -> dict[str, Any]:
    """Live all lives of a task, and return what went wrong."""
    place = Path(tempfile.mkdtemp(dir=task["folder"], prefix="task-"))
    notes: list[str] = []
    lives: list[dict[str, Any]] = []
    began = time.monotonic()
    answered: set[str] = set()
    for fault in [*task["lives"], {"after": None}]:
        before = len(paid(place))
        last = fault.get("after", 0) is None
        if last and task.get("open"):
            break
        if last:
            child = Child(place)
            child.go()
            told = child.outcome()
        else:
            told = life(place, fault, notes)
        lives.append(told)
        new = paid(place)[before:]
        if len(set(new)) != len(new) and not fault.get("again"):
            notes.append("one life asked twice for the same answer")
        if again := answered & set(new):
            notes.append(f"an answer on record was paid for again: {sorted(again)}")
        notes += judge(told, fault, last=last)
        wrong, answered = sound(place)
        notes += wrong
        if lost := set(new[:-1]) - answered:
            notes.append(f"answers were lost: {sorted(lost)}")
        if told["how"] == "error" and notes == [] and fault.get("again") and told.get("again"):
            notes.append(f"the same process can't go on: {told['again']}")
    if not task.get("open"):
        mine = essence(place)
        if expected is not None:
            notes += [f"differs from the uninterrupted run: {difference}" for difference in differences(mine, expected)]
        if len(paid(place)) > len(set(paid(place))) + len(task["lives"]):
            notes.append("more answers were repeated than lives were cut off")
    answer = {
        "task": task, "lives": lives, "notes": notes, "seconds": round(time.monotonic() - began, 4),
        "place": str(place),
    }  # fmt: skip
    if task.get("keep") or notes:
        answer["stderr"] = (place / "stderr").read_text()[-3000:]
    if not task.get("keep"):
        shutil.rmtree(place)
    return answer


def contend(folder: str, *, at_birth: bool) -> dict[str, Any]:
    """Let two drivers have one run: return how each ended, how soon the second did, and the first one's process."""
    place = Path(tempfile.mkdtemp(dir=folder, prefix="two-"))
    first, second = Child(place), Child(place)
    first.go()
    deadline = time.monotonic() + DURATION
    while not at_birth and not (place / "root" / RUN_ID / "console.log").exists():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the first driver doesn't begin: {first.outcome()}")
    if not at_birth:
        os.kill(first.pid, signal.SIGSTOP)
    began = second.go()
    told = second.outcome()
    seconds = time.monotonic() - began
    os.kill(first.pid, signal.SIGCONT)
    answer = {"first": first.outcome(), "second": told, "seconds": seconds, "holder": first.pid}
    return {**answer, "essence": essence(place), "wrong": sound(place)[0], "paid": len(paid(place))}


def import_all(folder: str) -> None:
    """Import what a run imports, without running anything here: autograd can't be forked once it was used."""
    place = Path(tempfile.mkdtemp(dir=folder, prefix="imports-"))
    ours, theirs = os.pipe()
    if not os.fork():
        with ThreadPoolExecutor(1) as executor, contextlib.redirect_stderr(None):
            experiment.live(place / "root", place / "log", executor)
        with os.fdopen(theirs, "w") as file:
            json.dump(list(sys.modules), file)
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as file:
        names = json.load(file)
    os.wait()
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    shutil.rmtree(place)


def main() -> None:
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    expected: dict[str, Any] | None = None
    import_all(sys.argv[1])
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        task = json.loads(line)
        try:
            if "expect" in task:
                expected, answer = task["expect"], {"expecting": True}
            elif "contend" in task:
                answer = contend(task["contend"], at_birth=task["at_birth"])
            elif "essence" in task:
                answer = {"essence": essence(Path(task["essence"]))}
            else:
                answer = run_task(task, expected)
        except Exception:  # noqa: BLE001 - told to the harness, which fails
            answer = {"task": task, "notes": ["the harness failed: " + traceback.format_exc()]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
