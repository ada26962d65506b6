"""Requests that were being labeled when the run was cut off: polled, asked again, dropped, or the user's to decide."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import alcore
from alcore import Driver, Failed, Label, Request, UsageError
from alcore.store.reading import Run
from alcore.store.run import RunStore
from alcore.strategies import BaseLabel


class Power(KeyboardInterrupt):
    """The power fails."""


class Lab(BaseLabel):
    """A lab that is told of each request, and may lose power before the answer is delivered."""

    def __init__(self, log: list[str], fails_at: int | None = None) -> None:
        self.log, self.fails_at = log, fails_at

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        while not queue_to_label.empty():
            request = queue_to_label.get_request()
            self.log.append(request.id)
            if len(self.log) == self.fails_at:
                raise Power
            serialize_queue.put(Label(request, 1))


class Pollable(Lab):
    answers: Any = None

    def poll(self, request_id: str) -> Any:
        self.log.append(f"poll {request_id}")
        return self.answers


class Idempotent(Lab):
    idempotent = True


class Knowing(Lab):
    doubts = False

    def is_in_doubt(self, request: Request) -> bool:
        self.log.append(f"doubt {request.id}")
        return self.doubts


class Doubting(Knowing):
    doubts = True


Restart = Callable[..., tuple[Driver, list[str]]]


@pytest.fixture
def restart(build: Any, tmp_path: Path) -> Restart:
    """Return a function that cuts a run off within its second request, and gives a driver made anew for it."""

    def cut(kind: type[Lab]) -> tuple[Driver, list[str]]:
        log: list[str] = []
        settings = {"run_id": "run", "max_active_learning_steps": 1}
        with pytest.raises(Power):
            build(label_strategy=kind(log, fails_at=2), **settings).run()
        return build(label_strategy=kind(log), **settings), log

    return cut


def states(driver: Driver) -> list[str]:
    return [request["state"] for request in Run(driver.log_dir).requests()]


def test_the_user_decides_where_nobody_knows(restart: Restart) -> None:
    driver, log = restart(Lab)
    with pytest.raises(UsageError, match=r"1 requests were with Lab .* 9\. Decide with --in-doubt ask .* drop"):
        driver.restore()
    assert states(driver) == ["labeled", "open", "open"]
    assert len(log) == 2


def test_what_the_strategy_can_find_out_is_handed_out_again(restart: Restart) -> None:
    driver, log = restart(Knowing)
    driver.restore()
    driver.run()
    assert states(driver) == ["labeled", "labeled", "labeled"]
    assert f"doubt {log[1]}" in log
    assert log.count(log[1]) == 2


def test_the_user_decides_about_what_the_strategy_cant_find_out(restart: Restart) -> None:
    driver, _ = restart(Doubting)
    with pytest.raises(UsageError, match="1 requests were with Doubting"):
        driver.restore()
    driver.restore(in_doubt="drop")
    driver.run()
    assert states(driver) == ["labeled", "failed", "labeled"]


def test_the_same_driver_can_be_restored_once_the_user_has_decided(build: Any) -> None:
    log: list[str] = []
    settings = {"run_id": "run", "max_active_learning_steps": 2}
    with pytest.raises(Power):
        build(label_strategy=Lab(log, fails_at=5), **settings).run()
    driver = build(label_strategy=Lab(log), **settings)
    with pytest.raises(UsageError, match="Decide with"):
        driver.restore()
    driver.restore(in_doubt="ask")
    driver.run()
    assert states(driver) == ["labeled"] * 6


def test_asked_again(restart: Restart) -> None:
    driver, log = restart(Lab)
    driver.restore(in_doubt="ask")
    driver.run()
    assert states(driver) == ["labeled"] * 3
    assert [log.count(entry) for entry in dict.fromkeys(log)] == [1, 2, 1]


def test_dropped(restart: Restart) -> None:
    driver, log = restart(Lab)
    driver.restore(in_doubt="drop")
    driver.run()
    assert states(driver) == ["labeled", "failed", "labeled"]
    assert len(log) == len(set(log)) == 3
    run = Run(driver.log_dir)
    assert run.steps()[0]["failed"] == 1
    assert "in doubt" in run.refused()[0]["reason"]
    assert driver.train_datapool.labeled_ids.tolist()[8:] == [8, 10]


@pytest.mark.parametrize("answer", [0, Label(9, 0)], ids=["value", "label"])
def test_polled_before_it_is_asked_again(restart: Restart, answer: Any) -> None:
    driver, log = restart(Pollable)
    driver.label_strategy.answers = answer
    driver.restore()
    driver.run()
    second = log[1]
    assert log.count(second) == 1
    assert log[2] == f"poll {second}"
    assert states(driver) == ["labeled"] * 3
    assert [request["value"] for request in Run(driver.log_dir).requests()] == ["1", "0", "1"]


ITEMS = {
    "the id": lambda request_id: request_id,
    "the id of another": lambda _: "0" * 32,
    "another sample": lambda _: 8,
    "no sample": lambda _: 10**6,
    "a request of another run": lambda _: Request("0" * 32, 0, 0, 8),
    "nothing": lambda _: None,
    "an object": lambda _: object(),
}


@pytest.mark.parametrize("item", list(ITEMS))
@pytest.mark.parametrize("kind", ["label", "failed"])
def test_answer_of_poll_is_that_requests_answer_whatever_its_item_says(restart: Restart, kind: str, item: str) -> None:
    driver, log = restart(Pollable)

    def poll(request_id: str) -> Label | Failed:
        named = ITEMS[item](request_id)
        return Label(named, 0, source="lab", cost=3.0) if kind == "label" else Failed(named, "it broke", cost=3.0)

    driver.label_strategy.poll = poll
    driver.restore()
    driver.run()
    run, middle = Run(driver.log_dir), "labeled" if kind == "label" else "failed"
    assert states(driver) == ["labeled", middle, "labeled"]
    assert [request["value"] for request in run.requests()] == ["1", "0" if kind == "label" else None, "1"]
    assert [refusal["reason"] for refusal in run.refused()] == ([] if kind == "label" else ["it broke"])
    paid = run.read("SELECT cost FROM labels UNION ALL SELECT cost FROM refused")
    assert sorted(row["cost"] for row in paid) == [1.0, 1.0, 3.0]
    assert len(log) == 3


def test_a_poll_that_knows_nothing_means_asking_again(restart: Restart) -> None:
    driver, log = restart(Pollable)
    driver.restore()
    driver.run()
    assert states(driver) == ["labeled"] * 3
    assert log.count(log[1]) == 2


def test_an_idempotent_strategy_is_asked_again_under_the_same_id(restart: Restart) -> None:
    driver, log = restart(Idempotent)
    driver.restore()
    driver.run()
    assert states(driver) == ["labeled"] * 3
    assert log.count(log[1]) == 2


class Keeper(BaseLabel):
    """Takes everything out, and answers what it is told to, in this phase or a later one."""

    def __init__(self) -> None:
        self.kept: list[Request] = []
        self.phases: list[list[str]] = []

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        taken = queue_to_label.get_many(100)
        self.phases.append([request.id for request in taken])
        self.kept += taken
        self.work(queue_to_label, serialize_queue)

    def work(self, requests: Any, answers: Any) -> None:
        """Keep what was taken."""


class Slow(Keeper):
    """Answers, in each phase, what it took in the one before."""

    def work(self, requests: Any, answers: Any) -> None:
        ids = set(self.phases[-1])
        answers.put_many(Label(request, 1) for request in self.kept if request.id not in ids)
        self.kept = [request for request in self.kept if request.id in ids]


class Returning(Keeper):
    """Gives everything back, and labels it when it gets it the second time."""

    def work(self, requests: Any, answers: Any) -> None:
        for request in self.kept:
            if request.id in self.phases[-1][:1] and len(self.phases) == 1:
                requests.give_back(request.item)  # in the same phase
                again = requests.get_request()
                assert again.id == request.id
                answers.put(Label(again, 1))
            elif len(self.phases) == 1:
                requests.give_back(request)
            else:
                answers.put(Label(request, 1))
        self.kept = []


@pytest.mark.parametrize("idempotent", [False, True])
def test_what_a_strategy_has_taken_is_not_handed_out_again(build: Any, idempotent: bool) -> None:
    strategy = Slow()
    strategy.idempotent = idempotent  # type: ignore[attr-defined]
    driver = build(label_strategy=strategy, max_active_learning_steps=3)
    driver.run()
    assert [len(keys) for keys in strategy.phases] == [3, 3, 3]
    assert len({key for keys in strategy.phases for key in keys}) == 9
    assert states(driver) == ["labeled"] * 6 + ["open"] * 3


def test_what_a_strategy_gives_back_is_handed_out_again(build: Any) -> None:
    strategy = Returning()
    driver = build(label_strategy=strategy, max_active_learning_steps=2)
    driver.run()
    assert strategy.phases[1][:2] == strategy.phases[0][1:]
    assert states(driver) == ["labeled"] * 6


def test_what_is_not_with_the_strategy_cannot_be_given_back(build: Any) -> None:
    class Confused(Keeper):
        def work(self, requests: Any, answers: Any) -> None:
            answers.put(Label(self.kept[0], 1))
            for gone in (self.kept[0], 99, "never asked for"):
                with pytest.raises(UsageError, match="can't be given back: it was not taken out, or has been answered"):
                    requests.give_back(gone)

    build(label_strategy=Confused(), max_active_learning_steps=1).run()


def test_what_a_strategy_has_kept_is_in_doubt_when_its_process_has_ended(build: Any) -> None:
    build(label_strategy=Keeper(), run_id="run", max_active_learning_steps=1).run()
    settings = {"run_id": "run", "max_active_learning_steps": 2}
    with pytest.raises(UsageError, match="3 requests were with Keeper"):
        build(label_strategy=Keeper(), **settings).restore()
    strategy = Keeper()
    again = build(label_strategy=strategy, **settings)
    again.restore(in_doubt="ask")
    again.run()
    assert len(strategy.phases[0]) == 6


class Service(Keeper):
    """Can be polled: knows the requests that it was given, and those that it has answered."""

    idempotent = True  # is not read, as it can be polled

    def __init__(self, known: dict[str, Any]) -> None:
        super().__init__()
        self.known, self.polled = known, list[str]()

    def work(self, requests: Any, answers: Any) -> None:
        self.known |= dict.fromkeys(self.phases[-1], alcore.PENDING)

    def poll(self, request_id: str) -> Any:
        self.polled.append(request_id)
        return self.known.get(request_id)


def test_pending_request_is_polled_at_each_labeling_phase_until_it_is_answered(build: Any) -> None:
    known: dict[str, Any] = {}
    first = Service(known)
    settings = {"run_id": "run", "max_active_learning_steps": 2}
    driver = build(label_strategy=first, **settings)
    driver.run()
    asked = [key for phase in first.phases for key in phase]
    assert first.polled == asked[:3]
    assert len(set(asked)) == len(asked) == 6

    del known[asked[5]]  # the service has lost one
    known |= {asked[0]: 1, asked[1]: Failed(9, "it melted")}
    second = Service(known)
    again = build(label_strategy=second, run_id="run", max_active_learning_steps=4)
    again.restore()
    again.run()
    assert second.polled[:6] == asked
    assert second.phases[0][0] == asked[5]
    assert not set(asked[:5]) & {key for phase in second.phases for key in phase}
    assert states(again)[:3] == ["labeled", "failed", "open"]


def test_many_requests_are_taken_in_one_transaction_or_not_at_all(build: Any) -> None:
    commits: list[int] = []

    class Careful(Keeper):
        def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
            commit = queue_to_label.on_take
            queue_to_label.on_take = lambda requests: 1 / 0
            with pytest.raises(ZeroDivisionError):
                queue_to_label.get_many(2)
            assert queue_to_label.qsize() == 3
            queue_to_label.on_take = lambda requests: (commits.append(len(requests)), commit(requests))
            assert [len(queue_to_label.get_many(2)) for _ in range(3)] == [2, 1, 0]

    driver = build(label_strategy=Careful(), max_active_learning_steps=1)
    driver.run()
    assert commits == [2, 1]
    assert len(RunStore.open(driver.log_dir.parent, driver.run_id).requests.in_flight()) == 3


def test_request_whose_answer_waits_in_the_inbox_is_not_in_doubt(build: Any) -> None:
    first = build(label_strategy=Keeper(), run_id="run", max_active_learning_steps=1)
    first.run()
    one, two, three = Run(first.log_dir).requests()
    first.label_queue.put(Label(one["sample"], 0))
    settings = {"run_id": "run", "max_active_learning_steps": 2}
    with pytest.raises(UsageError, match="2 requests were with Keeper"):
        build(label_strategy=Keeper(), **settings).restore()
    first.label_queue.put(Label(Request(two["id"], 0, 1, two["sample"]), 1))
    again = build(label_strategy=Keeper(), **settings)
    again.restore(in_doubt="drop")
    again.run()
    assert states(again)[:3] == ["labeled", "labeled", "failed"]
    assert len({one["id"], two["id"], three["id"]}) == 3
