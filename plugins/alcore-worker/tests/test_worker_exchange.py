"""The exchange, in each backend: tasks wait, are claimed by one worker, and have one answer; nothing is lost."""

import errno
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
import redis
from alcore_worker import open_exchange
from alcore_worker.exchange import AwayError, FullError
from alcore_worker.folder import FolderExchange
from alcore_worker.names import DocumentError, task_name

from alcore.errors import UsageError

RUN = "run-0123456789ab"
IDS = [task_name(0, place, f"{place:032x}", 0) for place in range(40)]


def tasks(n):
    return {name: f'{{"n": {place}}}'.encode() for place, name in enumerate(IDS[:n])}


def claimed(exchange, worker, most, run=RUN):
    """Claim up to so many tasks."""
    claims = []
    while len(claims) < most and (claim := exchange.claim(run, worker)) is not None:
        claims.append(claim)
    return claims


def answers(exchange, names=None):
    """Return the answers of these names, or all."""
    return {name: exchange.read_answer(RUN, name) for name in (exchange.answered(RUN) if names is None else names)}


@pytest.fixture
def shared(tmp_path):
    """The folder of an exchange that has a run, and another folder, which is none of its business."""
    for name in ("shared", "other"):
        (tmp_path / name).mkdir()
    open_exchange(str(tmp_path / "shared")).begin(RUN, b"{}")
    return tmp_path / "shared"


@pytest.fixture
def exchange(place):
    made = open_exchange(place)
    made.begin(RUN, b'{"note": 1}')
    return made


def test_oldest_tasks_are_claimed_first_and_once(exchange):
    exchange.put(RUN, tasks(5))
    assert exchange.runs() == [RUN]
    assert exchange.note(RUN) == b'{"note": 1}'
    assert exchange.waiting(RUN) == 5
    first = claimed(exchange, "one-1-00000001", 2)
    assert [(claim.name, claim.document) for claim in first] == list(tasks(2).items())
    assert [claim.name for claim in claimed(exchange, "two-2-00000002", 9)] == IDS[2:5]
    assert claimed(exchange, "two-2-00000002", 9) == []
    assert exchange.known(RUN) == set(IDS[:5])


def test_many_workers_never_claim_the_same_task(exchange, place):
    exchange.put(RUN, tasks(40))
    found, start = [], threading.Barrier(4)

    def work(number):
        mine = open_exchange(place)
        start.wait()
        while claim := mine.claim(RUN, f"w-{number}-0000000{number}"):
            found.append(claim.name)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == IDS


def test_claim_finds_what_others_have_left(exchange):
    """A worker that knows of many tasks, of which all but a few are gone, in whatever place these stand."""
    for left in ([1], [39], [17, 18, 30]):
        exchange.put(RUN, tasks(40))
        (first,) = claimed(exchange, "one-1-00000001", 1)
        exchange.withdraw(RUN, [name for place, name in enumerate(IDS) if place and place not in left])
        batches = [claimed(exchange, "one-1-00000001", 1) for _ in left]
        assert sorted(claim.name for batch in batches for claim in batch) == [IDS[place] for place in left]
        assert claimed(exchange, "one-1-00000001", 1) == []
        exchange.remove(RUN, [first.name, *(IDS[place] for place in left)])


def test_task_that_is_known_is_not_put_again(exchange):
    exchange.put(RUN, tasks(3))
    (claim,) = claimed(exchange, "one-1-00000001", 1)
    exchange.answer(RUN, claim, b"done")
    claimed(exchange, "one-1-00000001", 1)
    exchange.put(RUN, tasks(4))
    assert [claim.name for claim in claimed(exchange, "two-2-00000002", 9)] == IDS[2:4]


def test_answer_stays_until_it_is_removed(exchange):
    exchange.put(RUN, tasks(2))
    for claim in claimed(exchange, "one-1-00000001", 2):
        exchange.answer(RUN, claim, f"answer to {claim.name}".encode())
    assert exchange.answered(RUN) == IDS[:2]
    assert answers(exchange, IDS[:2]) == {name: f"answer to {name}".encode() for name in IDS[:2]}
    exchange.remove(RUN, [IDS[0]])
    assert exchange.answered(RUN) == [IDS[1]]
    assert exchange.known(RUN) == {IDS[1]}
    assert answers(exchange, IDS[:1]) == {IDS[0]: b""}


