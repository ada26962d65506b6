"""Send SIGINT or SIGTERM to ``alcore run`` at many offsets: ``python tests/faults/signals.py [--offsets 1500]``.

A quarter of the offsets are in the imports of a process of the console script. The others are in one that is forked
from a process which has torch loaded, so that a run, its end and the end of its process take a moment. What must hold:

- Where the entry of the command was reached, the exit code is 130, the last line is the one sentence that says so, and
  there is no traceback. Where all output was there before, it may be the exit code of the run.
- Where it was not, the signal ends the process. (Python's own start may turn it into an error of its own.)
- A run folder that the sentence names is there, and ``alcore resume`` ends it as the uninterrupted run. Where the
  sentence says that the run had not begun, there is none.

The other commands are sent signals too, in forks: the same of exit code, sentence and traceback must hold.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ALCORE = Path(sys.executable).with_name("alcore")
WORDS = ["run", "--steps", "3", "--run-id", "e11", "--seed", "0", "--threads", "1"]
LAST_LINE = "Next: alcore show e11"
SENTENCE = re.compile(r"alcore: interrupted\b.*")
STAYS = {"worker", "dash"}
"""Commands that don't end by themselves."""
OTHERS = [
    "resume e11 --steps 6", "check", "predict e11 new.npz", "export e11", "report e11", "fork e11 --step 1", "runs",
    "benchmark --query uq --no-baseline --seeds 1 --steps 2 --set data.moons.samples=100", "compare e11 e11",
    "worker shared --label function --set label.function.function=solver:solve", "dash --no-browser", "plugins check",
    "show e11",
]  # fmt: skip


class Ended(NamedTuple):
    """How a command ended: its code as `subprocess` gives it, and what it wrote."""

    code: int
    out: str
    err: str


class Sent(NamedTuple):
    """What was known when the signal was sent: whether `main` had been entered, and what was written."""

    entered: bool
    written: str


class Command:
    """A process of ``alcore`` in a folder: of the console script, or a fork of a process that has torch loaded."""

    def __init__(self, folder: Path, words: list[str], loaded: Loaded | None) -> None:
        self.folder, self._out, self._err = folder, folder / "out", folder / "err"
        self._loaded, self._process = loaded, None
        if loaded is None:
            with self._out.open("wb") as out, self._err.open("wb") as err:
                self._process = subprocess.Popen([ALCORE, *words], cwd=folder, stdout=out, stderr=err)
            self.pid = self._process.pid
        else:
            self.pid = loaded.fork(folder, words)

    def send(self, number: int) -> Sent | None:
        """Send the signal; None where the process has ended."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
            masks = re.findall(r"^Sig(?:Cgt|Ign):\s*(\w+)$", status, re.MULTILINE)
            if not masks or re.search(r"^State:\s*Z", status, re.MULTILINE):
                return None
            os.kill(self.pid, number)
        except (FileNotFoundError, ProcessLookupError):
            return None
        # the entry of the command catches SIGTERM, its end ignores it, and Python by itself does neither
        entered = any(int(mask, 16) >> (signal.SIGTERM - 1) & 1 for mask in masks)
        return Sent(entered, self.out() + self.err())

    def out(self) -> str:
        return self._out.read_text() if self._out.exists() else ""

    def err(self) -> str:
        return self._err.read_text() if self._err.exists() else ""

    def wait(self) -> Ended:
        code = self._process.wait(120) if self._process is not None else self._loaded.wait(self.pid)
        return Ended(code, self.out(), self.err())


class Loaded:
    """A process with torch loaded, which forks processes that call the entry of the command."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        began = time.monotonic()
        self._ask()
        self.seconds = time.monotonic() - began
        """How long it took to load torch."""

    def __enter__(self) -> Loaded:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def _ask(self, **what: Any) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def fork(self, folder: Path, words: list[str]) -> int:
        return self._ask(folder=str(folder), words=words)

    def wait(self, pid: int) -> int:
        return self._ask(pid=pid)


