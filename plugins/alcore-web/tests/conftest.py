"""Runs to look at."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from alcore_testing import ToyLabel, ToyMetrology, ToyQuery, build_driver, run_command

import alcore

EVIL = "<script>alert(1)</script> & 'x' \" \x1b[31m"


class FailingLabel(ToyLabel):
    """Give up the first request of each step with a reason, leave the second one, answer the others."""

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        """Do as the class says."""
        place = 0
        while not queue_to_label.empty():
            item = queue_to_label.get()
            place += 1
            if place == 1:
                serialize_queue.put(alcore.Failed(item, EVIL, kind="infeasible"))
            elif place != 2:
                serialize_queue.put(item)


class PacedLabel(ToyLabel):
    """Wait inside each labeling phase until it is let go on.

    Attributes
    ----------
    waits, go_on
        Set when the phase has begun, and what lets it go on.
    """

    def __init__(self) -> None:
        self.waits, self.go_on = threading.Event(), threading.Event()

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        """Wait, then answer."""
        self.waits.set()
        assert self.go_on.wait(60)
        self.go_on.clear()
        super().label(queue_to_label, serialize_queue)


class Boom:
    """Ends the run with an error in its second step."""

    @alcore.runhook
    def alcore_should_stop(self, driver: Any) -> None:
        """Raise."""
        if driver.active_learning_step_idx:
            raise RuntimeError(EVIL)


def toy(root: Path, run_id: str, steps: int = 3, **parts: Any) -> Any:
    """Return a driver of a toy problem with metrology."""
    return build_driver(
        root,
        ToyQuery(4),
        metrology=[ToyMetrology()],
        run_id=run_id,
        max_active_learning_steps=steps,
        **parts,
    )


class Paced:
    """A run in another thread, whose labeling phases wait.

    Parameters
    ----------
    root
        Where it is made, as ``live``.
    """

    def __init__(self, root: Path) -> None:
        self._label = PacedLabel()
        driver = toy(root, "live", steps=3, label=self._label)
        self._thread = threading.Thread(target=driver.run)
        self._thread.start()

    def wait(self) -> None:
        """Wait until the next labeling phase has begun."""
        assert self._label.waits.wait(60)
        self._label.waits.clear()

    def go_on(self) -> None:
        """Let it go on."""
        self._label.go_on.set()

    def end(self) -> None:
        """Let it go on to its end."""
        while self._thread.is_alive():
            self._label.go_on.set()
            self._thread.join(0.05)


@pytest.fixture
def paced(tmp_path):
    """A run that waits in the labeling phase of its first step."""
    run = Paced(tmp_path / "root")
    run.wait()
    yield run
    run.end()


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    """A folder of runs, which nothing changes: moons, one whose labels fail, one that failed, two in a folder."""
    folder = tmp_path_factory.mktemp("web")
    root = folder / "active_learning_logs"
    small = ["--set", "data.moons.samples=120", "--set", "query.uq.max_samples=7", "--steps", "3", "--quiet"]
    done = run_command(folder, "run", "--query", "uq", "--metrology", "f1", "--run-id", "moons", *small)
    assert done.code == 0, done.err
    toy(root, "reasons", label=FailingLabel(), max_failure_rate=1.0).run()
    with pytest.raises(RuntimeError):
        toy(root, "failed", plugins=[Boom()]).run()
    for name in ("uq-0", "uq-1"):
        toy(root / "bench", name, steps=1).run()
    return root


@pytest.fixture
def root(kept, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(kept, tmp_path / "root")
