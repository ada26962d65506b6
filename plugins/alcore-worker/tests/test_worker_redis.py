"""What is particular to Redis: addresses, the password, and a server that has lost everything."""

import contextlib
import json
import os
import re
import signal
import sys
import time

import pytest
import redis
import torch
from alcore_testing import build_driver, run_command
from alcore_worker import Worker, WorkerLabelStrategy, documents, open_exchange
from alcore_worker.exchange import AwayError, FullError
from alcore_worker.names import FORMAT, DocumentError, Note

from alcore import BaseLabel, BaseQuery, DataInfo, Failed, TensorPool
from alcore.errors import UsageError
from alcore.store import Run

SECRET = "s3cr3t-0f-the-lab"


def emptied(servers):
    """Return the server of Redis with nothing in it, and a client of it."""
    server = servers("redis-server")
    client = redis.Redis(unix_socket_path=str(server.socket))
    client.flushall()
    return server, client


class AskForAll(BaseQuery):
    def sample(self, query_queue, *args, **kwargs):
        query_queue.put_many(range(4))


class Echo(BaseLabel):
    remote = True

    def label(self, queue_to_label, serialize_queue, *args, **kwargs):
        while not queue_to_label.empty():
            request = queue_to_label.get_request()
            serialize_queue.put(self.driver.choice_pool.inputs(torch.tensor([request.item]))[0, 0])


class Failing(BaseLabel):
    remote = True

    def label(self, queue_to_label, serialize_queue, *args, **kwargs):
        while not queue_to_label.empty():
            serialize_queue.put(Failed(queue_to_label.get_request(), "no reason"))


def driver(folder, where, **options):
    return build_driver(
        folder,
        AskForAll(),
        pool=TensorPool(torch.arange(8.0).reshape(4, 2), info=DataInfo("regression", features=2)),
        learner=torch.nn.Linear(2, 1),
        label=WorkerLabelStrategy(where, longest_wait=0.05, **options),
        max_active_learning_steps=1,
        skip_training=True,
        run_id="r",
    )


def at_safe_points(made, *actions):
    """Have a driver call each of these once, one at each safe point."""
    original, left = made.safe_point, list(actions)

    def safe_point():
        original()
        if left:
            left.pop(0)()

    made.safe_point = safe_point


def work(where):
    Worker(open_exchange(where), Echo(), "echo", once=True).run()


@pytest.mark.parametrize("lost_keys", ["*", "*:tasks"])  # the second as by an eviction
def test_server_that_lost_something_gets_it_again(tmp_path, servers, monkeypatch, lost_keys):
    monkeypatch.setattr("alcore_worker.monitor._LOOK_FOR_LOST", 0.02)
    server, client = emptied(servers)
    made = driver(tmp_path, server.where)
    original = made.safe_point
    lost = []

    def safe_point():
        original()
        if not lost:
            client.delete(*client.keys(lost_keys))
            lost.append(True)
        elif client.keys("*:tasks"):
            work(server.where)

    made.safe_point = safe_point
    made.run()
    assert [float(made.train_datapool[place][1]) for place in range(4)] == [0.0, 2.0, 4.0, 6.0]


def test_nothing_is_left_but_the_note_of_the_run(tmp_path, servers):
    server, client = emptied(servers)
    made = driver(tmp_path, server.where)
    at_safe_points(made, lambda: work(server.where))
    made.run()
    (run,) = client.smembers("alcore:runs")
    stream = f"alcore:{{{run.decode()}}}:tasks"
    assert client.xlen(stream) == 0
    assert client.xpending(stream, "workers")["pending"] == 0
    left = {key.decode().rpartition(":")[2] for key in client.keys("*")}
    assert left == {"format", "runs", "drivers", "note", "tasks"}


