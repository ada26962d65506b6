"""Answers that come outside a labeling phase: the inbox keeps them, and the training pool gets each exactly once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from alcore_testing.essence import differences, essence_of
from helpers.experiment import Cut

import alcore
from alcore import Driver
from alcore.errors import EncodingError
from alcore.protocols import Failed, Label, Phase
from alcore.store.inbox import Inbox
from alcore.store.reading import Run
from alcore.strategies import BaseLabel, BaseQuery


class Three(BaseQuery):
    """Asks for three samples a step."""

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        step = self.driver.active_learning_step_idx
        for sample in range(20 + 3 * step, 23 + 3 * step):
            query_queue.put(sample)


class Texts(BaseQuery):
    """Asks for the labels of two texts a step, which a pool doesn't know."""

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        step = self.driver.active_learning_step_idx
        query_queue.put_many([f"{step}.0", f"{step}.1"])


class Postal(BaseLabel):
    """Answers the first request at once, and leaves the others to the post."""

    def poll(self, request_id: str) -> Any:
        return alcore.PENDING

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        request = queue_to_label.get_request()
        serialize_queue.put(Label(request, request.item % 2))
        while not queue_to_label.empty():
            queue_to_label.get()


class Nothing(BaseLabel):
    """Answers nothing; `act` is called first."""

    def poll(self, request_id: str) -> Any:
        return alcore.PENDING

    def __init__(self, act: Callable[[Any], None] = lambda answers: None) -> None:
        self.act = act

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        self.act(serialize_queue)
        while not queue_to_label.empty():
            queue_to_label.get()


class At:
    """Does something when a phase begins, when the run may stop, or when a step has ended."""

    def __init__(self, **acts: Callable[[Driver], Any]) -> None:
        self.acts = acts

    @alcore.runhook
    def alcore_phase_start(self, driver: Driver, phase: Phase) -> None:
        self._act(f"{phase}_{driver.active_learning_step_idx}", driver)

    @alcore.runhook
    def alcore_should_stop(self, driver: Driver) -> str | None:
        found: str | None = self._act(f"stop_{driver.active_learning_step_idx}", driver)
        return found

    @alcore.runhook
    def alcore_step_end(self, driver: Driver) -> None:
        self._act(f"end_{driver.active_learning_step_idx}", driver)

    def _act(self, when: str, driver: Driver) -> Any:
        return self.acts[when](driver) if when in self.acts else None


class Lines(list[Any]):
    """A pool of texts and their labels."""

    def append(self, item: Any) -> None:
        super().append(item)


Make = Callable[..., Driver]


def cut(_driver: Driver) -> None:
    raise Cut


def putting(*answers: Any) -> Callable[[Driver], None]:
    """Return what puts these answers, each by itself."""

    def put(driver: Driver) -> None:
        assert driver.label_queue is not None
        for answer in answers:
            driver.label_queue.put(answer)

    return put


def put_all(driver: Driver) -> None:
    """Answer every request that is open."""
    putting(*(Label(request["sample"], 1) for request in Run(driver.log_dir).requests() if request["state"] == "open"))(
        driver
    )


def states(driver: Driver) -> list[str]:
    return [request["state"] for request in Run(driver.log_dir).requests()]


def waiting(driver: Driver) -> list[str]:
    """Name the files that are in the inbox."""
    return sorted(path.name for path in (driver.log_dir / "inbox").glob("*.json"))


def go_on(driver: Driver) -> Driver:
    driver.restore()
    driver.run()
    return driver


@pytest.fixture
def make(build: Make, toys: Any) -> Make:
    def new(run_id: str, *plugins: Any, **settings: Any) -> Driver:
        parts = {
            "run_id": run_id, "max_active_learning_steps": 4, "max_training_epochs": 1, "batch_size": 8,
            "query_strategies": [Three()], "label_strategy": Postal(), "metrology_strategies": None,
            "learner": toys.learner(3), "train_datapool": toys.pool(), "plugins": list(plugins),
        }  # fmt: skip
        return build(**(parts | settings))

    return new


@pytest.fixture
def texts(make: Make) -> Make:
    """A run that doesn't train, asks for texts, and answers none of them."""

    def new(run_id: str, *plugins: Any, **settings: Any) -> Driver:
        parts = {
            "skip_training": True, "train_datapool": Lines(), "query_strategies": [Texts()],
            "label_strategy": Nothing(), "max_active_learning_steps": 2,
        }  # fmt: skip
        return make(run_id, *plugins, **(parts | settings))

    return new