def test_task_that_is_given_back_waits_again(exchange):
    exchange.put(RUN, tasks(2))
    (claim,) = claimed(exchange, "one-1-00000001", 1)
    exchange.give_back(RUN, claim)
    exchange.give_back(RUN, claim)  # the second time it is nobody's
    assert sorted(claim.name for claim in claimed(exchange, "two-2-00000002", 9)) == IDS[:2]


def until(true, seconds=10):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)


def test_work_of_silent_worker_is_given_to_another(exchange, place):
    exchange.put(RUN, tasks(3))
    silent, alive = "one-1-00000001", "two-2-00000002"
    exchange.beat(silent)
    exchange.beat(alive)
    assert exchange.workers(60) == 2
    (lost,) = claimed(exchange, silent, 1)
    worker = open_exchange(place)
    assert len(claimed(worker, alive, 1)) == 1

    def taken_back():
        worker.beat(alive)
        assert exchange.take_back(RUN, 0.4, 3) == []
        return exchange.waiting(RUN) == 2

    until(taken_back)
    again = claimed(worker, alive, 9)
    assert sorted(claim.name for claim in again) == [IDS[0], IDS[2]]
    assert {claim.name: claim.document for claim in again}[IDS[0]] == lost.document


def test_task_that_workers_fall_silent_over_is_given_up(exchange):
    exchange.put(RUN, tasks(1))
    given_up = []

    def lost_again():
        claimed(exchange, "one-1-00000001", 1)
        given_up.extend(exchange.take_back(RUN, 0.1, 2))
        return given_up

    until(lost_again)
    assert given_up == IDS[:1]
    exchange.remove(RUN, given_up)
    assert exchange.known(RUN) == set()


def test_first_answer_counts(exchange):
    """A worker that was thought dead answers as well as the one that got its task."""
    exchange.put(RUN, tasks(1))
    (first,) = claimed(exchange, "one-1-00000001", 1)
    until(lambda: exchange.take_back(RUN, 0.1, 9) == [] and exchange.waiting(RUN) == 1)
    (second,) = claimed(exchange, "two-2-00000002", 1)
    exchange.answer(RUN, second, b"by the second")
    exchange.answer(RUN, first, b"by the first")
    assert answers(exchange, IDS[:1]) == {IDS[0]: b"by the second"}
    exchange.give_back(RUN, first)
    assert exchange.waiting(RUN) == 0


def test_late_answer_counts_if_it_is_the_first(exchange):
    exchange.put(RUN, tasks(1))
    (claim,) = claimed(exchange, "one-1-00000001", 1)
    until(lambda: exchange.take_back(RUN, 0.1, 9) == [] and exchange.waiting(RUN) == 1)
    exchange.answer(RUN, claim, b"late")
    assert exchange.answered(RUN) == IDS[:1]
    assert claimed(exchange, "two-2-00000002", 1) == []  # it is answered


def test_answered_task_is_not_taken_back(exchange):
    exchange.put(RUN, tasks(1))
    (claim,) = claimed(exchange, "one-1-00000001", 1)
    exchange.answer(RUN, claim, b"done")
    for _ in range(4):
        assert exchange.take_back(RUN, 0.05, 1) == []
        time.sleep(0.05)
    assert exchange.waiting(RUN) == 0


def test_blobs_come_back_until_their_task_is_removed(exchange):
    digest = exchange.put_blob(RUN, b"12" * 1000)
    assert exchange.get_blob(RUN, digest) == b"12" * 1000
    exchange.put(RUN, {IDS[0]: f'{{"blob": "{digest}"}}'.encode()})
    exchange.remove(RUN, [IDS[0]])
    with pytest.raises(DocumentError, match="not there"):
        exchange.get_blob(RUN, digest)


def test_worker_that_left_is_not_counted(exchange):
    exchange.beat("one-1-00000001")
    exchange.leave("one-1-00000001")
    assert exchange.workers(60) == 0