def test_password_comes_from_the_environment_and_is_written_nowhere(tmp_path, own_server, monkeypatch):
    server = own_server("redis-server", "--requirepass", SECRET)
    with pytest.raises(UsageError, match="ALCORE_REDIS_PASSWORD"):
        WorkerLabelStrategy(server.where)
    monkeypatch.setenv("ALCORE_REDIS_PASSWORD", "wrong")
    with pytest.raises(UsageError, match="ALCORE_REDIS_PASSWORD") as refused:
        WorkerLabelStrategy(server.where)
    assert "wrong" not in str(refused.value)
    monkeypatch.setenv("ALCORE_REDIS_PASSWORD", SECRET)
    made = driver(tmp_path / "runs", server.where)
    at_safe_points(made, lambda: work(server.where))
    made.run()
    assert [request["state"] for request in Run(made.log_dir).requests()] == ["labeled"] * 4
    written = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert len(written) > 3
    assert [path for path in written if SECRET.encode() in path.read_bytes()] == []


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (f"redis://:{SECRET}@localhost", "ALCORE_REDIS_PASSWORD"),
        (f"redis://user:{SECRET}@localhost:1", "take it out"),
        (f"redis://localhost?password={SECRET}", "take it out"),
        ("redis://localhost?decode_responses=1", "decode_responses"),
        ("redis://localhost:1", "there is no Redis server for alcore at redis://localhost:1"),
        ("unix:///nowhere/at/all", "there is no Redis server"),
        ("http://localhost", "is not the address of a Redis server"),
        ("redis://localhost:port", "is not the address of a Redis server"),
        (f"redis://:{SECRET}@[::1", "Invalid IPv6 URL"),
        ("redis://%ff", "is not the address of a Redis server"),
        ("redis://localhost?ssl_ca_certs=ca.pem", "with redis:// it may have db"),
    ],
)
def test_bad_address_is_one_paragraph_and_exit_code_2(tmp_path, where, told):
    done = run_command(tmp_path, "worker", where, "--label", "function", "--set", "label.function.function=os:getpid")
    text = " ".join(done.err.split())
    assert done.code == 2
    assert told in text
    assert SECRET not in text
    assert "Traceback" not in text


def test_other_format_is_refused(servers):
    server, client = emptied(servers)
    client.set("alcore:format", 7)
    with pytest.raises(UsageError, match="exchange format '7'"):
        open_exchange(server.where)
    client.flushall()


def test_claim_of_which_the_reply_was_lost_is_made_again(servers):
    server, _ = emptied(servers)
    run, worker = "r-0123456789ab", f"here-{os.getpid()}-00000001"
    exchange = open_exchange(server.where)
    exchange.begin(run, b"{}")
    exchange.put(run, {f"000000-000000-{'0' * 32}-{n}": b"{}" for n in range(3)})
    held = exchange.claim(run, worker)
    original, replies = exchange._server.once.xreadgroup, [redis.ConnectionError("the reply was lost")]

    def lost_once(*args, **kwargs):
        reply = original(*args, **kwargs)
        if replies:
            raise replies.pop()
        return reply

    exchange._server.once.xreadgroup = lost_once
    again = [exchange.claim(run, worker) for _ in range(2)]
    assert len({claim.name for claim in [held, *again]}) == 3
    exchange.leave(worker)
    assert exchange.waiting(run) == 3


def test_claim_of_a_broken_connection_that_comes_late_is_found(servers):
    """The server carries it out after the worker has gone on with another connection."""
    server, client = emptied(servers)
    run, worker = "r-0123456789ab", f"here-{os.getpid()}-00000001"
    exchange = open_exchange(server.where)
    exchange.begin(run, b"{}")
    original = exchange._server.once.xreadgroup

    def breaks(*args, **kwargs):
        exchange._server.once.xreadgroup = original
        raise redis.TimeoutError("it took too long")

    exchange._server.once.xreadgroup = breaks
    assert exchange.claim(run, worker) is None
    late = f"000000-000000-{'0' * 32}-0"
    exchange.put(run, {late: b"{}"})
    client.xreadgroup("workers", worker, {f"alcore:{{{run}}}:tasks": ">"})
    assert exchange.claim(run, worker).name == late
    assert exchange.claim(run, worker) is None


def test_message_that_is_no_task_is_set_aside_and_told(servers, caplog):
    server, client = emptied(servers)
    run, name = "r-0123456789ab", f"000000-000000-{'0' * 32}-0"
    exchange = open_exchange(server.where)
    exchange.begin(run, Note("r", 0, 60.0).to_bytes())
    client.xadd(f"alcore:{{{run}}}:tasks", {"hello": "world"})
    exchange.put(
        run, {name: json.dumps({"format": FORMAT, "content": {"slot": 0, "sample": None, "item": 1}}).encode()}
    )
    Worker(exchange, Failing(), "failing", once=True).run()
    assert exchange.answered(run) == [name]
    assert client.xrange(f"alcore:{{{run}}}:aside")[0][1] == {b"hello": b"world"}
    assert len([record for record in caplog.records if "is no task" in record.message]) == 1


