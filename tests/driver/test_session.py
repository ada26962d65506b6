"""An open run: its phases, the record of its steps, and how it is closed."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alcore.distributed.ranks import Ranks
from alcore.driver.checkpointing import CheckpointSchedule
from alcore.driver.lifecycle import create_run, open_run
from alcore.driver.position import RunPosition
from alcore.driver.rank_scope import RankScope
from alcore.driver.run_log import WarnOnce
from alcore.driver.session import RunSession
from alcore.errors import UsageError
from alcore.protocols import EndKind, EndReason, Phase, Request
from alcore.store.reading import Run
from alcore.store.rows import AskedRequest, request_id

Open = Callable[..., RunSession]
ENOUGH = EndReason(EndKind.CRITERION, "enough")


@pytest.fixture
def told() -> list[tuple[str, dict[str, Any]]]:
    """What the listeners were told: the hook, and its arguments."""
    return []


@pytest.fixture
def begin(tmp_path: Path, told: list[Any]) -> Iterator[Open]:
    """Return a function that opens the run ``r``, and makes it first if it does not exist."""
    opened: list[RunSession] = []

    def new(step: int = 0, *, checkpoint_interval: int = 1, **more: Any) -> RunSession:
        ranks, logger = Ranks(), logging.getLogger("alcore.test_session")
        if (tmp_path / "r").exists():
            store = open_run(tmp_path, "r", ranks, other_ranks=False)
        else:
            store = create_run(tmp_path, "r", ranks, meta={}, experiment="", state={"step": 0})
        position = RunPosition("r")
        position.step = step
        listeners: Any = SimpleNamespace(call=lambda hook, **arguments: told.append((hook, arguments)))
        checkpointer: Any = SimpleNamespace(collect=dict)
        interruption: Any = SimpleNamespace(agreed_safe_point=lambda: None)
        labeling: Any = None
        opened.append(
            RunSession(
                store, position, logger, WarnOnce(logger), listeners, checkpointer,
                CheckpointSchedule(checkpoint_interval), None, labeling, RankScope(ranks), interruption, **more,
            )
        )  # fmt: skip
        return opened[-1]

    yield new
    for session in opened:
        session.close({})


def asked(*samples: int, step: int = 0) -> Any:
    """Return a request queue that was asked for these samples by the strategy ``uq``."""
    requests = [
        AskedRequest(Request(request_id("r", step, place), step, place, sample, 0), sample, "uq", None, place, 1.0)
        for place, sample in enumerate(samples)
    ]
    adopted: list[AskedRequest] = []
    return SimpleNamespace(asked=requests, dropped={}, adopted=adopted, adopt=adopted.extend)


# -- phases ------------------------------------------------------------------------------------------------------------


def test_phase_is_told_timed_and_known_while_it_goes_on(begin: Open, told: list[Any]) -> None:
    session = begin(2)
    with session.phase(Phase.QUERY):
        assert session._position.phase is Phase.QUERY
        assert told == [("alcore_phase_start", {"phase": Phase.QUERY, "replayed": False})]
    assert session._position.phase is None
    assert told[1:] == [("alcore_phase_end", {"phase": Phase.QUERY, "error": None, "replayed": False})]
    assert 0 <= session.record.seconds["query"] < 1


def test_error_in_a_phase_says_where_and_is_told(begin: Open, told: list[Any]) -> None:
    session = begin(2)
    error = KeyError(1)
    with pytest.raises(KeyError) as caught, session.phase(Phase.LABELING):
        raise error
    assert caught.value.__notes__ == ["in the labeling phase of step 2 of run r"]
    assert told[-1] == ("alcore_phase_end", {"phase": Phase.LABELING, "error": error, "replayed": False})
    assert session._position.phase is None


# -- the record of a step ----------------------------------------------------------------------------------------------


def test_resumed_step_begins_with_what_it_recorded_and_the_next_one_with_nothing(begin: Open) -> None:
    session = begin(resumed_record={"epochs": 3})
    session.begin_step(9)
    assert session.record.of_training() == {"epochs": 3}
    session.begin_step(12)
    assert session.record.of_training() == {}
    assert session.record.values["train_samples"] == 12


def test_step_is_committed_whole_and_told(begin: Open, told: list[Any], tmp_path: Path) -> None:
    session = begin()
    session.begin_step(9)
    session.commit_requests(asked(4, 7), "model")
    session.add_metrics("f1", [0.5])
    session.add_label_counts({"labeled": 1, "failed": 0, "refused": 0, "other": 5})
    session.end_step(None)
    run = Run(tmp_path / "r")
    (step,) = run.steps()
    assert [step[name] for name in ("step", "train_samples", "requested", "labeled")] == [0, 9, 2, 1]
    assert "other" not in step
    assert [request["sample"] for request in run.requests()] == [4, 7]
    assert run.records() == {"f1": [0.5]}
    hook, arguments = told[-1]
    assert (hook, arguments["record"]["metrics"]) == ("alcore_step_end", {"f1": [0.5]})


@pytest.mark.parametrize(
    ("interval", "last", "saved"), [(0, True, False), (1, False, True), (2, False, False), (2, True, True)]
)
def test_checkpoint_is_saved_where_one_is_due(
    begin: Open, tmp_path: Path, interval: int, last: bool, saved: bool
) -> None:
    session = begin(checkpoint_interval=interval)
    session.end_step(ENOUGH if last else None)
    assert [checkpoint["phase"] for checkpoint in Run(tmp_path / "r").checkpoints()] == ["start"] + ["labeling"] * saved


# -- replay ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(begin: Open) -> None:
    """A run whose step 0 asked for samples 4 and 7, and measured 0.5 and NaN."""
    session = begin()
    session.add_metrics("f1", [0.5, math.nan])
    session.commit_requests(asked(4, 7), "model")
    session.end(None, None)
    session.close({})


@pytest.mark.usefixtures("recorded")
def test_replay_that_comes_out_alike_says_nothing(begin: Open, caplog: pytest.LogCaptureFixture) -> None:
    session = begin(last_recorded=0)
    assert session.replaying
    session.add_metrics("f1", [0.5])
    session.add_metrics("f1", [math.nan])
    queue = asked(4, 7)
    session.commit_requests(queue, "model")
    assert [request.sample for request in queue.adopted] == [4, 7]
    assert caplog.messages == []


@pytest.mark.usefixtures("recorded")
def test_what_is_on_record_counts_in_a_replay_that_differs(
    begin: Open, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    session = begin(last_recorded=0)
    counted = session.add_metrics("f1", [0.75, math.nan])
    assert counted[0] == 0.5
    queue = asked(4, 8)
    session.commit_requests(queue, "other model")
    assert [request.sample for request in queue.adopted] == [4, 7]
    assert caplog.messages == [
        "f1 measured differently when step 0 was replayed; what is on record counts",
        "uq asked for other samples when step 0 was replayed; what is on record counts",
    ]
    assert [request["sample"] for request in Run(tmp_path / "r").requests()] == [4, 7]


# -- the end -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (None, "done", None),
        (RuntimeError("out of ideas"), "failed", "RuntimeError: out of ideas"),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt: "),
    ],
)
def test_end_is_committed_and_told(
    begin: Open, told: list[Any], tmp_path: Path, error: BaseException | None, status: str, message: str | None
) -> None:
    session = begin()
    session.add_metrics("f1", [0.5])
    session.end(ENOUGH, error)
    session.close({})
    assert told == [("alcore_run_end", {"reason": ENOUGH, "error": error})]
    run = Run(tmp_path / "r")
    meta = run.meta()
    assert (meta["status"], meta["reason"], meta["error"]) == (status, "enough" if error is None else None, message)
    assert run.records() == {"f1": [0.5]}
    begin()  # the lock is free


def test_end_that_cannot_be_recorded_is_noted_on_the_error_or_raised(
    begin: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("disk full")

    error = RuntimeError("out of ideas")
    session = begin()
    monkeypatch.setattr(session.store, "finish", fail)
    session.end(None, error)
    session.close({})
    assert error.__notes__ == ["and this could not be recorded: OSError: disk full"]
    session = begin()  # the lock is free
    monkeypatch.setattr(session.store, "finish", fail)
    with pytest.raises(OSError, match="disk full"):
        session.end(ENOUGH, None)


def test_errors_say_where_they_happened_and_records_are_kept(build: Any, toys: Any) -> None:
    class Broken(toys.FirstQuery):
        def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
            if self.driver.active_learning_step_idx == 1:
                raise RuntimeError("out of ideas")
            super().sample(query_queue)

    driver = build(query_strategies=[Broken()], skip_training=True)
    with pytest.raises(RuntimeError, match="out of ideas") as caught:
        driver.run()
    assert f"in the query phase of step 1 of run {driver.run_id}" in caught.value.__notes__
    run = Run(driver.log_dir)
    assert run.meta()["status"] == "failed"
    assert run.meta()["error"].startswith("RuntimeError: out of ideas, raised by sample() of ")
    assert len(run.records()["count_metrology"]) == 2


def test_an_interrupt_is_told_as_such(build: Any, toys: Any) -> None:
    class Impatient(toys.FirstQuery):
        def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

    driver = build(query_strategies=[Impatient()], skip_training=True)
    with pytest.raises(KeyboardInterrupt):
        driver.run()
    assert Run(driver.log_dir).meta()["status"] == "interrupted"


# -- run directories ---------------------------------------------------------------------------------------------------


class Two(Ranks):
    """Rank 0 of two."""

    size = 2


def test_run_of_another_number_of_processes_is_refused_unless_allowed(begin: Open, tmp_path: Path) -> None:
    begin().close({})
    with pytest.raises(UsageError, match=r"run r is of 1 process, and here are 2: .* restore\(other_ranks=True\)"):
        open_run(tmp_path, "r", Two(), other_ranks=False)
    store = open_run(tmp_path, "r", Two(), other_ranks=True)  # the lock is free
    assert store.meta()["ranks"] == 2
    store.close()
    with pytest.raises(UsageError, match="run r is of 2 processes, and here is 1"):
        open_run(tmp_path, "r", Ranks(), other_ranks=False)


def test_number_of_processes_is_on_record_where_there_are_several(tmp_path: Path) -> None:
    for ranks, run_id in ((Ranks(), "alone"), (Two(), "two")):
        store = create_run(tmp_path, run_id, ranks, meta={"seed": 3}, experiment="", state={"step": 0})
        assert store.meta().get("ranks") == (2 if run_id == "two" else None)
        assert store.meta()["seed"] == 3
        store.close()