def pool_of(driver: Driver) -> list[Any]:
    return driver.train_datapool.labeled_ids.tolist()  # type: ignore[no-any-return]


# -- in which step it counts ---------------------------------------------------------------------------------


def postmen(cut_in: int | None = None) -> list[At]:
    """Return what brings an answer when a training begins, and what cuts the run off in a step."""
    brings = {f"training_{step}": putting(Label(22 + 3 * (step - 1), step % 2)) for step in (1, 2, 3)}
    return [At(**brings, **({} if cut_in is None else {f"stop_{cut_in}": cut}))]


def test_late_answer_counts_in_the_step_that_it_comes_in(make: Make, toys: Any) -> None:
    driver = make("r", *postmen())
    driver.run()
    steps, first = Run(driver.log_dir).steps(), len(toys.pool())
    assert [step["train_samples"] for step in steps] == [first, first + 1, first + 3, first + 5]
    assert [step["labeled"] for step in steps] == [1, 2, 2, 2]
    assert Run(driver.log_dir).refused() == []
    assert waiting(driver) == []


@pytest.mark.parametrize("cut_in", [1, 2, 3])
def test_run_cut_off_after_a_late_answer_ends_the_same(make: Make, cut_in: int) -> None:
    whole = make("whole", *postmen())
    whole.run()
    with pytest.raises(Cut):
        make("cut", *postmen(cut_in)).run()
    again = go_on(make("cut", *postmen()))  # the answer comes once more, a repeat
    assert differences(essence_of(again.log_dir), essence_of(whole.log_dir)) == []
    assert pool_of(again) == pool_of(whole)


def test_put_after_label_returned_is_taken_at_the_next_labeling_phase(make: Make) -> None:
    threads: list[threading.Thread] = []
    returned = threading.Event()

    def act(answers: Any) -> None:
        def work() -> None:
            assert returned.wait(10)
            answers.put(Label(21, 1))

        if not threads:
            threads.append(threading.Thread(target=work))
            threads[0].start()

    def end_of_step(driver: Driver) -> None:
        returned.set()
        threads[0].join(10)
        assert len(waiting(driver)) == 1
        assert states(driver) == ["open"] * 3

    driver = make("r", At(end_0=end_of_step), label_strategy=Nothing(act), max_active_learning_steps=2)
    driver.run()
    assert [step["labeled"] for step in Run(driver.log_dir).steps()] == [0, 1]
    assert pool_of(driver)[8:] == [21]
    assert waiting(driver) == []


def test_put_before_the_first_phase_of_a_resumed_run_is_taken(make: Make) -> None:
    with pytest.raises(Cut):
        make("cut", At(stop_2=cut)).run()
    again = make("cut")
    again.restore()
    putting(Label(24, 0))(again)  # of step 1, before anything is run
    again.run()
    assert pool_of(again).count(24) == 1
    assert Run(again.log_dir).refused() == []


def test_put_after_the_run_ended_is_taken_at_resume(make: Make) -> None:
    driver = make("r", max_active_learning_steps=1)
    driver.run()
    before = states(driver)
    putting(Label(22, 1))(driver)
    assert states(driver) == before == ["labeled", "open", "open"]
    assert len(waiting(driver)) == 1
    again = go_on(make("r", max_active_learning_steps=2))
    assert states(again)[2] == "labeled"
    assert pool_of(again).count(22) == 1
    assert waiting(again) == []


def test_put_of_a_forked_child_reaches_the_pool(make: Make) -> None:
    def fork(answers: Any) -> None:
        child = os.fork()
        if not child:
            try:
                answers.put(Label(22, 1))
            finally:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    driver = make("r", label_strategy=Nothing(fork), max_active_learning_steps=1)
    driver.run()
    assert states(driver) == ["open", "open", "labeled"]
    assert pool_of(driver)[8:] == [22]


def test_files_of_another_process_are_taken_in_order(make: Make) -> None:
    driver = make("r", max_active_learning_steps=1)
    driver.run()
    for value in (0, 1, 0):
        Inbox(driver.log_dir / "inbox").publish([Label(21, value, "ann")])
    again = go_on(make("r", max_active_learning_steps=2))
    run = Run(again.log_dir)
    rows = run.read("SELECT value, superseded FROM labels WHERE source = 'ann' ORDER BY rowid")
    assert [tuple(row) for row in rows] == [("0", 1), ("1", 1), ("0", 0)]
    assert pool_of(again).count(21) == 1