@pytest.mark.parametrize("comes", ["before", "after"])
def test_answer_to_a_task_that_was_given_up_is_kept(exchange, comes):
    exchange.put(RUN, tasks(2))
    claim, other = claimed(exchange, "one-1-00000001", 2)
    if comes == "before":
        exchange.answer(RUN, claim, b"late")
    exchange.give_up(RUN, [claim.name, other.name])
    if comes == "after":
        exchange.answer(RUN, claim, b"late")
    assert exchange.known(RUN) == {claim.name}
    assert answers(exchange) == {claim.name: b"late"}
    exchange.remove(RUN, [claim.name])
    assert exchange.known(RUN) == set()


def test_what_waits_is_withdrawn_and_nothing_else(exchange):
    digest = exchange.put_blob(RUN, b"12")
    exchange.put(RUN, {**tasks(3), IDS[3]: f'{{"blob": "{digest}"}}'.encode()})
    first, second = claimed(exchange, "one-1-00000001", 2)
    exchange.answer(RUN, first, b"done")
    assert exchange.withdraw(RUN, [first.name, second.name]) == set()
    assert exchange.withdraw(RUN, [second.name, IDS[2]]) == {IDS[2]}
    assert exchange.withdraw(RUN) == {IDS[3]}
    assert exchange.known(RUN) == {first.name, second.name}
    assert claimed(exchange, "one-1-00000001", 9) == []
    with pytest.raises(DocumentError):
        exchange.get_blob(RUN, digest)


def test_driver_is_heard_of(exchange):
    assert not exchange.is_attended(RUN, 60)
    exchange.attend(RUN)
    assert exchange.is_attended(RUN, 60)
    time.sleep(0.3)
    assert not exchange.is_attended(RUN, 0.2)


def test_many_tasks_and_answers_come_back_each_as_it_was(exchange, place):
    many = {task_name(0, n, f"{n:032x}", 0): f"document {n}".encode() * (1 + n % 7) for n in range(700)}
    exchange.put(RUN, many)
    claims = claimed(exchange, "one-1-00000001", 1000)
    assert {claim.name: claim.document for claim in claims} == many
    for claim in claims:
        exchange.answer(RUN, claim, b"answer to " + claim.document)
    by_name = answers(open_exchange(place))
    assert by_name == {name: b"answer to " + document for name, document in many.items()}
    exchange.remove(RUN, many)
    assert exchange.known(RUN) == set()


def test_answer_waits_for_a_run_that_the_exchange_has_lost(exchange, place):
    """As a server that was started anew has: it is paid for, and the driver makes the run known again."""
    exchange.put(RUN, tasks(1))
    (claim,) = claimed(exchange, "one-1-00000001", 1)
    if place.startswith("unix:"):
        exchange._client.flushall()
    else:
        shutil.rmtree(Path(place) / "runs" / RUN)
    with pytest.raises(AwayError):
        exchange.answer(RUN, claim, b"done")
    exchange.begin(RUN, b"{}")
    exchange.answer(RUN, claim, b"done")
    assert answers(exchange) == {claim.name: b"done"}


@pytest.fixture
def two(tmp_path):
    """Two exchanges of one folder; `meanwhile` has something done when the first one lists what is claimed."""
    one, other = FolderExchange(tmp_path), FolderExchange(tmp_path)
    one.begin(RUN, b"{}")
    plain = one._tasks

    def meanwhile(before=lambda: None, after=lambda: None):
        def listed(run, kind):
            if kind == "claimed":
                before()
            entries = list(plain(run, kind))
            if kind == "claimed":
                after()
            return iter(entries)

        one._tasks = listed

    return one, other, meanwhile


def test_task_that_is_claimed_while_it_is_put_again_is_not_put(two):
    driver, worker, meanwhile = two
    driver.put(RUN, tasks(1))
    claims = []
    meanwhile(after=lambda: claims.extend(claimed(worker, "one-1-00000001", 1)))
    driver.put(RUN, tasks(1))
    assert len(claims) == 1
    assert claimed(worker, "two-2-00000002", 1) == []


def test_task_that_is_given_back_while_it_is_removed_is_removed(two):
    """One worker was thought dead and has answered; the other one, which had the task next, gives it back."""
    driver, worker, meanwhile = two
    driver.put(RUN, tasks(1))
    (first,) = claimed(worker, "one-1-00000001", 1)
    until(lambda: driver.take_back(RUN, 0.05, 9) == [] and driver.waiting(RUN) == 1)
    second = claimed(worker, "two-2-00000002", 1)
    worker.answer(RUN, first, b"done")
    meanwhile(before=lambda: worker.give_back(RUN, *second))
    driver.remove(RUN, IDS[:1])
    assert worker.known(RUN) == set()


