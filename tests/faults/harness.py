"""Where to inject faults, into which lives, and whom to ask for it; needs nothing but the standard library."""

from __future__ import annotations

import functools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
CALLS = ["write", "pwrite64", "ftruncate", "openat", "fsync", "fdatasync", "rename", "renameat", "unlink", "mkdir"]
ERRORS = ("ENOSPC", "EIO")
RUN_ID = "faulty"

Task = dict[str, Any]
Fault = dict[str, Any]


class Call(NamedTuple):
    """A system call of a trace: the thread, its how many-th of this name, the paths it touches, its line."""

    thread: str
    name: str
    when: int
    paths: tuple[str, ...]
    text: str


@functools.cache
def why_no_strace() -> str | None:
    """Say why system calls can't be traced here, or None if they can."""
    if sys.platform != "linux" or shutil.which("strace") is None:
        return "strace is not installed"
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        try:
            command = ["strace", "-e", "trace=none", "-o", "/dev/null", "-p", str(sleeper.pid)]
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
                assert tracer.stderr is not None
                line = tracer.stderr.readline()
                tracer.terminate()
        finally:
            sleeper.kill()
    return None if "attached" in line else f"strace can't attach to a process: {line.strip()}"


class Servers:
    """Some fork servers side by side, each in a process of its own, and the folder that they work in."""

    def __init__(self, count: int = 1) -> None:
        shared = Path("/dev/shm")  # SIGKILL keeps the page cache, so nothing is lost by never going to a disk
        fast = shared if os.access(shared, os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="alcore-faults-", dir=fast))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        self._servers = [
            subprocess.Popen(
                [sys.executable, str(HERE / "server.py"), str(self.folder)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
            )
            for _ in range(count)
        ]  # fmt: skip
        answer = self.ask({"folder": str(self.folder), "lives": [], "keep": True})
        if answer["notes"]:
            raise RuntimeError(f"the experiment doesn't run: {answer}")
        self.seconds = answer["seconds"]
        """How long an uninterrupted run takes."""
        self.expected = self.ask({"essence": answer["place"]})["essence"]
        self.paid = len((Path(answer["place"]) / "log").read_text().splitlines())
        for server in self._servers:
            self.ask({"expect": self.expected}, server)

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            assert server.stdin is not None
            server.stdin.close()
            server.wait()
            if server.stdout is not None:
                server.stdout.close()
        shutil.rmtree(self.folder)

    def ask(self, task: Task, server: subprocess.Popen[str] | None = None) -> dict[str, Any]:
        """Have one task done."""
        server = server or self._servers[0]
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(task) + "\n")
        server.stdin.flush()
        answer = server.stdout.readline()
        if not answer:
            raise RuntimeError(f"the fork server ended while it did {task}")
        return dict(json.loads(answer))

    def lives(self, *faults: Fault, **more: Any) -> Task:
        return {"folder": str(self.folder), "lives": list(faults), **more}

    def ask_all(self, tasks: Sequence[Task]) -> Iterator[dict[str, Any]]:
        """Have tasks done by all servers side by side; yields answers as they come, those that failed too."""
        waiting, lock = iter(tasks), threading.Lock()
        done: list[Any] = []
        ready = threading.Condition()

        def work(server: subprocess.Popen[str]) -> None:
            while True:
                with lock:
                    task = next(waiting, None)
                if task is None:
                    return
                try:
                    answer = self.ask(task, server)
                except Exception as error:  # noqa: BLE001 - raised where it is waited for
                    answer = error  # type: ignore[assignment]
                with ready:
                    done.append(answer)
                    ready.notify()

        for server in self._servers:
            threading.Thread(target=work, args=(server,), daemon=True).start()
        for _ in tasks:
            with ready:
                ready.wait_for(lambda: done)
                answer = done.pop(0)
            if isinstance(answer, Exception):
                raise answer
            yield answer

    def trace(self, *before: Fault, size: int = 0, mutant: str | None = None) -> list[Call]:
        """Return the calls of the life after these faults, which meets none itself."""
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            output = Path(place) / "trace"
            fault: Fault = {"trace": str(output), "size": size}
            if mutant is not None:
                fault["mutant"] = mutant
            answer = self.ask(self.lives(*before, fault, open=True))
            if answer["notes"]:
                raise RuntimeError(f"the traced run failed: {answer}")
            told = answer["lives"][-1]
            threads = {told["main"]: "main", told["worker"]: "worker"}
            return parse(output.read_text(errors="replace"), threads, answer["place"])


