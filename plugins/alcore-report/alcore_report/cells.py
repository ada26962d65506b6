"""Run the cells of a benchmark: one process of ``alcore run`` each, several at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from tqdm import tqdm

from alcore.store import Run
from alcore_report.curves import unfinished
from alcore_report.words import rough_duration

_POLL = 0.1
_LOOK = 1.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_USAGE = 2  # the exit code for what can't be done as asked, which holds for other seeds too


@dataclasses.dataclass
class Cell:
    """One run of a benchmark.

    Parameters
    ----------
    arm
        The arm that it is of.
    seed
        Its seed.
    folder
        Its run directory.
    experiment
        The experiment file of the arm.
    log
        Where its messages are written.
    steps
        How many steps it has at most; None where that is not known.
    threads
        Of the process.
    allow_code
        Whether the experiment names code that may be imported.

    Attributes
    ----------
    failure : str or None
        Why it failed, if it did.
    """

    arm: str
    seed: int
    folder: Path
    experiment: Path
    log: Path
    steps: int | None
    threads: int
    allow_code: bool
    failure: str | None = None

    def state(self) -> str:
        """Return ``done``, ``running``, ``new``, or another word for what has to go on."""
        if not (self.folder / "run.db").is_file():
            return "new"
        try:
            meta = Run(self.folder).meta()
        except ValueError:
            return "unreadable"
        status = str(meta.get("status"))
        return "failed" if status == "done" and unfinished(meta) else status

    def steps_done(self) -> int:
        """Return how many steps are finished."""
        try:
            ends = Run(self.folder).first_and_last_step()
        except ValueError:  # it is not there yet
            return 0
        return 0 if ends is None else ends[1] + 1

    def command(self) -> list[str]:
        """Return the words of the process."""
        words = ["run", str(self.experiment), "--run-id", self.folder.name, "--root", str(self.folder.parent)]
        words += ["--seed", str(self.seed), "--resume", "auto", "--quiet"]
        # -P: a file of the current folder that is called like a module of Python's must not be imported in its place
        return [sys.executable, "-P", "-m", "alcore", *words, *(["--allow-code"] if self.allow_code else [])]


@dataclasses.dataclass
class _Process:
    """A process of a cell, which ends when it is asked to."""

    cell: Cell
    process: subprocess.Popen[bytes]
    log_start: int


class CellsInterrupted(Exception):  # noqa: N818 - nothing went wrong
    """The user asked to end; all processes have ended."""


def run_cells(cells: Sequence[Cell], jobs: int, tell: Callable[[str], None]) -> None:
    """Run what is not done, at most `jobs` at a time, and note in each cell why it failed.

    Parameters
    ----------
    cells
        All cells, in the order in which they are begun.
    jobs
        How many processes there are at a time.
    tell
        Called with each message for the user.

    Raises
    ------
    CellsInterrupted
        After SIGINT or SIGTERM, when the cells under way have ended at a safe point; a second signal ends them at once.
    """
    with _Signals() as signals, contextlib.ExitStack() as cleanup:
        progress = _Progress(cells, tell)
        cleanup.callback(progress.close)
        waiting = [cell for cell in cells if cell.state() != "done"]
        active: list[_Process] = []
        cleanup.callback(_kill, active)
        busy: set[int] = set()
        broken: dict[str, str] = {}
        while waiting or active:
            for running in [running for running in active if running.process.poll() is not None]:
                active.remove(running)
                _settle(running, signals.count > 0)
                if running.process.returncode == _USAGE and running.cell.failure:
                    broken.setdefault(running.cell.arm, running.cell.failure)
                if not signals.count:
                    progress.ended(running.cell)
            if signals.count > signals.passed_on:
                signals.passed_on += 1
                tell(
                    f"{signals.name}: {len(active)} runs end at their next safe point; once more ends them at once."
                    if signals.passed_on == 1
                    else "ending at once."
                )
                for running in active:
                    running.process.send_signal(signal.SIGINT)
            if signals.count:
                if not active:
                    raise CellsInterrupted
            else:
                _begin(waiting, active, jobs, busy, broken, progress, tell)
            progress.look([running.cell for running in active])
            time.sleep(_POLL)
        if signals.count:  # it came when the last cell had ended
            raise CellsInterrupted


def _begin(
    waiting: list[Cell],
    active: list[_Process],
    jobs: int,
    busy: set[int],
    broken: dict[str, str],
    progress: _Progress,
    tell: Callable[[str], None],
) -> None:
    """Start processes until there are enough; a cell that another process runs waits for that."""
    for cell in list(waiting):
        if len(active) >= jobs:
            return
        if cell.arm in broken:
            cell.failure = f"not run, since the arm can't be: {broken[cell.arm]}"
            waiting.remove(cell)
            progress.ended(cell)
            continue
        state = cell.state()
        if state == "running":
            if id(cell) not in busy:
                tell(f"{cell.folder.name} is being run by another process; it is waited for.")
                busy.add(id(cell))
            continue
        waiting.remove(cell)
        if state == "done":
            progress.ended(cell)
        else:
            active.append(_start(cell))


def _start(cell: Cell) -> _Process:
    cell.log.parent.mkdir(parents=True, exist_ok=True)
    start = cell.log.stat().st_size if cell.log.exists() else 0
    environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(cell.threads))}
    with cell.log.open("ab") as log:
        # a group of its own, so that ctrl-C comes to this process alone, which passes it on once
        process = subprocess.Popen(
            cell.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, process_group=0
        )
    return _Process(cell, process, start)


def _settle(running: _Process, ending: bool) -> None:
    """Note why a cell failed."""
    cell, code = running.cell, running.process.returncode
    if cell.state() == "done" or ending:
        return
    with cell.log.open("rb") as log:
        log.seek(running.log_start)
        text = log.read().decode(errors="replace")
    errors = text.rpartition("alcore: error: ")[2].strip() if "alcore: error: " in text else ""
    if not errors and code == 0:
        with contextlib.suppress(ValueError):
            errors = unfinished(Run(cell.folder).meta()) or ""
    how = f"signal {-code} ended it" if code < 0 else f"it ended with exit code {code}"
    cell.failure = (errors or how).rstrip(".") + f"; its messages are in {cell.log}"


def _kill(active: Sequence[_Process]) -> None:
    """End what is left after an error of this process; labels that were committed are safe."""
    for running in active:
        running.process.kill()
        running.process.wait()


class _Signals:
    """Counts SIGINT and SIGTERM in place of what they do otherwise."""

    def __init__(self) -> None:
        self.count = self.passed_on = 0
        self.name = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.count, self.name = self.count + 1, signal.Signals(number).name


class _Progress:
    """One bar over all steps on a terminal, with the time left; a line a run elsewhere."""

    def __init__(self, cells: Sequence[Cell], tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._steps = {id(cell): 0 for cell in cells}
        usual = max((cell.steps for cell in cells if cell.steps is not None), default=1)
        self._most = {id(cell): cell.steps or usual for cell in cells}
        self._counts = {id(cell): cell.steps is not None for cell in cells}
        done = [cell for cell in cells if cell.state() == "done"]
        for cell in done:
            self._steps[id(cell)] = self._most[id(cell)]
        self._begun = sum(self._steps.values())
        self._ended, self._failed, self._all = len(done), 0, len(cells)
        self._start = self._looked = time.monotonic()
        self._bar = tqdm(
            total=sum(self._most.values()), initial=self._begun, unit="step", smoothing=0, file=sys.stderr,
            disable=None, ncols=_width(), nrows=20,
        )  # fmt: skip
        self._show()

    def look(self, active: Sequence[Cell]) -> None:
        """Read once a second how far the runs are."""
        if time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        for cell in active:
            if self._counts[id(cell)]:
                self._steps[id(cell)] = min(cell.steps_done(), self._most[id(cell)])
        self._show()

    def ended(self, cell: Cell) -> None:
        """Count a run that has ended."""
        self._steps[id(cell)] = self._most[id(cell)]
        self._ended += cell.failure is None
        self._failed += cell.failure is not None
        if cell.failure is not None:
            self._tell(f"{cell.folder.name} failed: {cell.failure}.")
        elif self._bar.disable:
            self._tell(f"{cell.folder.name} is done ({self._count()}{self._left()})")
        self._show()

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()

    def _show(self) -> None:
        self._bar.n, self._bar.ncols = sum(self._steps.values()), _width()
        self._bar.set_description(self._count(), refresh=False)
        self._bar.refresh()

    def _count(self) -> str:
        return f"{self._ended} of {self._all} runs" + (f", {self._failed} failed" if self._failed else "")

    def _left(self) -> str:
        done, total = sum(self._steps.values()), sum(self._most.values())
        if done <= self._begun or done >= total:
            return ""
        seconds = (time.monotonic() - self._start) / (done - self._begun) * (total - done)
        return f", about {rough_duration(seconds)} left"


def _width() -> int:
    """Return the width of the terminal now; tqdm's own way takes 0 where a terminal does not say."""
    return shutil.get_terminal_size().columns


def tell_above_bar(text: str) -> None:
    """Print a message on stderr, above a progress bar."""
    tqdm.write(f"alcore: {text}", file=sys.stderr)


def each_cell(arms: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Yield arm and seed of each cell, seed by seed, so that what is done at any time can be compared."""
    for seed in seeds:
        for arm in arms:
            yield arm, seed