def serve() -> None:
    """Fork a process for each line of stdin that names a folder, which calls the entry; wait for one at the others."""
    import torch._dynamo  # with it comes all that a run imports of torch

    torch.set_num_threads(1)
    gc.freeze()  # what is there before the fork costs its children nothing
    while line := sys.stdin.readline():
        asked = json.loads(line)
        if "pid" in asked:
            answer = os.waitstatus_to_exitcode(os.waitpid(asked["pid"], 0)[1])
        elif "folder" not in asked:
            answer = 0
        elif not (answer := os.fork()):
            break
        print(answer, flush=True)
    else:
        return
    os.chdir(asked["folder"])
    for name, descriptor in (("out", 1), ("err", 2)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND), descriptor)
    sys.argv = ["alcore", *asked["words"]]
    from alcore.cli.main import main

    main()


def essence(run: Path) -> dict[str, Any]:
    """Return what must be the same in an interrupted run that was resumed."""
    from alcore.store.reading import Run

    stored = Run(run)
    files = sorted(checkpoint["file"] for checkpoint in stored.checkpoints() if checkpoint["file"][0].isdigit())
    return {
        "status": stored.meta()["status"],
        "records": (run / "f1_metrology.json").read_text(),
        "requests": [
            (request["step"], request["sample"], request["score"], request["state"]) for request in stored.requests()
        ],
        "last": (run / "ckpt" / files[-1]).read_bytes().hex(),
    }


def faults(sent: Sent, ended: Ended, run: Path) -> list[str]:
    """Say what is wrong with how an interrupted run ended."""
    lines = [line for line in ended.err.replace("\r", "\n").splitlines() if line.strip()]
    if not sent.entered and ended.code < 0:
        return []
    if not sent.entered and ended.code == 1 and "Fatal Python error: init_import_site" in ended.err:
        return []
    wrong = [f"a traceback: {ended.err[-1000:]}"] if "Traceback" in ended.err or "ignored" in ended.err else []
    if ended.code == 0 and sent.written == ended.out + ended.err != "":
        return wrong
    if ended.code != 130:
        wrong.append(f"exit code {ended.code}")
    said = [line for line in lines if SENTENCE.fullmatch(line)]
    if len(said) != 1:
        wrong.append(f"not one sentence: {lines}")
    if "alcore resume e11" in ended.err and not (run / "run.db").is_file():
        wrong.append("it names a run that is not there")
    if "before the run began" in ended.err and run.exists():
        wrong.append("it says that the run had not begun, and it is there")
    return wrong


def interrupt(
    offset: float, in_script: bool, loaded: Loaded, number: int, expected: dict[str, Any], parent: Path
) -> tuple[str, list[str]]:
    """Interrupt one run, and resume it if it can be; return what it said in a word or two, and faults."""
    folder = Path(tempfile.mkdtemp(dir=parent))
    try:
        command = Command(folder, WORDS, None if in_script else loaded)
        run = folder / "active_learning_logs" / "e11"
        time.sleep(offset)
        sent, ended = command.send(number), command.wait()
        if sent is None:
            return "over", [] if ended.code == 0 else [f"exit code {ended.code} without a signal"]
        faults_found = faults(sent, ended, run)
        if "alcore resume e11" in ended.err and not faults_found:
            resumed = Command(folder, ["resume", "e11"], loaded).wait()
            if resumed.code != 0:
                faults_found.append(f"alcore resume: {resumed}")
            elif differing := [name for name, value in essence(run).items() if value != expected[name]]:
                faults_found.append(f"the resumed run differs in {differing}")
        said = re.search(r"alcore: interrupted( in| before| when)?", ended.err)
        return f"{'entered' if sent.entered else 'not yet'}, {ended.code}, {said[0] if said else ''}", faults_found
    finally:
        shutil.rmtree(folder)


class Whole(NamedTuple):
    """The uninterrupted run: seconds to its last line and to the end of its process, and its result."""

    last_line: float
    end: float
    essence: dict[str, Any]


def whole(loaded: Loaded, parent: Path) -> Whole:
    """Run without any signal, twice: the first run loads what the others find in the cache of the disk."""
    for _ in range(2):
        folder = Path(tempfile.mkdtemp(dir=parent))
        began, command = time.monotonic(), Command(folder, WORDS, loaded)
        while LAST_LINE not in command.out() and time.monotonic() < began + 60:
            time.sleep(0.005)
        last_line, ended = time.monotonic() - began, command.wait()
        if ended.code != 0 or LAST_LINE not in ended.out:
            raise RuntimeError(f"the run that nobody interrupts has failed: {ended}")
    return Whole(last_line, time.monotonic() - began, essence(folder / "active_learning_logs" / "e11"))


