"""How far a reader has to go: the calls that three ways through alcore take, and how often they change the file.

``python tests/project/ways.py`` prints a JSON line for each way, measured in a process of its own:

- ``sample``: one sample id, from the `put_many` of the query queue to the label that was appended to the pool;
- ``parameter``: ``--set query.uq.max_samples=5``, from the function of ``alcore run`` to the strategy's constructor;
- ``resume``: `Driver.restore` of a run of two steps.

Each line has ``moves`` (how often a call is in another file than the call before), ``files``, ``functions`` and
``calls`` of core and plugins together; ``core_moves`` and ``core_files``, as if no call were in a plugin; and
``caller_moves``, the moves among those calls of core that themselves call another file of core: a call into a helper
and back is no move. What runs when a module is imported, and what stands in other libraries, is left out.

``ways.json`` beside this file has ``caller_moves`` as they are meant to be, and `test_ways.py` fails where one is more
than 10 percent higher: shorten the way, or write the file anew (``python tests/project/ways.py --write``) in a commit
that says why it rose. The other figures are only printed.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import inspect
import io
import itertools
import json
import os
import queue
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any
from unittest import mock

import alcore

WAYS = ("sample", "parameter", "resume")


@dataclass(eq=False)
class Call:
    """A call in core or a plugin, and whether it called another file of core."""

    code: CodeType
    is_caller: bool = False

    @property
    def place(self) -> str:
        return _place(self.code.co_filename)

    @property
    def is_in_core(self) -> bool:
        return self.place.startswith("alcore/")


class Walk:
    """Records the calls in core and plugins between `start` and `stop`."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._open: dict[FrameType, Call] = {}
        self._importing = 0  # how many modules are being imported, one inside the other

    def start(self) -> None:
        sys.setprofile(self._see)

    def stop(self) -> None:
        sys.setprofile(None)
        self._open.clear()

    def _see(self, frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        if code.co_name == "<module>" and event in ("call", "return"):
            self._importing += 1 if event == "call" else -1
        if event == "return":
            self._open.pop(frame, None)
        if (
            event == "call"
            and not self._importing
            and code.co_flags & inspect.CO_OPTIMIZED
            and _place(code.co_filename)
        ):
            call = self._open[frame] = Call(code)
            caller = self._open.get(frame.f_back) if frame.f_back is not None else None
            if caller is not None and call.is_in_core and call.place != caller.place:
                caller.is_caller = True
            self.calls.append(call)

    def figures(self) -> dict[str, Any]:
        """Return what was counted."""
        core = [call for call in self.calls if call.is_in_core]
        return {
            "moves": _moves(self.calls),
            "files": len({call.place for call in self.calls}),
            "functions": len({call.code for call in self.calls}),
            "calls": len(self.calls),
            "core_moves": _moves(core),
            "core_files": len({call.place for call in core}),
            "caller_moves": _moves(call for call in core if call.is_caller),
        }


def _moves(calls: Iterable[Call]) -> int:
    return sum(call.place != after.place for call, after in itertools.pairwise(calls))


@functools.cache
def _place(file: str) -> str:
    """Return a file as ``alcore/...`` or ``alcore_uq/...``; nothing for files of other libraries and of this script."""
    parts = Path(file).parts
    inside = [at for at, part in enumerate(parts) if part == "alcore" or part.startswith("alcore_")]
    return "/".join(parts[inside[-1] :]) if inside and file != __file__ else ""


def driver_of(root: str, max_samples: int, walk: Walk | None = None, *, steps: int = 2) -> Any:
    """Return a Driver of the two-moons problem; `walk` goes from the `put_many` of its query to an append."""
    driver, config = alcore.Driver, alcore.config  # loads torch, which the command needs not
    import torch
    from alcore_dummy import DummyLabelStrategy
    from alcore_f1 import F1Metrology
    from alcore_moons import MLP, MoonsPool
    from alcore_torchloop import DefaultTrainingLoop
    from alcore_uq import ClassifierUQQuery

    class Query(ClassifierUQQuery):
        def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
            if walk is None:
                super().sample(query_queue, *args, **kwargs)
                return
            put_many = query_queue.put_many

            def start_and_put(*items: Any) -> None:
                walk.start()
                put_many(*items)

            with mock.patch.object(query_queue, "put_many", start_and_put):
                super().sample(query_queue, *args, **kwargs)

    class Pool(MoonsPool):
        def append(self, item: Any) -> None:
            super().append(item)
            if walk is not None:
                walk.stop()

    torch.manual_seed(0)
    return driver(
        config.DriverConfig(
            batch_size=16, max_active_learning_steps=steps, run_id="ways", root_log_dir=root, seed=0, device="cpu"
        ),
        MLP(),
        config.StrategiesConfig([Query(max_samples=max_samples)], queue.Queue, DummyLabelStrategy(), [F1Metrology()]),
        config.TrainingConfig(
            Pool(seed=0),
            optimizer_config=config.OptimizerConfig(torch.optim.SGD, {"lr": 0.01}),
            max_training_epochs=1,
            train_loop_fn=DefaultTrainingLoop(use_progress_bars=False),
        ),
    )


def walk_sample(root: str) -> Walk:
    walk = Walk()
    driver = driver_of(root, 1, walk, steps=1)
    driver.run()
    return walk


class Arrived(BaseException):
    """The constructor was reached."""


def walk_parameter(root: str) -> Walk:
    from alcore_uq import ClassifierUQQuery

    walk, made = Walk(), ClassifierUQQuery.__init__

    @functools.wraps(made)
    def arrive(self: Any, *args: Any, **kwargs: Any) -> None:
        walk.stop()
        raise Arrived

    ClassifierUQQuery.__init__ = arrive  # type: ignore[method-assign]
    os.chdir(root)
    sys.argv = ["alcore", "run", "--query", "uq", "--metrology", "f1", "--set", "query.uq.max_samples=5"]
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="alcore")
    main: Callable[[], Any] = command.load()
    with contextlib.suppress(Arrived), contextlib.redirect_stderr(io.StringIO()):
        walk.start()
        main()
    places = [call.place for call in walk.calls]
    walk.calls = walk.calls[places.index("alcore/cli/run.py") :]  # before it, the command line is read
    return walk


def walk_resume(root: str) -> Walk:
    driver_of(root, 3).run()
    walk, driver = Walk(), driver_of(root, 3, steps=3)
    walk.start()
    driver.restore()
    walk.stop()
    return walk


def measured() -> Iterator[dict[str, Any]]:
    """Yield the figures of each way, measured in a fresh process."""
    for way in WAYS:
        done = subprocess.run([sys.executable, __file__, way], capture_output=True, text=True, check=True)
        yield json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        figures = {line["way"]: {"caller_moves": line["caller_moves"]} for line in measured()}
        lines = ",\n".join(f'"{way}": {json.dumps(line)}' for way, line in figures.items())
        Path(__file__).with_suffix(".json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    elif len(sys.argv) > 1:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps({"way": sys.argv[1], **globals()[f"walk_{sys.argv[1]}"](folder).figures()}))
    else:
        for line in measured():
            print(json.dumps(line), flush=True)
