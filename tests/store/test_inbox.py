"""Answers that are published arrive whole and in order; what is malformed, or foreign, ends no run."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alcore.codec import dumps
from alcore.errors import EncodingError, UsageError
from alcore.protocols import Failed, Label, Request
from alcore.store import inbox as module
from alcore.store.files import StorageError
from alcore.store.inbox import Inbox
from alcore.store.rows import AcceptedLabel, AskedRequest, request_id
from alcore.store.run import RunStore

REQUEST = Request(request_id("r1", 2, 3), 2, 3, torch.arange(3.0), 1)
NAME = f"{7:020d}-0123abcd.json"


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path / "inbox")


def only(inbox: Inbox) -> list[Any]:
    ((_, answers, fault),) = inbox.read()
    assert fault == ""
    assert answers is not None
    return answers


def written(inbox: Inbox, text: str | bytes, name: str = NAME) -> Path:
    """Put a file into the inbox as another program would."""
    inbox.folder.mkdir(exist_ok=True)
    path = inbox.folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# -- publishing ------------------------------------------------------------------------------------------


def test_published_answers_come_back_as_they_were(inbox: Inbox) -> None:
    values = [7, np.int64(7), True, None, (1, 2), {"a": [1.5, float("inf")]}, "text"]
    inbox.publish([Label(7, (1, 2), "ann", 0.5), Label("x", None), Failed(9, "lost"), *values])
    answers = only(inbox)
    assert [(answer.item, answer.value, answer.source, answer.cost) for answer in answers[:2]] == [
        (7, (1, 2), "ann", 0.5),
        ("x", None, "", None),
    ]
    assert (type(answers[2]), answers[2].item, answers[2].reason) == (Failed, 9, "lost")
    assert answers[3:] == values
    assert [type(answer) for answer in answers[3:]] == [type(value) for value in values]


def test_published_tensors_come_back_as_they_were(inbox: Inbox) -> None:
    inbox.publish([Label(torch.arange(3), torch.ones(2, dtype=torch.float16)), np.arange(2.0)])
    label, array = only(inbox)
    assert torch.equal(label.item, torch.arange(3))
    assert torch.equal(label.value, torch.ones(2, dtype=torch.float16))
    assert array.tolist() == [0.0, 1.0]


def test_what_a_person_told_is_known_by_the_name_of_its_file(inbox: Inbox) -> None:
    paths = [inbox.publish([Label(REQUEST, place)], told=bool(place % 2)) for place in range(4)]
    read = list(inbox.read())
    assert [path for path, _, _ in read] == paths, "in the order of arrival"
    assert [inbox.is_told(path) for path, _, _ in read] == [False, True, False, True]
    assert [answers[0].value for _, answers, _ in read if answers] == [0, 1, 2, 3]


def test_request_is_published_by_its_id_alone(inbox: Inbox) -> None:
    path = inbox.publish([Label(REQUEST, 1), Failed(REQUEST, "lost"), (1, 2)])
    assert path.read_text().count(REQUEST.id) == 2
    assert "$tensor" not in path.read_text()
    label, failed, value = only(inbox)
    assert [label.item.id, failed.item.id] == [REQUEST.id] * 2
    assert (label.item.item, label.item.attempt) == (None, 0)
    assert value == (1, 2)


def test_labels_that_a_labeling_phase_will_refuse_are_published(inbox: Inbox) -> None:
    inbox.publish([Label(1, float("nan")), Label(1, 0, 3, "much"), Failed(1, None)])  # type: ignore[arg-type]
    answers = only(inbox)
    assert np.isnan(answers[0].value)
    assert (answers[1].source, answers[1].cost, answers[2].reason) == (3, "much", None)


@pytest.mark.parametrize("answer", [object(), Label(1, object()), Label(object(), 1), Label(1, 2, cost=object())])  # type: ignore[arg-type]
def test_answer_that_cannot_be_stored_publishes_nothing(inbox: Inbox, answer: Any) -> None:
    with pytest.raises(EncodingError):
        inbox.publish([7, answer])
    assert not inbox.folder.exists()


def test_published_file_is_flushed_before_it_has_its_name(inbox: Inbox, disk_events: list[Any]) -> None:
    path = inbox.publish([1, 2])
    assert disk_events == [("fsync", path.read_bytes()), ("rename", path.name), ("fsync folder", "inbox")]


def test_full_disk_is_a_storage_error(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match=r"can't be written: .*No space left.*make room"):
        inbox.publish([1])
    assert list(inbox.folder.iterdir()) == []


# -- reading ---------------------------------------------------------------------------------------------


def test_inbox_that_does_not_exist_is_empty(inbox: Inbox) -> None:
    assert list(inbox.read()) == []
    assert not inbox.folder.exists()


def test_files_are_read_in_the_order_of_arrival(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10**18, 10**18, 10**18 - 5, 10**19 + 1])  # a clock that stands still, and one that is set back
    monkeypatch.setattr(module.time, "time_ns", lambda: next(times))
    paths = [inbox.publish([place]) for place in range(4)]
    assert [(path, answers) for path, answers, _ in inbox.read()] == [
        (path, [place]) for place, path in enumerate(paths)
    ]


def test_threads_publish_without_losing_any_file(inbox: Inbox) -> None:
    threads = [
        threading.Thread(target=lambda name=name: [inbox.publish([name, place]) for place in range(10)])
        for name in "abc"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    pairs = [tuple(answers or ()) for _, answers, _ in inbox.read()]
    assert sorted(pairs) == sorted((name, place) for name in "abc" for place in range(10))
    for name in "abc":
        assert [place for who, place in pairs if who == name] == list(range(10))


def test_another_process_may_publish(inbox: Inbox) -> None:
    script = "import sys; from pathlib import Path; from alcore.protocols import Label\n"
    script += "from alcore.store.inbox import Inbox\n"
    script += "Inbox(Path(sys.argv[1])).publish([Label(7, 1, 'bob')])"
    subprocess.run([sys.executable, "-c", script, str(inbox.folder)], check=True, timeout=60)
    assert only(inbox)[0].source == "bob"


def test_file_stays_until_it_is_removed(inbox: Inbox) -> None:
    path = inbox.publish([1])
    assert only(inbox) == only(inbox) == [1]
    inbox.remove(path)
    inbox.remove(path)
    assert list(inbox.read()) == []


def test_file_that_vanishes_while_others_are_read_is_skipped(inbox: Inbox) -> None:
    paths = [inbox.publish([place]) for place in range(3)]
    contents = []
    for path, answers, _ in inbox.read():
        contents.append(answers)
        if path == paths[0]:
            paths[1].unlink()
    assert contents == [[0], [2]]


# -- malformed files -------------------------------------------------------------------------------------

ENVELOPE = '{"format":2,"answers":[%s]}'


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "JSON"),
        ("{", "JSON"),
        (b"\xff\xfe", "decode"),
        ("[]", "not a batch of answers of format 2"),
        ('{"answers":[]}', "not a batch"),
        ('{"format":3,"answers":[]}', "format 2"),
        ('{"format":2}', "a batch has"),
        ('{"format":2,"answers":{}}', "a batch has"),
        ('{"format":2,"answers":[],"more":1}', "a batch has"),
        (ENVELOPE % "7", "kind None"),
        (ENVELOPE % '{"kind":"lable"}', "kind 'lable'; it must be one of label, failed"),
        (ENVELOPE % '{"kind":["label"]}', "must be one of"),
        (ENVELOPE % '{"kind":"value"}', "kind value has the members 'kind'"),
        (ENVELOPE % '{"kind":"value","value":1,"item":2}', "kind value has"),
        (ENVELOPE % '{"kind":"label","item":1,"value":1,"source":""}', "kind label has"),
        (ENVELOPE % '{"kind":"label","item":1,"request":"x","value":1,"source":"","cost":1}', "kind label has"),
        (ENVELOPE % '{"kind":"label","value":1,"source":"","cost":1}', "kind label has"),
        (ENVELOPE % '{"kind":"answer","item":1,"value":1}', "kind 'answer'"),
        (ENVELOPE % '{"kind":"failed","request":"../x","reason":"","failure":"timeout","cost":null}', "32 hexadecimal"),
        (ENVELOPE % '{"kind":"failed","request":7,"reason":"","failure":"timeout","cost":null}', "32 hexadecimal"),
        (ENVELOPE % '{"kind":"value","value":{"$later":1}}', "tag '$later'"),
        (ENVELOPE % '{"kind":"value","value":{"$tensor":"w"}}', "names the tensor 'w'"),
        (ENVELOPE % '{"kind":"value","value":{"$tensor":["float32",[9],"AAAA"]}}', ""),
        (ENVELOPE % '{"kind":"value","value":{"$tensor":7}}', ""),
        (ENVELOPE % '{"kind":"value","value":{"$scalar":["O","AAAAAAAAAAA="]}}', ""),
        (ENVELOPE % '{"kind":"value","value":{"$device":"nowhere"}}', ""),
        (ENVELOPE % '{"kind":"value","value":{"$bytes":7}}', ""),
        (
            ENVELOPE % ('{"kind":"value","value":%s}' % ("[" * 100_000 + "]" * 100_000)),
            "nested more than 400 levels deep",
        ),
    ],
)
def test_malformed_file_is_told_and_keeps_no_other(inbox: Inbox, text: str | bytes, fault: str) -> None:
    bad = written(inbox, text)
    good = inbox.publish([1])
    files = list(inbox.read())
    assert files[1] == (good, [1], "")
    assert files[0][:2] == (bad, None)
    assert files[0][2]
    assert fault in files[0][2]


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "kind",
                    "value",
                    "item",
                    "request",
                    "source",
                    "cost",
                    "reason",
                    "$tensor",
                    "$scalar",
                    "$tuple",
                    "$dict",
                ]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(answers=st.lists(ANY_JSON, max_size=3) | ANY_JSON, cut=st.none() | st.integers(0, 60))
def test_no_content_ends_a_run(tmp_path: Path, answers: Any, cut: int | None) -> None:
    inbox = Inbox(tmp_path / "inbox")
    path = written(inbox, json.dumps({"format": 1, "answers": answers})[:cut])
    ((file, read, fault),) = inbox.read()
    assert file == path
    assert (read is None) == bool(fault)


def test_large_file_is_read(inbox: Inbox) -> None:
    inbox.publish([torch.zeros(500_000), *range(1000)])
    assert len(only(inbox)) == 1001


def test_malformed_file_is_set_aside(inbox: Inbox) -> None:
    path = written(inbox, "{")
    inbox.set_aside(path)
    inbox.set_aside(path)
    assert list(inbox.read()) == []
    assert (inbox.folder / "refused" / NAME).read_text() == "{"


def test_file_that_may_not_be_read_is_a_fault(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_flags: int) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    written(inbox, dumps({"format": 1, "answers": []}))
    monkeypatch.setattr(os, "open", refuse)
    ((_, answers, fault),) = inbox.read()
    monkeypatch.undo()
    assert answers is None
    assert "Permission denied" in fault


# -- foreign files ---------------------------------------------------------------------------------------


def test_files_of_other_names_are_left_alone(inbox: Inbox) -> None:
    names = [f".{NAME}.part", f"{NAME}.bak", "7-0123abcd.json", f"{7:020d}-0123ABCD.json", f"{7:021d}-0123abcd.json",
             "\N{ARABIC-INDIC DIGIT SEVEN}" * 20 + "-0123abcd.json", "notes.txt", f"{NAME}\n"]  # fmt: skip
    for name in names:
        written(inbox, dumps({"format": 1, "answers": [1]}), name)
    assert list(inbox.read()) == []
    assert {path.name for path in inbox.folder.iterdir()} == set(names)


@pytest.mark.parametrize("kind", ["link", "broken link", "folder", "pipe"])
def test_what_is_not_a_regular_file_is_skipped(tmp_path: Path, inbox: Inbox, kind: str) -> None:
    inbox.folder.mkdir()
    path, elsewhere = inbox.folder / NAME, tmp_path / "elsewhere.json"
    elsewhere.write_text(dumps({"format": 1, "answers": []}))
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(elsewhere if kind == "link" else tmp_path / "missing")
    good = inbox.publish([1])
    assert list(inbox.read()) == [(good, [1], "")]


@pytest.mark.parametrize("act", ["publish", "read"])
def test_inbox_that_is_a_link_is_refused(tmp_path: Path, inbox: Inbox, act: str) -> None:
    elsewhere = Inbox(tmp_path / "elsewhere")
    path = elsewhere.publish([1])
    inbox.folder.symlink_to(elsewhere.folder)
    with pytest.raises(UsageError, match="inbox is a symbolic link"):
        list(inbox.read()) if act == "read" else inbox.publish([2])
    assert list(elsewhere.folder.iterdir()) == [path]


def test_malformed_file_is_not_moved_through_a_link(tmp_path: Path, inbox: Inbox) -> None:
    path = written(inbox, "{")
    (tmp_path / "elsewhere").mkdir()
    (inbox.folder / "refused").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="refused is a symbolic link"):
        inbox.set_aside(path)
    assert path.exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_leftover_of_a_killed_publisher_is_ignored(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        patched.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(SystemExit):
            inbox.publish([1])
    assert len(list(inbox.folder.iterdir())) == 1
    assert list(inbox.read()) == []


def test_failure_keeps_kind_and_cost(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "inbox")
    inbox.publish([Failed(7, "too slow", "timeout", 2.5)])
    failures = [answers[0] for _, answers, _ in inbox.read() if answers]
    assert [(answer.item, answer.reason, answer.kind, answer.cost) for answer in failures] == [
        (7, "too slow", "timeout", 2.5)
    ]


# -- in a run --------------------------------------------------------------------------------------------


def test_new_run_has_an_empty_inbox(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path, "r1", meta={}, experiment="", state={})
    assert list((store.folder / "inbox").iterdir()) == []
    assert list(store.inbox.read()) == []
    store.close()


def test_file_is_read_again_after_a_crash_between_commit_and_removal(tmp_path: Path) -> None:
    """The second time its answers are repeats of what is committed, and no label is stored twice."""

    def take_in(store: RunStore) -> list[Path]:
        paths = []
        for path, answers, _ in store.inbox.read():
            state = store.labels.labeling(0)
            with store.answering(0) as writer:
                for answer in answers or ():
                    request = next((open_ for open_ in state.open if open_.id == answer.item.id), None)
                    if request is None:
                        writer.refuse(answer.item.id, dumps(answer.value), "a repeat", kind="repeat")
                    else:
                        writer.accept(request, AcceptedLabel(request, answer, "label", "", dumps(answer.value), 1.0))
            paths.append(path)
        return paths

    store = RunStore.create(tmp_path, "r1", meta={}, experiment="", state={})
    request = Request(request_id("r1", 0, 0), 0, 0, 7)
    store.commit_query(0, [AskedRequest(request, 7, "uq", None, 0, 1.0)], [], "m")
    Inbox(store.folder / "inbox").publish([Label(request, 1)])
    (path,) = take_in(store)
    store.close()  # killed before the file is removed
    store = RunStore.open(tmp_path, "r1")
    assert take_in(store) == [path]
    store.inbox.remove(path)
    assert take_in(store) == []
    assert store.labels.counts(0) == {"labeled": 1, "failed": 0, "refused": 0, "repeated": 1}
    assert len(store.transfer.label_rows(0)) == 1
    store.close()