def test_claim_that_failed_is_found_after_one_of_another_run(exchange, monkeypatch):
    other = "other-0123456789ab"
    exchange.begin(other, b"{}")
    exchange.put(other, tasks(2))
    assert len(claimed(exchange, "one-1-00000001", 2, other)) == 2  # tasks of two runs may have one name
    exchange.put(RUN, tasks(2))
    with monkeypatch.context() as failing:
        if isinstance(exchange, FolderExchange):
            failing.setattr(exchange, "_begin_claim", raising(OSError(errno.EIO, "the disk fails")))
        else:
            failing.setattr(exchange._client, "hget", raising(redis.ConnectionError("it broke")))
        with pytest.raises(AwayError):
            claimed(exchange, "one-1-00000001", 2)
    assert claimed(exchange, "one-1-00000001", 1, other) == []
    assert sorted(claim.name for claim in claimed(exchange, "one-1-00000001", 2)) == IDS[:2]


def raising(error):
    def fail(*args, **kwargs):
        raise error

    return fail


def test_disk_that_is_full_silences_nobody(tmp_path, monkeypatch):
    """A worker is heard of, its claims stay, and answers can be read; writing says that there is no room."""

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    exchange, worker = open_exchange(str(tmp_path)), open_exchange(str(tmp_path))
    exchange.begin(RUN, b"{}")
    exchange.put(RUN, tasks(2))
    done, claim = claimed(worker, "one-1-00000001", 2)
    worker.answer(RUN, done, b"done")
    worker.beat("one-1-00000001")
    monkeypatch.setattr("alcore_worker.files.os.pwrite", full)
    monkeypatch.setattr("alcore_worker.files.write", full)
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        worker.beat("one-1-00000001")
        assert exchange.take_back(RUN, 0.2, 1) == []
        time.sleep(0.05)
    for write in (
        lambda: worker.answer(RUN, claim, b"done"),
        lambda: exchange.put(RUN, tasks(3)),
        lambda: exchange.put_blob(RUN, b""),
    ):
        with pytest.raises(FullError, match="No space left"):
            write()
    assert answers(exchange, [done.name]) == {done.name: b"done"}
    exchange.remove(RUN, [done.name])
    exchange.begin(RUN, b"{}")
    assert exchange.known(RUN) == {claim.name}


def test_disk_without_hard_links_is_enough(tmp_path, monkeypatch):
    def none(*args, **kwargs):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("alcore_worker.files.os.link", none)
    exchange = open_exchange(str(tmp_path))
    exchange.begin(RUN, b"{}")
    exchange.put(RUN, tasks(3))
    claims = claimed(exchange, "one-1-00000001", 3)
    for claim in claims:
        exchange.answer(RUN, claim, b"first " + claim.document)
        exchange.answer(RUN, claim, b"second")
    assert answers(exchange, IDS[:3]) == {name: b"first " + one for name, one in tasks(3).items()}
    assert list((tmp_path / "runs" / RUN / "parts").iterdir()) == []


def test_heartbeat_writes_into_no_file_but_its_own(tmp_path):
    (tmp_path / "shared").mkdir()
    worker, other = "one-1-00000001", tmp_path / "other"
    exchange = open_exchange(str(tmp_path / "shared"))
    exchange.beat(worker)
    file = tmp_path / "shared" / "workers" / worker
    other.write_text("of somebody else")
    file.unlink()
    file.hardlink_to(other)
    exchange.beat(worker)
    assert other.read_text() == "of somebody else"
    assert file.stat().st_nlink == 1
    file.unlink()
    file.symlink_to(other)
    with pytest.raises(AwayError):
        exchange.beat(worker)
    assert other.read_text() == "of somebody else"


def test_heartbeat_is_heard_of_where_its_file_is_removed_meanwhile(shared, monkeypatch):
    """The driver removes it where it found the worker silent; no descriptor is closed twice."""
    exchange, file, opened = open_exchange(str(shared)), shared / "workers" / "one-1-00000001", os.open
    exchange.beat(file.name)

    def removed(path, *args, **kwargs):
        descriptor = opened(path, *args, **kwargs)
        if path == file and file.exists():
            file.unlink()
            monkeypatch.undo()
        return descriptor

    monkeypatch.setattr("alcore_worker.files.os.open", removed)
    exchange.beat(file.name)
    assert file.exists()