def test_malformed_file_is_set_aside_and_recorded(make: Make) -> None:
    driver = make("r", max_active_learning_steps=1)
    driver.run()
    inbox = driver.log_dir / "inbox"
    good = Inbox(inbox).publish([Label(21, 1)])
    bad = inbox / f"{0:020d}-{'0' * 8}.json"
    bad.write_text("{")
    again = go_on(make("r", max_active_learning_steps=2))
    assert not good.exists()
    assert [path.name for path in (inbox / "refused").iterdir()] == [bad.name]
    (row,) = Run(again.log_dir).refused()
    assert (row["step"], row["request"], row["item"]) == (1, None, bad.name)
    assert "Error" in row["reason"]
    assert states(again)[1] == "labeled"


def test_what_cannot_be_stored_is_an_error_of_the_put(make: Make) -> None:
    driver = make("r", max_active_learning_steps=1)
    driver.run()
    with pytest.raises(EncodingError):
        putting(Label(21, object()))(driver)
    assert waiting(driver) == []


def test_late_failure_is_counted_and_recorded(make: Make) -> None:
    driver = make("r", At(training_1=putting(Failed(21, "the sample is lost"))), max_active_learning_steps=2)
    driver.run()
    run = Run(driver.log_dir)
    assert [step["failed"] for step in run.steps()] == [0, 1]
    assert [refusal["reason"] for refusal in run.refused()] == ["the sample is lost"]


