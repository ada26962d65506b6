"""What a run writes comes back: requests, answers, the state of a labeling phase, records, and copies of ranks."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from alcore.codec import dumps
from alcore.protocols import Label, Request, Spent
from alcore.store.reading import Run
from alcore.store.replica import Replica
from alcore.store.rows import AcceptedLabel, AskedRequest, Record, request_id
from alcore.store.run import RunStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    made = RunStore.create(tmp_path, "r1", meta={"status": "running"}, experiment="", state={})
    yield made
    made.close()


def ask(store: RunStore, step: int, *items: Any, cost: float = 1.0) -> list[Request]:
    """Commit a query phase."""
    asked = []
    for ordinal, item in enumerate(items):
        request = Request(request_id("r1", step, ordinal), step, ordinal, item)
        asked.append(AskedRequest(request, item if type(item) is int else None, "uq", None, ordinal, cost))
    store.commit_query(step, asked, [], f"model {step}")
    return [request.request for request in asked]


def label(request: Request, value: Any = 1, *, source: str = "ann", cost: float = 2.0) -> AcceptedLabel:
    item = Label(request.item, value, source, cost)
    return AcceptedLabel(request, item, "label", source, dumps(value), cost)


def ids(requests: Any) -> list[str]:
    return [request.id for request in requests]


def labels(store: RunStore) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in Run(store.folder).read("SELECT step, source, attempt, value, superseded FROM labels")]


# -- requests --------------------------------------------------------------------------------------------


def test_asked_requests_come_back_and_are_none_before_they_are_committed(store: RunStore) -> None:
    assert store.requests.asked(0) is None
    ask(store, 0)
    assert store.requests.asked(0) == []
    made = ask(store, 1, 7, torch.arange(2.0))
    requests = store.requests.asked(1)
    assert requests is not None
    assert ids(request.request for request in requests) == ids(made)
    assert [request.sample for request in requests] == [7, None]
    assert torch.equal(requests[1].request.item, torch.arange(2.0))
    assert store.requests.samples(1) == []
    assert store.requests.samples(2) == [7]


def test_asked_request_passes_to_another_rank_as_a_list(store: RunStore) -> None:
    ask(store, 0, 7, "text")
    for request in store.requests.asked(0) or []:
        again = AskedRequest.of_list(request.as_list())
        assert again[1:] == request[1:]
        assert again.as_list() == request.as_list()


def test_costs_are_expected_while_a_request_is_open_and_paid_after_it_is_labeled(store: RunStore) -> None:
    first, second, third = ask(store, 0, 0, 1, 2, cost=1.5)
    ask(store, 1, 3, cost=10.0)
    assert [store.costs.committed(), store.costs.committed(1), store.costs.committed(0)] == [14.5, 4.5, 0.0]
    with store.answering(0) as writer:
        writer.accept(first, label(first, cost=4.0))
        writer.give_up(second.id)
    with store.answering(1) as writer:
        writer.accept(third, label(third, cost=5.0))
    assert store.costs.committed() == 4.0 + 0.0 + 5.0 + 10.0
    assert store.costs.committed(1) == 4.0 + 0.0 + 1.5, "the third was open when step 1 began"
    assert store.costs.bought(0) == Spent(0, 0.0)
    assert store.costs.bought(1) == Spent(1, 4.0)
    assert store.costs.bought(2) == Spent(2, 9.0)
    with store.answering(1) as writer:
        writer.accept(third, label(third, 0, cost=6.0), corrects=True)
    assert store.costs.bought(2) == Spent(2, 10.0)


def test_waits_before_counts_what_was_open_when_the_step_began(store: RunStore) -> None:
    (request,) = ask(store, 0, 0)
    assert [store.requests.waits_before(0), store.requests.waits_before(1)] == [False, True]
    with store.answering(1) as writer:
        writer.accept(request, label(request))
    assert [store.requests.waits_before(1), store.requests.waits_before(2)] == [True, False]


# -- answers ---------------------------------------------------------------------------------------------


def test_accepted_answers_come_back_in_the_order_of_their_requests(store: RunStore) -> None:
    first, second, third = ask(store, 0, 7, 8, "text")
    with store.answering(0) as writer:
        writer.accept(third, AcceptedLabel(third, (1, 2), "object", "", dumps((1, 2)), 1.0))
        writer.accept(second, label(second, 0))
        writer.accept(first, AcceptedLabel(first, 7, "id", "", None, 1.0))
    answers = store.labels.accepted(0)
    assert ids(request.request for request in answers) == ids([first, second, third])
    assert [answer.kind for answer in answers] == ["id", "label", "object"]
    assert [answers[0].item, answers[2].item] == [7, (1, 2)]
    assert (answers[1].item.item, answers[1].item.value, answers[1].item.source, answers[1].item.cost) == (
        8,
        0,
        "ann",
        2.0,
    )
    assert ids(answer.request for answer in store.labels.labeling(0).accepted) == ids(
        answer.request for answer in answers
    )
    assert store.labels.accepted(1) == []
    assert [row["state"] for row in Run(store.folder).requests()] == ["labeled"] * 3


def test_correction_supersedes_the_earlier_answer_and_keeps_it(store: RunStore) -> None:
    (request,) = ask(store, 0, 7)
    with store.answering(0) as writer:
        writer.accept(request, label(request, 0))
    with store.answering(0) as writer:
        writer.accept(request, label(request, 1), corrects=True)
    assert labels(store) == [(0, "ann", 0, "0", 1), (0, "ann", 0, "1", 0)]
    assert [answer.item.value for answer in store.labels.accepted(0)] == [1]
    assert store.labels.counts(0) == {"labeled": 1, "failed": 0, "refused": 0, "repeated": 0}


def test_answers_of_a_block_that_fails_are_not_committed(store: RunStore) -> None:
    first, second = ask(store, 0, 7, 8)
    with pytest.raises(ConnectionError), store.answering(0) as writer:  # noqa: PT012
        writer.accept(first, label(first))
        writer.retry(second.id, 1)
        writer.refuse(None, "7", "nobody asked")
        writer.keep_state("state")
        raise ConnectionError
    assert store.labels.accepted(0) == []
    assert [request.attempt for request in store.labels.labeling(0).open] == [0, 0]
    assert Run(store.folder).refused() == []
    assert store.labels.strategy_state() is None


def test_retried_request_comes_after_the_others_with_its_next_attempt(store: RunStore) -> None:
    first, second, third = ask(store, 0, 0, 1, 2)
    for request in (second, first):
        with store.answering(0) as writer:
            writer.refuse(request.id, "null", "not now", cost=1.0)
            writer.retry(request.id, 1)
    state = store.labels.labeling(0)
    assert [(request.id, request.attempt) for request in state.open] == [(third.id, 0), (second.id, 1), (first.id, 1)]
    assert ids(store.labels.labeling(1).open) == ids([first, second, third]), "failures of another step change no order"


def test_answer_that_was_told_wrongly_changes_neither_order_nor_attempts(store: RunStore) -> None:
    first, second = ask(store, 0, 0, 1)
    with store.answering(0) as writer:
        writer.refuse(first.id, "null", "its value is NaN or infinite")
    state = store.labels.labeling(0)
    assert [(request.id, request.attempt) for request in state.open] == [(first.id, 0), (second.id, 0)]
    assert state.refused == set()
    assert store.labels.last_answers(5) == []
    assert store.costs.committed() == 2.0


def test_failures_keep_their_kind_and_cost(store: RunStore) -> None:
    (request,) = ask(store, 0, 7)
    with store.answering(0) as writer:
        for kind, cost in (("infrastructure", None), ("timeout", 0.5), ("infeasible", 3)):
            writer.refuse(request.id, "7", "not now", kind=kind, cost=cost)
        writer.refuse(request.id, "7", "no number")
    assert [(refusal["kind"], refusal["cost"]) for refusal in Run(store.folder).refused()] == [
        ("infrastructure", None), ("timeout", 0.5), ("infeasible", 3.0), ("refused", None),
    ]  # fmt: skip
    assert store.labels.counts(0)["refused"] == 1
    assert store.costs.committed() == 1.0 + 3.5
    assert store.costs.bought(1) == (0, 3.5)
    assert store.costs.mean(1) == 3.5 / 2
    assert store.labels.last_answers(20) == [True, False]  # what was paid; what is infeasible is no failure
    assert [(refusal["kind"], refusal["count"]) for refusal in store.labels.reasons(0)] == [
        ("infeasible", 1), ("infrastructure", 1), ("refused", 1), ("timeout", 1),
    ]  # fmt: skip


def test_label_of_a_sample_is_the_answer_to_the_request_that_was_closed_first(store: RunStore) -> None:
    """Of those closed in one step, to the lowest slot; second opinions are kept beside it."""

    def asked(step: int, *places: tuple[int, int]) -> list[Request]:
        made = []
        for ordinal, (sample, slot) in enumerate(places):
            request = Request(request_id("r1", step, ordinal), step, ordinal, sample, 0, slot)
            made.append(AskedRequest(request, sample, "uq", None, ordinal, 1.0))
        store.commit_query(step, made, [], "model")
        return [request.request for request in made]

    def answer(step: int, *answers: tuple[Request, int]) -> list[tuple[Any, int, str | None]]:
        with store.answering(step) as writer:
            for request, value in answers:
                writer.accept(request, label(request, value), corrects=request in corrected)
        return [(answer.request.item, answer.request.slot, answer.value) for answer in store.labels.accepted(step)]

    corrected: list[Request] = []
    first, other, late = asked(0, (7, 0), (8, 0), (9, 0))
    second, second_late = asked(1, (7, 1), (9, 1))
    assert answer(1, (second, 1), (first, 0), (other, 2), (second_late, 5)) == [(7, 0, "0"), (8, 0, "2"), (9, 1, "5")]
    assert store.labels.second_opinions(1) == {second.id}
    corrected = [first, second]
    assert answer(1, (second, 3), (first, 4)) == [(7, 0, "4"), (8, 0, "2"), (9, 1, "5")]
    assert answer(2, (late, 6)) == []  # the sample has its label, which training has seen
    assert store.labels.second_opinions(2) == {late.id}
    assert [request["value"] for request in Run(store.folder).requests()] == ["4", "2", "6", "3", "5"]


def test_sample_has_one_request_a_slot(store: RunStore) -> None:
    ask(store, 0, 7)
    with pytest.raises(sqlite3.IntegrityError):
        ask(store, 1, 7)


def test_given_up_request_is_failed_in_its_step(store: RunStore) -> None:
    first, second = ask(store, 0, 7, "text")
    with store.answering(3) as writer:
        for request in (first, second):
            writer.refuse(request.id, "null", "lost")
            writer.retry(request.id, 1)
            writer.give_up(request.id)
    state = store.labels.labeling(3)
    assert state.open == []
    assert state.given_up == {7: first.id}
    assert store.labels.labeling(0).given_up == {}
    assert store.labels.counts(3) == {"labeled": 0, "failed": 2, "refused": 2, "repeated": 0}
    assert [(row["state"], row["attempt"]) for row in Run(store.folder).requests()] == [("failed", 1)] * 2


def test_refused_answers_are_kept_with_their_reasons_and_repeats_counted_apart(store: RunStore) -> None:
    (request,) = ask(store, 0, 7)
    with store.answering(0) as writer:
        writer.refuse(None, '"what"', "nobody asked for it")
        writer.refuse(request.id, "7", "a repeat", kind="repeat")
    shared = {"step": 0, "cost": None}
    assert Run(store.folder).refused() == [
        {**shared, "request": None, "kind": "refused", "item": '"what"', "reason": "nobody asked for it"},
        {**shared, "request": request.id, "kind": "repeat", "item": "7", "reason": "a repeat"},
    ]
    assert store.labels.counts(0) == {"labeled": 0, "failed": 0, "refused": 1, "repeated": 1}


def test_label_strategy_state_is_the_one_kept_last(store: RunStore) -> None:
    for step, text in ((0, "first"), (0, "second"), (2, "third")):
        with store.answering(step) as writer:
            writer.keep_state(text)
        assert store.labels.strategy_state() == text
    assert store.meta() == {"status": "running"}


def test_label_strategy_state_of_a_committed_step_is_not_changed_by_a_replay(store: RunStore) -> None:
    for step, text in ((0, "first"), (0, "second"), (1, "third")):
        with store.answering(step) as writer:
            writer.keep_state(text)
        store.commit_step(step, {"step": step}, {}, [], None)
    store.commit_step(0, {"step": 0}, {}, [], None)
    kept = Run(store.folder).read("SELECT step, state FROM label_strategy ORDER BY step")
    assert [tuple(row) for row in kept] == [(0, "second"), (1, "third")]


# -- labeling phases -------------------------------------------------------------------------------------


def test_labeling_knows_whether_the_run_asks_for_samples(store: RunStore) -> None:
    ask(store, 0, "text")
    assert not store.labels.labeling(0).asks_for_samples
    ask(store, 1, 7)
    assert store.labels.labeling(0).asks_for_samples


def test_labeling_that_leaves_requests_open_ends_when_it_is_said_to(store: RunStore) -> None:
    ask(store, 0, 7)
    store.labels.end_labeling(0)
    assert [(store.labels.labeling(step).ended, store.labels.labeling(step).committed) for step in (0, 1)] == [
        (True, False),
        (False, False),
    ]
    store.labels.reopen_labeling()
    assert not store.labels.labeling(0).ended
    store.commit_step(0, {"step": 0}, {}, [], None)
    assert store.labels.labeling(0)[-2:] == (True, True)


def test_labeling_without_open_requests_writes_nothing_at_its_end(store: RunStore) -> None:
    (request,) = ask(store, 0, 7)
    with store.answering(0) as writer:
        writer.accept(request, label(request))
        writer.keep_state("state")
    before = (store.folder / "run.db").read_bytes()
    store.labels.end_labeling(0)
    assert (store.folder / "run.db").read_bytes() == before


def test_requests_in_flight_are_open_again_or_given_up(store: RunStore) -> None:
    first, second, third = ask(store, 0, 0, 1, 2)
    for request in (second, first):
        store.requests.mark_taken([request])
    assert ids(store.requests.in_flight()) == ids([first, second])
    store.requests.release_in_flight()
    assert store.requests.in_flight() == []
    assert len(store.labels.labeling(0).open) == 3
    store.requests.mark_taken([third])
    store.requests.release_in_flight(drop_in=0)
    assert store.requests.in_flight() == []
    assert ids(store.labels.labeling(0).open) == ids([first, second])
    assert store.labels.labeling(0).given_up == {2: third.id}
    assert Run(store.folder).refused()[0]["reason"] == "in doubt when the run was cut off, and dropped"


def test_handle_is_kept_until_the_next_attempt(store: RunStore) -> None:
    first, second, third = ask(store, 0, 7, 8, "text")
    assert [request.handle for request in store.labels.labeling(0).open] == [None] * 3
    store.requests.mark_taken([first])
    assert store.requests.set_handle(first, "job 1")
    assert store.requests.set_handle(first, "job 2")
    assert store.requests.set_handle(second, "job 3")
    assert [request.handle for request in store.labels.labeling(0).open] == ["job 2", "job 3", None]
    assert [request.handle for request in store.requests.in_flight()] == ["job 2"]
    with store.answering(0) as writer:
        writer.retry(first.id, 1)
        writer.accept(second, label(second))
        writer.give_up(third.id)
    assert [(request.attempt, request.handle) for request in store.labels.labeling(0).open] == [(1, None)]
    assert not any(
        store.requests.set_handle(request, "late") for request in (second, third, Request("0" * 32, 0, 9, 1))
    )
    assert [request["handle"] for request in Run(store.folder).requests()] == [None, "job 3", None]


def test_answered_request_is_not_in_flight(store: RunStore) -> None:
    requests = ask(store, 0, 0, 1, 2)
    for request in requests:
        store.requests.mark_taken([request])
    with store.answering(0) as writer:
        writer.accept(requests[0], label(requests[0]))
        writer.retry(requests[1].id, 1)
        writer.give_up(requests[2].id)
    assert store.requests.in_flight() == []
    assert [row["taken"] for row in Run(store.folder).read("SELECT taken FROM requests")] == [0, 0, 0]


# -- steps and records -----------------------------------------------------------------------------------


def test_steps_committed_and_last_step(store: RunStore) -> None:
    assert [store.steps.committed(), store.steps.last(), store.steps.is_committed(0)] == [0, -1, False]
    ask(store, 0)
    assert [store.steps.committed(), store.steps.last()] == [0, 0]
    store.commit_step(0, {"step": 0}, {}, [], None)
    assert [store.steps.committed(), store.steps.last(), store.steps.is_committed(0)] == [1, 0, True]
    store.commit_step(3, {"step": 3}, {}, [], None)  # those who call the phases by hand may skip some
    assert [store.steps.committed(), store.steps.last(), store.steps.is_committed(2)] == [4, 3, False]


def test_first_training_step_follows_the_first_label(store: RunStore) -> None:
    (request,) = ask(store, 1, 7)
    assert store.steps.first_training() is None
    with store.answering(1) as writer:
        writer.accept(request, label(request))
    assert store.steps.first_training() == 2


def test_records_that_a_replay_repeats_stay_as_they_are(store: RunStore) -> None:
    store.commit_query(0, [], [Record(0, "f1", 0, {"f1": 0.5})], "m")
    store.commit_step(0, {"step": 0}, {}, [Record(0, "f1", 0, {"f1": 0.75}), Record(0, "f1", 1, (1,))], None)
    assert store.steps.record_texts(0, "f1") == ['{"f1":0.5}', dumps((1,))]
    assert store.steps.records(1, "f1") == [{"f1": 0.5}, (1,)]
    assert store.steps.records(0, "f1") == store.steps.records(1, "f2") == []


# -- replicas --------------------------------------------------------------------------------------------


def test_replica_holds_the_same_tables_and_writes_no_file_of_the_run(store: RunStore) -> None:
    first, second, third = ask(store, 0, 7, 8, 9)
    replica = Replica(store.transfer.image())
    before = sorted(store.folder.rglob("*"))
    for each in (store, replica):
        each.commit_checkpoint(0, "training", 1, {"value": 1})
    with store.answering(0) as writer:
        writer.accept(first, label(first, 0))
        writer.accept(first, label(first, 1), corrects=True)
        writer.refuse(second.id, "null", "lost")
        writer.retry(second.id, 1)
        writer.give_up(second.id)
        writer.keep_state("state")
    store.requests.mark_taken([third])
    replica.apply_label_changes(store.transfer.label_changes(0))
    replica.apply_label_changes(store.transfer.label_changes(0))
    for each in (store, replica):
        each.commit_step(0, {"step": 0}, {}, [Record(0, "f1", 0, 0.5)], {"value": 2})
        each.finish([], status="done")
    names = ("requests", "labels", "refused", "records", "steps", "queries", "label_strategy", "run", "checkpoints")
    mine, theirs = (
        [
            [{key: value for key, value in dict(row).items() if "digest" not in key} for row in run.read(query)]
            for query in (f"SELECT * FROM {table} ORDER BY 1, 2, 3" for table in names)
        ]
        for run in (Run(store.folder), Run(replica.folder))
    )
    assert theirs[:-1] == mine[:-1]
    assert replica.transfer.label_rows(0) == store.transfer.label_rows(0)
    assert [checkpoint["phase"] for checkpoint in replica.steps.checkpoints()] == ["start"]
    assert {path.name for path in replica.folder.iterdir()} == {"run.db"}
    assert {path.name for path in set(store.folder.rglob("*")) - set(before)} == {
        "000000-training-000001.safetensors", "000000-labeling-000000.safetensors", "driver_log.json", "f1.json"
    }  # fmt: skip
    replica.close()
    assert not replica.folder.exists()