def test_server_without_memory_gives_nothing_up(tmp_path, own_server, monkeypatch):
    """Workers are heard of, and answers are read, which makes room; then the rest is sent."""
    monkeypatch.setattr("alcore_worker.run_tasks._ROOM_AGAIN", 0.05)
    server = own_server("redis-server", "--maxmemory", "100mb")
    client = redis.Redis(unix_socket_path=str(server.socket))
    made = driver(tmp_path / "runs", server.where, silent_after=0.3, most_lost=1)
    worker, name, claims = open_exchange(server.where), "here-1-00000001", []
    original, times = made.safe_point, []

    def safe_point():
        original()
        times.append(time.monotonic())
        if not claims:
            (run,) = worker.runs()
            claims.extend(worker.claim(run, name) for _ in range(4))
            client.config_set("maxmemory", 1)
            with pytest.raises(FullError):
                worker.answer(run, claims[0], b"{}")
        elif times[-1] - times[0] < 0.8:
            worker.beat(name)
        elif len(claims) == 4:
            client.config_set("maxmemory", 0)
            for claim in claims:
                worker.give_back(worker.runs()[0], claim)
            claims.clear()
            claims.append(None)
            work(server.where)

    made.safe_point = safe_point
    made.run()
    run = Run(made.log_dir)
    assert [request["state"] for request in run.requests()] == ["labeled"] * 4
    assert run.refused() == []


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda client, run: client.config_set("requirepass", SECRET), "NOAUTH|Authentication"),
        (lambda client, run: client.acl_setuser("default", commands=["-zadd"], enabled=True), "NOPERM|ACL|permissions"),
    ],
)
def test_what_the_server_refuses_for_good_ends_the_worker(own_server, spoil, told):
    server = own_server()
    client = redis.Redis(unix_socket_path=str(server.socket))
    run = "r-0123456789ab"
    exchange = open_exchange(server.where)
    exchange.begin(run, Note("r", 0, 60.0).to_bytes())
    exchange.put(run, {f"000000-000000-{'0' * 32}-0": b"{}"})
    spoil(client, run)
    exchange._client.connection_pool.disconnect()
    with pytest.raises(UsageError, match=told):
        Worker(exchange, Failing(), "failing").run()


@pytest.mark.parametrize("kind", ["tasks", "names", "answers", "note"])
def test_run_with_a_key_of_another_type_is_told_once_and_left_and_others_are_served(own_server, kind, caplog):
    server = own_server()
    client = redis.Redis(unix_socket_path=str(server.socket))
    exchange, runs = open_exchange(server.where), [f"{name}-0123456789ab" for name in ("a", "b", "c")]
    for run in runs:
        exchange.begin(run, Note(run[0], 0, 60.0).to_bytes())
        exchange.put(run, {f"000000-000000-{'0' * 32}-0": b"{}"})
    client.delete(f"alcore:{{{runs[1]}}}:{kind}")
    client.sadd(f"alcore:{{{runs[1]}}}:{kind}", "x")
    worker = Worker(exchange, Failing(), "failing", once=True)
    worker.run()
    assert worker.failures == 2
    assert worker.has_left
    told = [record.message for record in caplog.records if "can't be served" in record.message]
    assert len(told) == 1
    assert f"{kind} is a set" in told[0]


def test_user_who_may_not_ask_for_types_is_served(own_server):
    server = own_server()
    client = redis.Redis(unix_socket_path=str(server.socket))
    run = "r-0123456789ab"
    exchange = open_exchange(server.where)
    exchange.begin(run, Note("r", 0, 60.0).to_bytes())
    exchange.put(run, {f"000000-000000-{'0' * 32}-0": b"{}"})
    client.acl_setuser("default", commands=["-type"], enabled=True)
    exchange._client.connection_pool.disconnect()
    worker = Worker(exchange, Failing(), "failing", once=True)
    worker.run()
    assert worker.failures == 1


def test_server_that_is_read_only_for_long_is_told(servers, monkeypatch):
    exchange = open_exchange(servers("redis-server").where)
    fault = redis.ReadOnlyError("You can't write against a read only replica.")
    monkeypatch.setattr(exchange, "_call", lambda *args: (_ for _ in ()).throw(fault))
    with pytest.raises(AwayError):
        exchange.put("r-0123456789ab", {"a": b"{}"})
    monkeypatch.setattr("alcore_worker.redis_server._READ_ONLY_FOR", 0.0)
    with pytest.raises(UsageError, match="no writes for 0 s"):
        exchange.put("r-0123456789ab", {"a": b"{}"})


def test_arrays_that_the_server_would_not_take_are_refused(servers, monkeypatch):
    monkeypatch.setattr("alcore_worker.redis_streams._LARGEST_VALUE", 1000)
    exchange = open_exchange(servers("redis-server").where)
    exchange.begin("r-0123456789ab", b"{}")
    with pytest.raises(DocumentError, match="1001 bytes; 1000 is the most"):
        exchange.put_blob("r-0123456789ab", bytes(1001))


def test_worker_is_not_silent_because_the_server_was_away(tmp_path, own_server):
    """The driver is back before a worker that lives has said so; what that has stays with it."""
    server = own_server()
    made = driver(tmp_path / "runs", server.where, silent_after=0.5)
    worker, name, claims = open_exchange(server.where), "here-1-00000001", []
    original, times = made.safe_point, []

    def safe_point():
        original()
        now = time.monotonic()
        if not times:
            (run,) = worker.runs()
            claims.extend(worker.claim(run, name) for _ in range(4))
            server.kill()
            times.append(now)
        elif len(times) == 1 and now - times[0] > 0.5:
            server.start()
            times.append(now)
        elif len(times) == 2 and now - times[1] > 0.3:  # it is heard of late, and not too late
            worker.beat(name)
            if now - times[1] > 0.8:
                made.interrupt()

    made.safe_point = safe_point
    with contextlib.suppress(KeyboardInterrupt):
        made.run()
    (run,) = worker.runs()
    assert len(claims) == 4
    assert worker.waiting(run) == 0