def test_phase_that_ended_is_not_run_again_with_what_it_left_open(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make("whole", *postmen())
    whole.run()
    driver = make("cut", *postmen())
    commit, steps = Driver._end_step, iter(range(9))

    def end_step(self: Driver, *args: Any) -> None:
        if next(steps) == 1:
            raise Cut
        commit(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(Driver, "_end_step", end_step)
        with pytest.raises(Cut):
            driver.run()
    again = go_on(make("cut", *postmen()))
    found, expected = essence_of(again.log_dir), essence_of(whole.log_dir)
    for name in ("labels", "requests", "checkpoints"):  # what was brought again was refused
        assert found[name] == expected[name], name
    assert pool_of(again) == pool_of(whole)


# -- steps without a labeling phase of their own -------------------------------------------------------------


def test_late_answer_in_a_step_that_a_criterion_ends_is_appended(make: Make) -> None:
    def stop(driver: Driver) -> str:
        put_all(driver)
        return "enough"

    driver = make("r", At(stop_1=stop))
    driver.run()
    assert driver.stop_reason == "enough"
    assert Run(driver.log_dir).steps()[1]["labeled"] == 2
    again = make("r")
    again.restore()
    assert pool_of(again) == pool_of(driver)
    again.run()  # which closes it


def test_late_answer_without_a_label_strategy_is_appended_at_the_end_of_the_step(make: Make) -> None:
    driver = make("r", At(training_1=putting(Label(20, 1))), label_strategy=None, max_active_learning_steps=2)
    driver.run()
    run = Run(driver.log_dir)
    assert [step["labeled"] for step in run.steps()] == [0, 1]
    assert pool_of(driver)[8:] == [20]
    again = make("r", label_strategy=None, max_active_learning_steps=3)
    again.restore()
    assert pool_of(again)[8:] == [20]
    again.run()
    assert [step["train_samples"] for step in Run(again.log_dir).steps()] == [8, 8, 9]


# -- a cold start --------------------------------------------------------------------------------------------


class Start(BaseQuery):
    """Asks for five samples, drawn with a global generator."""

    def __init__(self) -> None:
        self.calls = 0

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        self.calls += 1
        query_queue.put_many(torch.randperm(20)[:5].tolist())


class Echo(BaseLabel):
    """Answers nothing before a step, then everything; is cut off once if that is wanted."""

    labels_by_id = True

    def __init__(self, first: int = 0, cut: int | None = None) -> None:
        self.first, self.cut = first, cut

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        for place in range(queue_to_label.qsize()):
            if place == self.cut:
                raise Cut
            sample = queue_to_label.get()
            if self.driver.active_learning_step_idx >= self.first:
                serialize_queue.put(sample)
            else:
                queue_to_label.give_back(sample)


@pytest.fixture
def cold(make: Make, toys: Any) -> Make:
    def new(run_id: str, label: Any, *plugins: Any, **settings: Any) -> Driver:
        parts = {"train_datapool": toys.pool(labeled=0), "start_strategy": Start(), "label_strategy": label}
        return make(run_id, *plugins, **(parts | settings))

    return new


def test_start_whose_answers_come_between_two_steps_is_not_bought_twice(cold: Make) -> None:
    driver = cold("r", Echo(99), At(end_0=put_all))
    driver.run()
    assert driver.start_strategy.calls == 1
    assert [step["train_samples"] for step in Run(driver.log_dir).steps()][:3] == [0, 0, 5]


def test_run_goes_on_when_the_labels_of_its_start_have_come(cold: Make) -> None:
    driver = cold("r", Echo(1), At(stop_4=lambda driver: "enough"), max_active_learning_steps=None)
    driver.run()
    assert driver.stop_reason == "enough"


def test_run_that_ended_without_a_label_takes_late_ones_and_goes_on(cold: Make) -> None:
    first = cold("r", Echo(99), max_active_learning_steps=6)
    first.run()
    assert str(first.stop_reason).startswith("nothing is labeled yet")
    put_all(first)
    again = go_on(cold("r", Echo(99), max_active_learning_steps=6))
    assert again.stop_reason == "all 6 steps are done"
    assert len(pool_of(again)) == 5


def test_start_whose_labeling_was_cut_off_is_replayed(cold: Make) -> None:
    whole = cold("whole", Echo())
    whole.run()
    with pytest.raises(Cut):
        cold("cut", Echo(cut=2)).run()
    again = go_on(cold("cut", Echo()))
    assert differences(essence_of(again.log_dir), essence_of(whole.log_dir)) == []


# -- values that name no request -----------------------------------------------------------------------------


def labels_of(driver: Driver) -> dict[str, str]:
    """Return the current value of each request that has one, by what was asked."""
    rows = Run(driver.log_dir).read(
        "SELECT r.item, l.value FROM requests r JOIN labels l ON l.request = r.id WHERE NOT l.superseded"
    )
    return {row["item"].strip('"'): row["value"].strip('"') for row in rows}


class Killed(BaseException):
    """The process was killed; nothing after it is done."""


def killed_before_removal(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a driver until it is about to remove the first file of its inbox, whose answers are committed."""
    with monkeypatch.context() as patched:

        def remove(self: Inbox, path: Any) -> None:
            raise Killed

        patched.setattr(Inbox, "remove", remove)
        with pytest.raises(Killed):
            driver.run()


def test_unnamed_values_answer_the_oldest_open_requests(texts: Make) -> None:
    driver = texts("r", At(end_0=putting("a", "b")))
    driver.run()
    assert labels_of(driver) == {"0.0": "a", "0.1": "b"}
    assert driver.train_datapool == ["a", "b"]


def test_unnamed_value_counts_once_where_the_run_is_killed_before_its_file_is_removed(
    texts: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = texts("r", At(end_0=putting("a")))
    killed_before_removal(first, monkeypatch)
    assert labels_of(first) == {"0.0": "a"}
    assert len(waiting(first)) == 1
    again = go_on(texts("r"))
    assert labels_of(again) == {"0.0": "a"}
    assert again.train_datapool == ["a"]
    assert waiting(again) == []


def test_late_failure_counts_once_where_the_run_is_killed_before_its_file_is_removed(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make("r", At(end_0=putting(Failed(21, "busy"))), label_retries=1)
    killed_before_removal(first, monkeypatch)
    again = go_on(make("r", label_retries=1))
    assert [refusal["reason"] for refusal in Run(again.log_dir).refused()] == ["busy"]
    assert states(again)[1] != "failed"


def test_unnamed_value_before_the_first_phase_of_a_resumed_run_counts_once(
    texts: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts("r", max_active_learning_steps=1).run()
    second = texts("r")
    second.restore()
    putting("a")(second)
    killed_before_removal(second, monkeypatch)
    assert labels_of(second) == {"0.0": "a"}
    again = go_on(texts("r"))
    assert labels_of(again) == {"0.0": "a"}
    assert again.train_datapool == ["a"]


def test_unnamed_value_of_a_child_answers_what_is_open_when_it_is_taken_in(texts: Make) -> None:
    """A forked child doesn't know what its parent has answered since."""

    def both(answers: Any) -> None:
        child = os.fork()
        if not child:
            try:
                answers.put("of the child")
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        answers.put("of the parent")

    driver = texts("r", label_strategy=Nothing(both), max_active_learning_steps=1)
    driver.run()
    assert labels_of(driver) == {"0.0": "of the parent", "0.1": "of the child"}
    assert Run(driver.log_dir).refused() == []