def sweep(
    places: Iterable[int], count: int, loaded: Loaded, measured: Whole, parent: Path
) -> Iterator[tuple[str, list[str]]]:
    """Interrupt at these of `count` places; yields what each run said in a word or two, and what is wrong."""
    for place in places:
        part, kind = (place + 0.5) / count, place % 4
        if kind == 0:  # in the console script, whose later life is that of the forks
            offset = part * 1.1 * loaded.seconds
        elif kind == 3:
            offset = measured.last_line + part * (measured.end - measured.last_line)
        else:
            offset = part * measured.last_line
        number = signal.SIGTERM if place % 5 == 4 else signal.SIGINT
        word, wrong = interrupt(offset, kind == 0, loaded, number, measured.essence, parent)
        yield word, [f"{number.name} {offset:.3f} s after the start: {fault}" for fault in wrong]


class Others:
    """A folder with a run that has ended, and all that the other commands need.

    Parameters
    ----------
    loaded
        Forks the commands.
    parent
        Where the folder is made, and its copies.
    """

    def __init__(self, loaded: Loaded, parent: Path) -> None:
        self._loaded, self._parent, self._folder = loaded, parent, parent / "others"
        (self._folder / "shared").mkdir(parents=True)
        (self._folder / "solver.py").write_text("def solve(values):\n    return 1.0\n")
        np.savez(self._folder / "new.npz", inputs=np.zeros((4, 2), dtype=np.float32))
        ended = Command(self._folder, WORDS, loaded).wait()
        if ended.code != 0:
            raise RuntimeError(f"the run that nobody interrupts has failed: {ended}")

    def sweep(self, text: str, places: Iterable[int], count: int) -> Iterator[tuple[str, list[str]]]:
        """Interrupt a command at these of `count` places; yields the same as `sweep`."""
        seconds = 1.0 if text.split()[0] in STAYS else self._seconds(text)
        for place in places:
            number, offset = (signal.SIGINT, signal.SIGTERM)[place % 2], (place + 0.5) / count * seconds
            with self._copy() as folder:
                command = Command(folder, text.split(), self._loaded)
                time.sleep(offset)
                sent, ended = command.send(number), command.wait()
                faults_found = [] if sent is None else faults(sent, ended, folder / "active_learning_logs" / "e11")
                word = f"{text.split()[0]}, {'over' if sent is None else ended.code}"
                yield word, [f"{text}: {number.name} {offset:.3f} s after the start: {fault}" for fault in faults_found]

    def _seconds(self, text: str) -> float:
        with self._copy() as folder:
            began, ended = time.monotonic(), Command(folder, text.split(), self._loaded).wait()
            if ended.code != 0:
                raise RuntimeError(f"alcore {text}: {ended}")
            return time.monotonic() - began

    @contextlib.contextmanager
    def _copy(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self._parent) as folder:
            yield Path(shutil.copytree(self._folder, folder, dirs_exist_ok=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--offsets", type=int, default=1500)
    parser.add_argument("--others", type=int, default=40, help="offsets of each other command")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored, which children inherit
    if options.serve:
        serve()
        return 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="alcore-signals-") as parent:

        def work_others() -> list[tuple[str, list[str]]]:
            if not options.others:
                return []
            with Loaded() as loaded:
                others = Others(loaded, Path(parent))
                return [
                    answer for text in OTHERS for answer in others.sweep(text, range(options.others), options.others)
                ]

        def work(job: int) -> list[tuple[str, list[str]]]:
            with Loaded() as loaded:
                measured = whole(loaded, Path(parent))
                places = [place for place in range(options.offsets) if place // 4 % options.jobs == job]
                return list(sweep(places, options.offsets, loaded, measured, Path(parent)))

        with concurrent.futures.ThreadPoolExecutor(options.jobs) as executor:
            parts = [executor.submit(work, job) for job in range(options.jobs)]
            parts.append(executor.submit(work_others))
            answers = [answer for part in parts for answer in part.result()]
    words = [word for word, _ in answers]
    wrong = [fault for _, found in answers for fault in found]
    for fault in wrong:
        print(fault, file=sys.stderr)
    told = {word: words.count(word) for word in sorted(set(words))}
    seconds = round(time.monotonic() - began, 1)
    print(json.dumps({"fault": "signals", "points": len(answers), "failures": len(wrong), "seconds": seconds, **told}))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
