"""Nothing is decided by the sentence for which a run ended: not its status, the exit code, a resume, or advice."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alcore_testing import run_command
from helpers.tampering import forged

from alcore.codec import dumps
from alcore.protocols import EndKind, EndReason
from alcore.store.reading import Run, summaries

PARTS = """
import alcore
from alcore import Failed, Label
from alcore.errors import Waiting
from alcore.strategies import BaseLabel


class Lab(BaseLabel):
    idempotent = True

    def label(self, queue_to_label, serialize_queue, *args, **kwargs):
        while not queue_to_label.empty():
            request = queue_to_label.get_request()
            serialize_queue.put(self.answer(request))


class Broken(Lab):
    def answer(self, request):
        return Failed(request, "the node is down")


class Hopeless(Lab):
    def answer(self, request):
        return Failed(request, "no such shape", "infeasible")


class Shapeless(Lab):
    def answer(self, request):
        return Label(request, [1.0, 2.0, 3.0])


class Late(BaseLabel):
    def label(self, queue_to_label, serialize_queue, *args, **kwargs):
        pass


class Absent(BaseLabel):
    waits = True

    def label(self, queue_to_label, serialize_queue, *args, **kwargs):
        raise Waiting("the lab is closed")


class Enough:
    @alcore.runhook
    def alcore_should_stop(self, driver):
        return "enough" if driver.active_learning_step_idx == 1 else None
"""
START = ("--start", "random", "--set", "start.random.max_samples=6", "--set", "data.moons.initial=0")
RUNS: dict[EndKind, tuple[str, ...]] = {
    EndKind.STEPS: ("--steps", "2"),
    EndKind.CRITERION: ("--steps", "4", "--stop", "parts:Enough"),
    EndKind.BUDGET: ("--steps", "8", "--budget", "15.5"),
    EndKind.POOL: ("--steps", "8", "--set", "data.moons.samples=30"),
    EndKind.WAITING: ("--steps", "2", "--label", "parts:Absent"),
    EndKind.START_WAITING: ("--steps", "2", "--label", "parts:Late", *START),
    EndKind.START_FAILED: (
        "--steps", "8", "--label", "parts:Hopeless", *START, "--set", "data.moons.samples=20",
        "--set", "start.random.max_samples=20",
    ),
    EndKind.LABELS_FAIL: ("--steps", "2", "--label", "parts:Broken"),
    EndKind.LABELS_REFUSED: ("--steps", "2", "--label", "parts:Shapeless", "--set", "query.uq.max_samples=3"),
}  # fmt: skip
EXIT_CODES = {"done": 0, "failed": 1, "waiting": 3}
MISLEADING = [
    "all 3 steps are done", "the budget of 2 is spent", "waiting for labels: job 7", "labels keep failing: 5 of 5",
    "nothing is labeled yet, and the requests of the start are open", "good enough", "",
]  # fmt: skip
QUICK = (
    "--query",
    "uq",
    "--metrology",
    "f1",
    "--set",
    "training.max_training_epochs=1",
    "--seed",
    "1",
    "--run-id",
    "r",
)


def what_happened(folder: Path, *, forge: Callable[[Path], None] = lambda folder: None) -> list[Any]:
    """Run, then resume twice; return exit codes, statuses, what was decided, and whether one is told to resume."""
    found: list[Any] = []
    (kind,) = (kind for kind in RUNS if folder.name.startswith(kind.value + "+"))
    for words in (["run", *QUICK, *RUNS[kind]], *[["resume", "r", "--allow-code"]] * 2):
        done = run_command(folder, *words)
        run = Run(folder / "active_learning_logs" / "r")
        advice = ["alcore resume" in done.err, "alcore tell" in done.out, "has ended already" in done.err]
        status = next(summaries(folder / "active_learning_logs")).status
        found.append([done.code, status, run.meta()["end"], advice, run.decisions(), len(run.checkpoints())])
        forge(run.folder)
    return found


@pytest.mark.parametrize("kind", RUNS)
def test_text_of_the_reason_decides_nothing(kind: EndKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "parts.py").write_text(PARTS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    folders = [tmp_path / f"{kind.value}+{name}" for name in ("plain", "live", "stored")]
    for folder in folders:
        folder.mkdir()

    def call(folder: Path, **more: Any) -> list[Any]:
        monkeypatch.chdir(folder)
        return what_happened(folder, **more)

    plain = call(folders[0])
    code, status, end, *_ = plain[0]
    assert (code, status, end) == (EXIT_CODES[kind.status], kind.status, kind)
    assert plain[1][4] == plain[2][4] or kind in (EndKind.LABELS_FAIL, EndKind.LABELS_REFUSED)  # these try again

    sentences = itertools.cycle(MISLEADING)

    def forge(folder: Path) -> None:
        with forged(folder) as connection:
            connection.execute("UPDATE run SET value = ? WHERE key = 'reason'", (dumps(next(sentences)),))

    assert call(folders[2], forge=forge) == plain

    def misleading(self: EndReason, kind: EndKind, text: str) -> None:
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "text", next(sentences))

    monkeypatch.setattr(EndReason, "__init__", misleading)
    assert call(folders[1]) == plain