def parse(text: str, threads: dict[int, str], place: str) -> list[Call]:
    """Return the calls of a trace, with paths relative to the place of the task."""
    counts: Counter[tuple[str, str]] = Counter()
    calls = []
    for line in text.splitlines():
        begun = re.match(r"(?:(\d+) +)?(\w+)\((.*)$", line)
        if begun is None:
            continue  # signals, exits and resumed calls
        number, name, rest = begun.groups()
        thread = threads.get(int(number or 0), "main" if number is None else "other")
        counts[thread, name] += 1
        if name in ("openat", "rename", "renameat", "renameat2", "unlink", "mkdir"):
            paths = re.findall(r'"([^"]*)"', rest)
        else:
            paths = re.findall(r"^\d+<(.*?)>", rest)
        inside = tuple(
            path.removeprefix(place).lstrip("/") or "." for path in paths if (path + "/").startswith(place + "/")
        )
        calls.append(Call(thread, name, counts[thread, name], inside, rest))
    return calls


def points(calls: Iterable[Call], names: Sequence[str]) -> list[Call]:
    """Return the calls of these names that touch the folder of runs."""
    return [call for call in calls if call.name in names and any(re.match(r"\.$|root", path) for path in call.paths)]


def shape(call: Call) -> tuple[str, str, tuple[str, ...]]:
    """Return what of a call is the same in every run: random parts of names are left out."""
    return (
        call.thread,
        call.name,
        tuple(re.sub(r"(\.faulty|\.json|\.toml)\.\w+|\.tmp\w+|\.\w+(?=\.part)", r"\1.*", p) for p in call.paths),
    )


def at(call: Call, action: str, **more: Any) -> Fault:
    """Return the fault that strikes at a call."""
    return {"thread": call.thread, "call": call.name, "when": call.when, "action": action, **more}


def full_disk(calls: Sequence[Call], place: int, action: str = "ENOSPC") -> Fault:
    """Return a disk that is full from one call of a trace on: nothing can be written, extended or made."""
    call = calls[place]
    seen = Counter(call_before.name for call_before in calls[: place + 1] if call_before.thread == call.thread)
    writing = ("write", "pwrite64", "mkdir", "rename", "renameat")
    also = {name: seen[name] + 1 for name in writing if name != call.name}
    return at(call, action, lasting=True, also=also)


def spread(found: Sequence[Call], count: int, seed: int) -> list[Call]:
    """Return some calls: of each name and each stage of the run, the rest at random."""
    draw = random.Random(seed)
    names = sorted({call.name for call in found})
    chosen: set[int] = set()
    for number in range(count):
        name = names[number % len(names)]
        places = [i for i, call in enumerate(found) if call.name == name]
        third = places[len(places) * (number % 5) // 5 : len(places) * (number % 5 + 1) // 5] or places
        chosen.add(draw.choice([i for i in third if i not in chosen] or places))
    return [found[i] for i in sorted(chosen)]


def random_lives(seconds: float, seed: int) -> list[Fault]:
    """Return one to three random kills of one run, often in the first milliseconds of its life."""
    draw = random.Random(seed)
    longest = draw.choice([0.003, 0.015, 0.04, 1.2 * seconds])
    return [{"after": round(draw.uniform(0, longest), 6)} for _ in range(draw.choice([1, 1, 2, 3]))]


def failures(answers: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [answer for answer in answers if answer["notes"]]