def test_server_without_memory_is_opened_and_the_run_is_resumed(tmp_path, own_server):
    """What is answered is taken in, which makes room."""
    server = own_server("redis-server", "--maxmemory", "1")
    with pytest.raises(UsageError, match=r"workers can't use the server .*OutOfMemory"):
        open_exchange(server.where)
    client = redis.Redis(unix_socket_path=str(server.socket))
    client.config_set("maxmemory", 0)
    made = driver(tmp_path, server.where)
    at_safe_points(made, made.interrupt)
    with contextlib.suppress(KeyboardInterrupt):
        made.run()
    work(server.where)
    client.config_set("maxmemory", 1)
    worker = open_exchange(server.where)
    worker.beat("here-1-00000001")
    assert worker.claim(worker.runs()[0], "here-1-00000001") is None
    again = driver(tmp_path, server.where)
    again.restore()
    again.run()
    assert [request["state"] for request in Run(again.log_dir).requests()] == ["labeled"] * 4


def test_consumers_that_have_nothing_and_arrays_of_answered_tasks_are_removed(servers):
    server, client = emptied(servers)
    run, name = "r-0123456789ab", f"000000-000000-{'0' * 32}-0"
    exchange = open_exchange(server.where)
    exchange.begin(run, b"{}")
    digest = exchange.put_blob(run, b"12")
    exchange.put(run, {name: f'{{"blob": "{digest}"}}'.encode()})
    claim = exchange.claim(run, "one-1-00000001")
    for worker in ("two-2-00000002", "three-3-00000003"):
        assert exchange.claim(run, worker) is None
    exchange.begin(run, b"{}")
    stream = f"alcore:{{{run}}}:tasks"
    assert [consumer["name"] for consumer in client.xinfo_consumers(stream, "workers")] == [b"one-1-00000001"]
    client.hset(f"alcore:{{{run}}}:answers", name, "{}")  # as by an answer of which the reply was lost
    exchange.answer(run, claim, b"{}")
    assert client.keys("*:blob:*") == []
    exchange.remove(run, [name])
    exchange.begin(run, b"{}")
    assert client.xinfo_consumers(stream, "workers") == []


SOLVER = """
import os, signal, threading, time

calls = []

def solve(values):
    calls.append(values)
    if len(calls) == 2:
        os.kill(int(os.environ["SERVER"]), int(os.environ["SIGNAL"]))
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    if len(calls) == 3:
        time.sleep(60)
    return 1.0
"""


@pytest.mark.parametrize(
    ("run_in", "sent"), [("here", signal.SIGSTOP), ("threads", signal.SIGSTOP), ("threads", signal.SIGKILL)]
)
def test_worker_ends_while_the_server_hangs_or_is_away(tmp_path, own_server, monkeypatch, run_in, sent):
    """It ends while one of its threads writes an answer, and waits for the server; it says what became of its work."""
    server = own_server()
    (tmp_path / "hanging_solver.py").write_text(SOLVER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SERVER", str(server.process.pid))
    monkeypatch.setenv("SIGNAL", str(int(sent)))
    monkeypatch.setattr("alcore_worker.ending._LONGEST", 0.5)
    exchange, run = open_exchange(server.where), "r-0123456789ab"
    exchange.begin(run, Note("r", 0, 60.0).to_bytes())
    content = {"slot": 0, "sample": 0, "has_inputs": False, "values": {"x": 1.0}, "input": None, "cost": None}
    task = documents.write("a task", content, bytes.hex)
    exchange.put(run, {f"000000-{n:06d}-{n:032x}-0": task for n in range(5)})
    monkeypatch.delitem(sys.modules, "hanging_solver", raising=False)
    words = ("--label", "function", "--set", "label.function.function=hanging_solver:solve")
    words += ("--set", f"label.function.run_in={run_in}", "--set", "label.function.workers=1")
    begun = time.monotonic()
    try:
        done = run_command(tmp_path, "worker", server.where, *words)
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    assert time.monotonic() - begun < 10, "a call of the server takes up to 30 s"
    text = " ".join(done.err.split())
    assert done.code == 130, done
    assert "could not be given back, since the exchange could not be reached" in text
    assert re.search("so may be [12] requests? whose answer was not written in time", text)
    assert ("waiting until it can be reached" in text) == (sent == signal.SIGKILL), "it doesn't wait where it ends"
