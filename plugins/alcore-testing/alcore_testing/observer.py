"""The contract of observers."""

from __future__ import annotations

import collections
import contextlib
import copy
import inspect
import logging
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pluggy
import pytest
import torch

from alcore import Driver, Phase, runhook
from alcore.hookspecs import Lifecycle
from alcore.protocols import EndReason
from alcore.randomness import preserve_rng_state, seed_everything
from alcore_testing.contract import Contract
from alcore_testing.drivers import ToyDriver, build_driver, whole_and_resumed
from alcore_testing.essence import checkpoint_differences, differences, essence_of
from alcore_testing.plain import same, text_of
from alcore_testing.toys import ToyMetrology, toy_loss, toy_pool
from alcore_testing.watch import untouched

STEPS = 3
HOOKS = tuple(name for name in vars(Lifecycle) if name.startswith("alcore_") and name != "alcore_should_stop")


class ObserverContract(Contract):
    """What every observer promises: it looks on, in runs of every kind, and changes nothing.

    Override ``make(**parameters)``, and say what is claimed: `name`, `may_repeat`, and `state_is_of_the_run`, False
    where the ``state_dict`` holds times, or counts how often a run was resumed, so that a resumed run need not end with
    the state of an uninterrupted one. An observer that writes into the run directory keeps to ``driver.log_dir``; for
    one that posts elsewhere, override ``posted(driver)``. The toy run measures ``accuracy``, ``f1`` and ``score`` by a
    `ToyMetrology`.

    Examples
    --------
    >>> class TestMyObserver(ObserverContract):
    ...     name = "mine"
    ...     def make(self, **parameters):
    ...         return MyObserver(**parameters)
    """

    kind = "observe"
    state_is_of_the_run = True

    may_repeat: ClassVar[bool] = False
    """In a run that was resumed it may post a step once more, since it can't look up what it has posted before."""

    def posted(self, driver: Driver) -> Sequence[Any]:
        """Return what was posted of a run so far, by the observers of all processes that worked on it.

        Override it where posts go elsewhere than into the run directory: return what the server has of this run, or
        what a stand-in for it received. Leave out times, which are others in each run.

        Returns
        -------
        sequence
            Each post, as data. By default the lines of text files in the run directory that core doesn't write, each
            with its file.
        """
        files = {name for name in self._files(driver.log_dir) if not name.startswith("ckpt/")} - self._files_of_core
        return [(name, line) for name in sorted(files) for line in _lines(driver.log_dir / name)]

    _files_of_core: frozenset[str] = frozenset()

    @staticmethod
    def _files(folder: Path) -> list[str]:
        return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]

    def build(self, folder: Path, *observers: Any, plugins: Any = (), **settings: Any) -> ToyDriver:
        """Return a driver of the toy run."""
        given: dict[str, Any] = {"metrology": [ToyMetrology()], "max_active_learning_steps": STEPS}
        return build_driver(folder, plugins=[*observers, *plugins], **{**given, **settings})

    def test_observer_has_a_run_hook(self, tmp_path: Path) -> None:
        """It has a method that is marked as a run hook, and the Driver takes it; it decides nothing."""
        observer = self.one()
        self.build(tmp_path, observer)
        hooks = {name for name in dir(observer) if hasattr(inspect.getattr_static(observer, name), "alcore_run_impl")}
        assert hooks & set(HOOKS), f"no method is marked @alcore.runhook; the hooks are {', '.join(HOOKS)}"
        assert "alcore_should_stop" not in hooks, (
            "it is a stop criterion too: that is what StopCriterionContract is for"
        )

    def test_run_equals_one_without_it(self, tmp_path: Path) -> None:
        """A run that it observes decides the same as one without it: requests, labels, records, steps, checkpoints."""
        folders = []
        for name, observers in (("with", [self.one()]), ("without", [])):
            with preserve_rng_state():
                seed_everything(0)
                driver = self.build(tmp_path / name, *observers)
                driver.run(toy_loss)
            folders.append(driver.log_dir)
        lines = _differences(*folders)
        assert not lines, f"it changes what the run decides: {'; '.join(lines)}"

    def test_hooks_leave_everything_as_it_was(self, tmp_path: Path) -> None:
        """No hook touches learner, pools, generators, the settings of torch, records, or what it is given."""
        watched = _Watched(self.one(), untouched)
        with preserve_rng_state():
            self.build(tmp_path, watched).run(toy_loss)
        assert watched.called, "none of its hooks was called"
        assert not watched.faults, watched.faults[0]

    @pytest.mark.parametrize(
        "run", ["plain", "without-training", "without-metrology", "cold-start", "interrupted", "failed"]
    )
    def test_no_hook_raises(self, tmp_path: Path, run: str) -> None:
        """Whatever a run does without, and however it ends, no hook raises."""
        settings: dict[str, dict[str, Any]] = {
            "without-training": {"skip_training": True},
            "without-metrology": {"metrology": []},
            "cold-start": {"pool": toy_pool("classes", labeled=()), "skip_training": True},
        }
        ends: dict[str, type[BaseException]] = {"interrupted": KeyboardInterrupt, "failed": ZeroDivisionError}
        watched = _Watched(self.one())
        driver = self.build(tmp_path, watched, **settings.get(run, {}))

        def loss(model: Any, batch: Any) -> torch.Tensor:
            if run in ends and driver.active_learning_step_idx == 1:
                raise ends[run]("as the test wants")
            return toy_loss(model, batch)

        with contextlib.suppress(KeyboardInterrupt, ZeroDivisionError):
            driver.run(loss)
        assert watched.called, "none of its hooks was called"
        assert not watched.faults, watched.faults[0]

    def test_resumed_run_equals_uninterrupted_run(self, tmp_path: Path) -> None:
        """A run that was interrupted and resumed decides the same as one that was not, and no hook raises.

        Its state is the same at the end, too: of each step it was told once, or once more with ``replayed=True``.
        """
        observers = []

        def build(folder: Path, **settings: Any) -> Driver:
            observers.append(self.one())
            return self.build(folder, observers[-1], **settings)

        whole, resumed = whole_and_resumed(build, tmp_path, 1, Phase.LABELING, toy_loss)
        lines = _differences(resumed.log_dir, whole.log_dir)
        assert not lines, f"resumed, it differs from the run without a break in {'; '.join(lines)}"
        for driver in (whole, resumed):
            log = (driver.log_dir / "console.log").read_text(encoding="utf-8")
            raised = [line for line in log.splitlines() if " raised in alcore_" in line]
            assert not raised, raised[0]
        if self.state_is_of_the_run and callable(getattr(observers[0], "state_dict", None)):
            states = [dict(observer.state_dict()) for observer in (observers[0], observers[-1])]
            assert same(*states), f"resumed, its state at the end is {states[1]!r:.200}, and {states[0]!r:.200} without"

    @pytest.mark.parametrize("interval", [1, 2], ids=["each step saved", "a step run again"])
    def test_resumed_run_posts_each_step_once(self, tmp_path: Path, monkeypatch: Any, interval: int) -> None:
        """What it posts of steps (`posted`) is the same in a run that was resumed: each once, none lost.

        What is posted as a run starts and ends doesn't count, since a resumed one does so twice.
        """
        connected = _watch_connections(monkeypatch)
        plain = self.build(tmp_path / "plain")
        plain.run(toy_loss)
        self._files_of_core = frozenset(self._files(plain.log_dir))
        others: list[str] = []

        def build(folder: Path, **settings: Any) -> Driver:
            around = _OutsideOfSteps(self.one(), self.posted, others)
            return self.build(folder, around, checkpoint_interval=interval, **settings)

        whole, resumed = whole_and_resumed(build, tmp_path, STEPS - interval, Phase.LABELING, toy_loss)
        there, here = (collections.Counter(map(repr, self.posted(driver))) for driver in (whole, resumed))
        assert there or not connected, f"it connects to {connected[0]}; override posted() to say what it posts"
        lost = [post for post in there - here if post not in others]
        assert not lost, f"resumed, it leaves out {lost[0]}"
        twice = [post for post in here - there if post not in others]
        assert self.may_repeat or not twice, (
            f"resumed, it posts {twice[0]} {here[twice[0]]} times, and {there[twice[0]]} times without a break"
        )

    def test_restored_state_is_the_same(self, tmp_path: Path) -> None:
        """If it has a state, a fresh object that is given it back has it too."""
        observer, fresh = self.one(), self.one()
        self.build(tmp_path, observer).run(toy_loss)
        if not callable(getattr(observer, "state_dict", None)):
            return
        state = dict(observer.state_dict())
        fresh.load_state_dict(copy.deepcopy(state))
        assert same(dict(fresh.state_dict()), state), "its state is not what it was given back"

    def test_nothing_is_left_behind(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """After the run there is no file where the user stands, no thread of its own, no handler on the root log."""
        here = tmp_path / "here"
        here.mkdir()
        monkeypatch.chdir(here)
        threads, handlers = set(threading.enumerate()), list(logging.getLogger().handlers)
        self.build(tmp_path / "runs", self.one()).run(toy_loss)
        assert not list(here.iterdir()), f"it writes where the user stands: {[path.name for path in here.iterdir()]}"
        left = [thread.name for thread in set(threading.enumerate()) - threads if thread.is_alive()]
        assert not left, f"threads go on after the run: {', '.join(left)}"
        assert logging.getLogger().handlers == handlers, "it leaves a handler on the root log"

    def test_two_runs_of_one_process_do_not_mix(self, tmp_path: Path) -> None:
        """Two observers of two runs at once, which is how experiments are compared, raise nothing either."""
        watched = [_Watched(self.one()) for _ in range(2)]
        drivers = [self.build(tmp_path / str(place), one) for place, one in enumerate(watched)]
        with contextlib.ExitStack() as runs:
            for driver in drivers:
                runs.enter_context(driver.session(toy_loss))
            for _ in range(2):
                for driver in drivers:
                    driver.active_learning_step(toy_loss)
        assert drivers[0].log_dir != drivers[1].log_dir
        assert not (faults := watched[0].faults + watched[1].faults), faults[0]


def _lines(path: Path) -> list[str]:
    """Return the lines of a text file; none of a file that is no text."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        return []


def _watch_connections(monkeypatch: Any) -> list[Any]:
    """Return a list to which the address of each connection is added that is opened from now on."""
    addresses: list[Any] = []
    for name in ("connect", "connect_ex", "sendto"):
        method = getattr(socket.socket, name)

        def watched(self: Any, *args: Any, method: Any = method) -> Any:
            addresses.append(args[-1])
            return method(self, *args)

        monkeypatch.setattr(socket.socket, name, watched)
    return addresses


def _differences(folder: Path, other: Path) -> list[str]:
    """Name what differs between two runs, except in the states of their observers."""
    essences = [essence_of(run_folder) for run_folder in (folder, other)]
    files = [list(essence.pop("checkpoints")) for essence in essences]
    lines = differences(*essences) + ([] if files[0] == files[1] else [f"checkpoints: {files[0]}, not {files[1]}"])
    for file in files[0]:
        names = checkpoint_differences(folder / "ckpt" / file, other / "ckpt" / file)
        lines += [f"{name} in {file}" for name in names if name.partition(".")[0] != "plugins"]
    return lines


def _seen(driver: Any, arguments: Mapping[str, Any]) -> str:
    """Return as text what a hook can look at and mustn't write to."""
    records = [strategy.records for strategy in driver.metrology_strategies]
    return text_of([records, arguments.get("record"), driver.query_queue.qsize(), driver.query_queue.dropped])


class _OutsideOfSteps:
    """Calls the hooks of an observer, and notes what it posts as the run starts and ends."""

    def __init__(self, observer: Any, posted: Callable[[Any], Sequence[Any]], noted: list[str]) -> None:
        self._observer, self._posted, self._noted = observer, posted, noted
        for name in ("state_dict", "load_state_dict"):  # where it has a state
            if callable(getattr(observer, name, None)):
                setattr(self, name, getattr(observer, name))
        manager = pluggy.PluginManager(runhook.project_name)
        manager.add_hookspecs(Lifecycle)
        manager.register(observer)
        self._hook = manager.hook

    def _outside(self, hook: str, driver: Any, **arguments: Any) -> None:
        before = collections.Counter(map(repr, self._posted(driver)))
        getattr(self._hook, hook)(driver=driver, **arguments)
        self._noted += collections.Counter(map(repr, self._posted(driver))) - before

    @runhook
    def alcore_run_start(self, driver: Any) -> None:
        """Call the observer."""
        self._outside("alcore_run_start", driver)

    @runhook
    def alcore_phase_start(self, driver: Any, phase: Phase, replayed: bool) -> None:
        """Call the observer."""
        self._hook.alcore_phase_start(driver=driver, phase=phase, replayed=replayed)

    @runhook
    def alcore_phase_end(self, driver: Any, phase: Phase, error: BaseException | None, replayed: bool) -> None:
        """Call the observer."""
        self._hook.alcore_phase_end(driver=driver, phase=phase, error=error, replayed=replayed)

    @runhook
    def alcore_step_end(self, driver: Any, record: Any, replayed: bool) -> None:
        """Call the observer."""
        self._hook.alcore_step_end(driver=driver, record=record, replayed=replayed)

    @runhook
    def alcore_run_end(self, driver: Any, reason: str | None, error: BaseException | None) -> None:
        """Call the observer."""
        self._outside("alcore_run_end", driver, reason=reason, error=error)


class _Watched:
    """An observer that calls the hooks of another one, and notes what they touch and raise."""

    def __init__(
        self, observer: Any, around: Callable[[Any], contextlib.AbstractContextManager[None]] | None = None
    ) -> None:
        self._manager = pluggy.PluginManager(runhook.project_name)
        self._manager.add_hookspecs(Lifecycle)
        self._manager.register(observer)
        self._around = around
        self.called: list[str] = []
        self.faults: list[str] = []

    def _call(self, hook: str, driver: Any, **arguments: Any) -> None:
        implementations = getattr(self._manager.hook, hook).get_hookimpls()
        if not implementations:
            return
        self.called.append(hook)
        before = _seen(driver, arguments)
        try:
            with contextlib.nullcontext() if self._around is None else self._around(driver):
                getattr(self._manager.hook, hook)(driver=driver, **arguments)
            assert _seen(driver, arguments) == before, (
                "it wrote to records or to what it was given, or asked for labels"
            )
        except Exception as error:  # noqa: BLE001 - it is what is looked for
            self.faults.append(f"{hook}: {type(error).__name__}: {error}")

    @runhook
    def alcore_run_start(self, driver: Any) -> None:
        """Call the other one."""
        self._call("alcore_run_start", driver)

    @runhook
    def alcore_phase_start(self, driver: Any, phase: Phase, replayed: bool) -> None:
        """Call the other one."""
        self._call("alcore_phase_start", driver, phase=phase, replayed=replayed)

    @runhook
    def alcore_phase_end(self, driver: Any, phase: Phase, error: BaseException | None, replayed: bool) -> None:
        """Call the other one."""
        self._call("alcore_phase_end", driver, phase=phase, error=error, replayed=replayed)

    @runhook
    def alcore_step_end(self, driver: Any, record: Any, replayed: bool) -> None:
        """Call the other one."""
        self._call("alcore_step_end", driver, record=record, replayed=replayed)

    @runhook
    def alcore_run_end(self, driver: Any, reason: EndReason | None, error: BaseException | None) -> None:
        """Call the other one."""
        self._call("alcore_run_end", driver, reason=reason, error=error)