@pytest.mark.parametrize("kind", ["link", "folder", "long"])
def test_file_of_the_format_that_is_none_is_told(shared, kind):
    mark = shared / "alcore-exchange.txt"
    text = mark.read_text()
    mark.unlink()
    if kind == "link":
        (shared.parent / "other" / "text").write_text(text)
        mark.symlink_to(shared.parent / "other" / "text")
    elif kind == "folder":
        mark.mkdir()
    else:
        mark.write_text(text + " " * 200)
    with pytest.raises(UsageError, match="not what workers write there; remove it"):
        open_exchange(str(shared))


@pytest.mark.parametrize("kind", ["runs", "workers"])
def test_link_in_the_place_of_a_folder_leads_nowhere(shared, kind):
    exchange, other = open_exchange(str(shared)), shared.parent / "other"
    (other / "one-1-00000001").write_text("of somebody else")
    exchange.beat("one-1-00000001")
    exchange.put(RUN, tasks(1))
    claimed(exchange, "one-1-00000001", 1)
    (shared / kind).rename(shared / "away")
    (shared / kind).symlink_to(other)
    calls = {
        "runs": [exchange.runs, lambda: exchange.begin(RUN, b"{}"), lambda: exchange.known(RUN)],
        "workers": [
            lambda: exchange.take_back(RUN, 60, 1),
            lambda: exchange.workers(60),
            lambda: exchange.beat("one-1-00000001"),
            lambda: exchange.leave("one-1-00000001"),
        ],
    }
    for call in [lambda: open_exchange(str(shared)), *calls[kind]]:
        with pytest.raises(UsageError, match=f"{kind} is not a folder but a link"):
            call()
    assert [path.name for path in other.iterdir()] == ["one-1-00000001"]
    assert (other / "one-1-00000001").read_text() == "of somebody else"


@pytest.mark.parametrize("target", ["other", "nowhere"])
@pytest.mark.parametrize("link", [RUN, f"{RUN}/waiting"])
def test_nothing_is_made_where_a_link_of_a_run_leads(shared, link, target):
    shutil.rmtree(shared / "runs" / link)
    (shared / "runs" / link).symlink_to(shared.parent / target)
    with pytest.raises(DocumentError, match="is not a folder but a link"):
        open_exchange(str(shared)).begin(RUN, b"{}")
    assert [path.name for path in shared.parent.iterdir() if path.name != "shared"] == ["other"]
    assert list((shared.parent / "other").iterdir()) == []


def test_names_that_no_worker_has_written_cost_nothing_and_remove_nothing(shared):
    exchange = open_exchange(str(shared))
    exchange.put(RUN, tasks(3))
    (shared / "runs" / RUN / "waiting" / f"{IDS[9]}.999999.json").write_text("{}")
    (shared / "runs" / RUN / "claimed" / f"{IDS[8]}.0~notes.json").write_text("{}")
    (shared / "workers" / "notes").write_text("of somebody else")
    exchange = open_exchange(str(shared))
    begun = time.monotonic()
    exchange.remove(RUN, [*IDS[:2], IDS[9]])
    assert time.monotonic() - begun < 2.0, "each count up to that of the name was looked for"
    assert exchange.known(RUN) == {IDS[2], IDS[8]}
    until(lambda: exchange.take_back(RUN, 0.1, 3) == [] and exchange.waiting(RUN) == 2)
    assert (shared / "workers" / "notes").exists()


def test_files_of_processes_that_were_killed_are_removed_after_a_day(shared):
    killed = [
        shared / "workers" / "one-1-00000001",
        shared / f".{'0' * 16}.part",
        shared / "runs" / RUN / "parts" / ("0" * 16),
    ]
    others = [shared / "workers" / "notes", shared / "mine.part", shared / "workers" / "two-2-00000002"]
    for path in (*killed, *others):
        path.write_text("x")
    for path in (*killed, *others[:2]):
        os.utime(path, (time.time() - 90_000,) * 2)
    open_exchange(str(shared)).begin(RUN, b"{}")
    assert [path.exists() for path in killed + others] == [False] * 3 + [True] * 3
