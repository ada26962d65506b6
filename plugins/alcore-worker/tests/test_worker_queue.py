"""The queue in Redis keeps the contract of queues, and ends a run in order where the server loses it."""

import gc
import shutil
import signal
import time

import pytest
import redis
from alcore_testing import QueueContract, run_command
from alcore_worker import RedisQueue

from alcore.errors import UsageError
from alcore.store import Run


@pytest.mark.parametrize("name", ["redis-server", "valkey-server"])
class TestRedisQueue(QueueContract):
    name = "redis"

    @pytest.fixture(autouse=True)
    def _server(self, servers, name, monkeypatch):
        monkeypatch.setenv("ALCORE_REDIS_URL", servers(name).where)
        client = redis.Redis(unix_socket_path=str(servers(name).socket))
        client.config_set("appendfsync", "no")  # this is about the queue, and not about the disk
        yield
        client.config_set("appendfsync", "always")

    def make(self):
        return RedisQueue()


@pytest.fixture
def client(servers):
    made = redis.Redis(unix_socket_path=str(servers("redis-server").socket))
    made.flushall()
    return made


def test_nothing_is_left_of_a_queue(servers, client):
    queue = RedisQueue(servers("redis-server").where)
    queue.put(1)
    assert len(client.keys("alcore:queue:*")) == 2
    assert all(0 < client.ttl(key) <= 7 * 86400 for key in client.keys("*")), "the server removes what was left"
    for key in client.keys("*"):
        client.expire(key, 100)
    queue.put(2)
    assert all(client.ttl(key) > 6 * 86400 for key in client.keys("*"))
    for key in client.keys("*"):
        client.expire(key, 100)
    assert queue.get() == 1
    assert all(client.ttl(key) > 6 * 86400 for key in client.keys("*")), "a phase of labeling may only take out"
    del queue
    assert client.keys("*") == []


def test_process_does_not_wait_for_a_server_that_hangs(own_server, monkeypatch):
    monkeypatch.setattr("alcore_worker.redis_queue._LONGEST_FORGET", 0.2)
    server = own_server()
    queue = RedisQueue(server.where)
    server.process.send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    try:
        del queue
        assert time.monotonic() - begun < 3
    finally:
        server.process.send_signal(signal.SIGCONT)


def test_call_of_which_the_reply_was_lost_is_made_once(servers, client, monkeypatch):
    queue = RedisQueue(servers("redis-server").where)
    lost = []

    def losing(script):
        def call(**arguments):
            reply = script(**arguments)
            if len(lost) % 2 == 0:
                lost.append(True)
                raise redis.ConnectionError("the reply was lost")
            lost.append(False)
            return reply

        return call

    monkeypatch.setattr(queue, "_put_script", losing(queue._put_script))
    monkeypatch.setattr(queue, "_get_script", losing(queue._get_script))
    for item in (5, 5, 7):
        queue.put(item)
    assert [queue.get() for _ in range(3)] == [5, 5, 7]
    assert len(lost) == 12


def test_queue_that_the_server_lost_is_told(servers, client):
    queue = RedisQueue(servers("redis-server").where)
    queue.put(1)
    client.flushall()
    for call in (queue.get, lambda: queue.put(2)):
        with pytest.raises(UsageError, match=r"has lost the queue\. Go on with the run"):
            call()


def test_what_is_no_whole_number_is_refused(servers, client):
    queue = RedisQueue(servers("redis-server").where)
    for item in (1.0, "1", True, None):
        with pytest.raises(UsageError, match="holds whole numbers"):
            queue.put(item)


def test_server_that_stays_away_is_told(own_server, monkeypatch):
    monkeypatch.setattr("alcore_worker.redis_queue._OUTAGE", 0.1)
    server = own_server()
    queue = RedisQueue(server.where)
    server.kill()
    with pytest.raises(UsageError, match=r"can't be reached for 0\.1 s"):
        queue.put(1)


def test_run_has_the_queue_by_its_name(tmp_path, servers, client, monkeypatch):
    """Without the address it ends with exit code 2; with it, its requests are labeled."""
    words = ("--steps", "1", "--queue", "redis", "--root", "runs", "--run-id", "r")
    words += ("--set", "training.max_training_epochs=1", "--set", "training.max_fine_tuning_epochs=1")
    done = run_command(tmp_path, "run", *words)
    assert done.code == 2, done
    assert "set the variable ALCORE_REDIS_URL" in " ".join(done.err.split())
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)
    monkeypatch.setattr("alcore_worker.redis_queue.ADDRESS", "ADDRESS_OF_TESTS")  # run_command hides ours
    monkeypatch.setenv("ADDRESS_OF_TESTS", servers("redis-server").where)
    done = run_command(tmp_path, "run", *words)
    assert done.code == 0, done
    states = {request["state"] for request in Run(tmp_path / "runs" / "r").requests()}
    assert states == {"labeled"}
    gc.collect()  # the command ran in this process
    assert client.keys("alcore:queue:*") == []
    text = (tmp_path / "runs" / "r" / "experiment.toml").read_text()
    assert "redis" in text
    assert servers("redis-server").where not in text
