"""What is particular to Redis: addresses, the password, and a server that has lost everything."""

import contextlib
import os
import time

import pytest
import redis
import torch
from alcore_testing import build_driver, run_command
from alcore_worker import Worker, WorkerLabelStrategy, open_exchange
from alcore_worker.documents import DocumentError

from alcore import BaseLabel, BaseQuery, DataInfo, TensorPool
from alcore.errors import UsageError
from alcore.store import Run

SECRET = "s3cr3t-0f-the-lab"


class AskForAll(BaseQuery):
    def sample(self, query_queue, *args, **kwargs):
        query_queue.put_many(range(4))


class Echo(BaseLabel):
    remote = True

    def label(self, queue_to_label, serialize_queue, *args, **kwargs):
        while not queue_to_label.empty():
            request = queue_to_label.get_request()
            serialize_queue.put(self.driver.choice_pool.inputs(torch.tensor([request.item]))[0, 0])


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
    monkeypatch.setattr("alcore_worker.strategy._LOOK_FOR_LOST", 0.02)
    server = servers("redis-server")
    client = redis.Redis(unix_socket_path=str(server.socket))
    client.flushall()
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
    server = servers("redis-server")
    client = redis.Redis(unix_socket_path=str(server.socket))
    client.flushall()
    made = driver(tmp_path, server.where)
    at_safe_points(made, lambda: work(server.where))
    made.run()
    (run,) = client.smembers("alcore:runs")
    stream = f"alcore:{{{run.decode()}}}:tasks"
    assert client.xlen(stream) == 0
    assert client.xpending(stream, "workers")["pending"] == 0
    left = {one.decode().rpartition(":")[2] for one in client.keys("*")}
    assert left == {"format", "runs", "note", "tasks"}


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
    assert [one["state"] for one in Run(made.log_dir).requests()] == ["labeled"] * 4
    written = [one for one in (tmp_path / "runs").rglob("*") if one.is_file()]
    assert len(written) > 3
    assert [one for one in written if SECRET.encode() in one.read_bytes()] == []


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (f"redis://:{SECRET}@localhost", "ALCORE_REDIS_PASSWORD"),
        (f"redis://user:{SECRET}@localhost:1", "take it out"),
        (f"redis://localhost?password={SECRET}", "take it out"),
        ("redis://localhost?decode_responses=1", "decode_responses"),
        ("redis://localhost:1", "there is no Redis server for workers at redis://localhost:1"),
        ("unix:///nowhere/at/all", "there is no Redis server"),
        ("http://localhost", "is not the address of a Redis server"),
        ("redis://localhost:port", "is not the address of a Redis server"),
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
    server = servers("redis-server")
    client = redis.Redis(unix_socket_path=str(server.socket))
    client.flushall()
    client.set("alcore:format", 3)
    with pytest.raises(UsageError, match="exchange format '3'"):
        open_exchange(server.where)
    client.flushall()


def test_claim_of_which_the_reply_was_lost_is_taken_back(servers):
    server = servers("redis-server")
    client = redis.Redis(unix_socket_path=str(server.socket))
    client.flushall()
    run, worker = "r-0123456789ab", f"here-{os.getpid()}-00000001"
    exchange = open_exchange(server.where)
    exchange.begin(run, b"{}")
    exchange.put(run, {f"000000-000000-{'0' * 32}-0": b"{}"})
    client.xreadgroup("workers", worker, {f"alcore:{{{run}}}:tasks": ">"})  # and the worker never heard of it
    while not exchange.waiting(run):
        exchange.beat(worker)
        assert exchange.take_back(run, 0.05, 3) == []
    assert len(exchange.claim(run, worker, 1)) == 1


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
    worker, name, found = open_exchange(server.where), "here-1-00000001", []
    original, times = made.safe_point, []

    def safe_point():
        original()
        now = time.monotonic()
        if not times:
            (run,) = worker.runs()
            found.extend(worker.claim(run, name, 4))
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
    assert len(found) == 4
    assert worker.waiting(run) == 0
