"""Observers with one fault each, and the contract test that each fails."""

from __future__ import annotations

import contextlib
import inspect
import logging
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from alcore_testing import ObserverContract, observer

from alcore import runhook
from alcore.hookspecs import Lifecycle


class Diary:
    """Writes a line a step into the run directory, each once, and knows the best accuracy so far."""

    def __init__(self) -> None:
        self.best = 0.0
        self.steps = 0

    @runhook
    def alcore_run_start(self, driver: Any) -> None:
        self.line(driver, "begins")

    @runhook
    def alcore_step_end(self, driver: Any, record: Mapping[str, Any]) -> None:
        self.steps += 1
        for records in record["metrics"].values():
            self.best = max([self.best, *(entry["accuracy"] for entry in records)])
        self.line(driver, f"{record['step']}: {record['labeled']} labels, best accuracy {self.best}")

    @runhook
    def alcore_run_end(self, driver: Any, reason: str | None, error: BaseException | None) -> None:
        self.line(driver, f"ends: {reason or error!r}")

    def line(self, driver: Any, text: str) -> None:
        path = driver.log_dir / "diary.txt"
        with path.open("a+", encoding="utf-8") as file:
            file.seek(0)
            if self.is_new(text, file.read().splitlines()):
                file.write(f"{text}\n")

    def is_new(self, text: str, lines: list[str]) -> bool:
        return text not in lines

    def state_dict(self) -> Mapping[str, Any]:
        return {"best": self.best, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best, self.steps = state["best"], state["steps"]


class TestDiary(ObserverContract):
    def make(self, **parameters: Any) -> Any:
        return Diary(**parameters)


class Server:
    """A stand-in for a server: posts by run."""

    def __init__(self) -> None:
        self.posts: dict[str, list[tuple[Any, ...]]] = {}

    def post(self, run: str, step: int, accuracy: float) -> None:
        self.posts.setdefault(run, []).append((step, accuracy))


class Poster:
    """Posts each step to a server, unless it is there."""

    def __init__(self, server: Server) -> None:
        self.server = server

    @runhook
    def alcore_step_end(self, driver: Any, record: Mapping[str, Any], replayed: bool) -> None:
        there = [step for step, _ in self.server.posts.get(driver.run_id, ())]
        if self.wants(record["step"], there, replayed):
            figures = [entry["accuracy"] for records in record["metrics"].values() for entry in records]
            self.server.post(driver.run_id, record["step"], max(figures, default=0.0))

    def wants(self, step: int, there: list[int], replayed: bool) -> bool:
        return step not in there


class TestPoster(ObserverContract):
    @pytest.fixture(autouse=True)
    def server(self) -> Server:
        self._server = Server()
        return self._server

    def make(self, **parameters: Any) -> Any:
        return Poster(self._server)

    def posted(self, driver: Any) -> Any:
        return self._server.posts.get(driver.run_id, [])


class PostsTwice(Poster):
    """It posts each step that it is told of, once more where a step is run again."""

    words = "resumed, it posts (0, "

    def wants(self, step: int, there: list[int], replayed: bool) -> bool:
        return True


class LeavesOutWhatIsReplayed(Poster):
    """It leaves out steps that are run again, also one whose end it has never been told of."""

    words = "resumed, it leaves out ("

    def wants(self, step: int, there: list[int], replayed: bool) -> bool:
        return not replayed and step not in there


class CutsOffEarlier(Poster):
    """It has a state, so that it is told once more of the step that a resumed run goes on from, and posts it again."""

    words = "resumed, it posts (1, "

    def state_dict(self) -> Mapping[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass

    def wants(self, step: int, there: list[int], replayed: bool) -> bool:
        return True


@pytest.mark.parametrize("mutant", [PostsTwice, CutsOffEarlier])
@pytest.mark.parametrize("says_so", [False, True])
def test_contract_finds_what_is_posted_twice(errors_of: Any, mutant: Any, says_so: bool) -> None:
    members = {"make": lambda self: mutant(self._server), "_server": Server(), "may_repeat": says_so}
    errors = errors_of(type("Claimed", (TestPoster,), members), "test_resumed_run_posts_each_step_once")
    assert bool(errors) != says_so
    assert says_so or any(mutant.words in error for error in errors), errors


@pytest.mark.parametrize("says_so", [False, True])
def test_contract_finds_what_is_not_posted(errors_of: Any, says_so: bool) -> None:
    members = {"make": lambda self: LeavesOutWhatIsReplayed(self._server), "_server": Server(), "may_repeat": says_so}
    errors = errors_of(type("Claimed", (TestPoster,), members), "test_resumed_run_posts_each_step_once")
    assert any(LeavesOutWhatIsReplayed.words in error for error in errors), errors


def test_contract_wants_to_see_what_is_sent_elsewhere(errors_of: Any) -> None:
    class Connects(Poster):
        def wants(self, step: int, there: list[int], replayed: bool) -> bool:
            with socket.socket() as line, contextlib.suppress(OSError):
                line.connect(("127.0.0.1", 1))
            return False

    contract = type("Claimed", (ObserverContract,), {"make": lambda _self: Connects(Server())})
    errors = errors_of(contract, "test_resumed_run_posts_each_step_once")
    assert errors
    assert all("it connects to ('127.0.0.1', 1); override posted()" in error for error in errors)


class Mutant(Diary):
    test, words = "", ""


class HasNoHook:
    """Its methods are not marked."""

    test, words = "test_observer_has_a_run_hook", "implements no run hook"

    def alcore_step_end(self, driver: Any) -> None:
        pass


class DecidesTheEnd(Mutant):
    """It ends the run too, in a hook that stop criteria have."""

    test, words = "test_observer_has_a_run_hook", "is a stop criterion too"

    @runhook
    def alcore_should_stop(self, driver: Any) -> str | None:
        return None


class ReseedsAtEachStep(Mutant):
    """It draws from torch's global generator, from which dropout draws in the next training."""

    test, words = "test_run_equals_one_without_it", "it changes what the run decides"

    def line(self, driver: Any, text: str) -> None:
        super().line(driver, f"{text} {torch.rand(1).item()}")


class LabelsBehindTheBack(Mutant):
    """It appends a sample to the training pool."""

    test, words = "test_run_equals_one_without_it", "it changes what the run decides"

    @runhook
    def alcore_run_start(self, driver: Any) -> None:
        driver.train_datapool.append(int(driver.train_datapool.unlabeled_indices()[-1]))


class LeavesEvalMode(Mutant):
    """It looks at outputs in eval mode, and leaves the learner in it."""

    test, words = "test_hooks_leave_everything_as_it_was", "learner's modes"

    def line(self, driver: Any, text: str) -> None:
        driver.learner.eval()


class RoundsRecords(Mutant):
    """It rounds the record of the step where it is."""

    test, words = "test_hooks_leave_everything_as_it_was", "it wrote to records"

    @runhook
    def alcore_step_end(self, driver: Any, record: dict[str, Any]) -> None:
        record["step"] = str(record["step"])


class AsksForLabels(Mutant):
    """It puts a sample into the query queue."""

    test, words = "test_hooks_leave_everything_as_it_was", "asked for labels"

    def line(self, driver: Any, text: str) -> None:
        driver.query_queue.put(int(next(driver.candidates())[0]))


class NeedsMetrology(Mutant):
    """It takes for granted that something is measured."""

    test, words = "test_no_hook_raises", "IndexError"

    @runhook
    def alcore_step_end(self, driver: Any, record: Mapping[str, Any]) -> None:
        self.best = driver.metrology_strategies[0].records[-1]["accuracy"]


class NeedsLosses(Mutant):
    """It takes for granted that the step trained."""

    test, words = "test_no_hook_raises", "KeyError: 'losses'"

    @runhook
    def alcore_step_end(self, driver: Any, record: Mapping[str, Any]) -> None:
        self.best = record["losses"]["loss"]


class NeedsAReason(Mutant):
    """It takes for granted that a run ends by a reason, and not by an error."""

    test, words = "test_no_hook_raises", "AttributeError"

    @runhook
    def alcore_run_end(self, driver: Any, reason: Any, error: BaseException | None) -> None:
        self.line(driver, reason.upper())


class ForgetsItsState(Mutant):
    """The best accuracy isn't taken back."""

    test, words = "test_restored_state_is_the_same", "not what it was given back"

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class DrawsAtAResume(Mutant):
    """It draws from the global generator when its file is there already."""

    test, words = "test_resumed_run_equals_uninterrupted_run", "it differs from the run without a break"

    @runhook
    def alcore_run_start(self, driver: Any) -> None:
        if (driver.log_dir / "diary.txt").exists():
            torch.rand(1)


class WritesAStepTwice(Mutant):
    """It writes a line for each step that it is told of, and of some it is told twice."""

    test, words = "test_resumed_run_posts_each_step_once", "resumed, it posts ('diary.txt', '1: "

    def is_new(self, text: str, lines: list[str]) -> bool:
        return True


class SkipsReplayedSteps(Mutant):
    """It counts only the steps that are not replayed, and its state is from before they were told of."""

    test, words = "test_resumed_run_equals_uninterrupted_run", "its state at the end is"

    @runhook
    def alcore_step_end(self, driver: Any, record: Mapping[str, Any], replayed: bool) -> None:
        self.steps += not replayed


class BreaksAtAResume(Mutant):
    """Its file must not be there when the run starts."""

    test, words = "test_resumed_run_equals_uninterrupted_run", "raised in alcore_run_start"

    @runhook
    def alcore_run_start(self, driver: Any) -> None:
        (driver.log_dir / "diary.txt").open("x").close()


class WritesWhereTheUserStands(Mutant):
    """Its file goes to the current folder."""

    test, words = "test_nothing_is_left_behind", "it writes where the user stands"

    def line(self, driver: Any, text: str) -> None:
        Path("diary.txt").write_text(text, encoding="utf-8")


class LeavesAThread(Mutant):
    """A thread that sends lines goes on after the run."""

    test, words = "test_nothing_is_left_behind", "threads go on after the run"
    done: ClassVar[threading.Event] = threading.Event()

    @runhook
    def alcore_run_start(self, driver: Any) -> None:
        threading.Thread(target=self.done.wait, args=(60,), daemon=True).start()


class LeavesAHandler(Mutant):
    """A handler on the root log stays there."""

    test, words = "test_nothing_is_left_behind", "handler on the root log"

    @runhook
    def alcore_run_start(self, driver: Any) -> None:
        logging.getLogger().addHandler(logging.NullHandler())


class KeepsOneRunForAll(Mutant):
    """What run it observes is kept for the class, so that a second run takes the place of the first."""

    test, words = "test_two_runs_of_one_process_do_not_mix", "AssertionError"
    run: ClassVar[list[str]] = []

    @runhook
    def alcore_run_start(self, driver: Any) -> None:
        self.run[:] = [driver.run_id]

    def line(self, driver: Any, text: str) -> None:
        assert self.run == [driver.run_id]


MUTANTS: list[Any] = [HasNoHook, *Mutant.__subclasses__()]


@pytest.fixture(autouse=True)
def _cleaned_up() -> Any:
    handlers = list(logging.getLogger().handlers)
    yield
    logging.getLogger().handlers[:] = handlers
    LeavesAThread.done.set()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.__name__)
def test_contract_finds_the_mutant(mutant: Any, check_mutant: Any) -> None:
    LeavesAThread.done.clear()
    check_mutant(TestDiary, mutant)


def test_each_test_has_a_mutant(check_each_test_has_a_mutant: Any) -> None:
    check_each_test_has_a_mutant(ObserverContract, MUTANTS)


@pytest.mark.parametrize("stand_in", [observer._Watched, observer._OutsideOfSteps])
def test_what_stands_between_run_and_observer_passes_every_hook_on(stand_in: Any) -> None:
    for hook in observer.HOOKS:
        given = inspect.signature(getattr(Lifecycle, hook)).parameters
        passed = inspect.signature(getattr(stand_in, hook)).parameters
        assert list(passed) == list(given), hook
