"""Where worker and driver meet in the tests: each backend is put to the same tests."""

import contextlib
import os
import shutil
import signal
import subprocess
import time

import pytest
import redis


class Server:
    """A Redis or Valkey server on a socket in a folder, which keeps what it has said it keeps."""

    def __init__(self, program, folder, *flags):
        self.program, self.folder, self.flags = program, folder, flags
        self.socket = folder / "s"
        self.where = f"unix://{self.socket}"
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            [
                self.program, "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder), "--save", "",
                "--appendonly", "yes", "--appendfsync", "always", "--logfile", "log", *self.flags,
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(redis.ConnectionError, redis.BusyLoadingError, redis.AuthenticationError):
                with contextlib.suppress(redis.AuthenticationError):
                    redis.Redis(unix_socket_path=str(self.socket)).ping()
                return self
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < end
            time.sleep(0.02)

    def kill(self):
        if self.process is not None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def program(name):
    return shutil.which(name) or pytest.skip(f"{name} is not installed (on Debian: apt install {name})")


@pytest.fixture(scope="session")
def servers(tmp_path_factory):
    """Start a server of each kind once, and end it."""
    started = {}

    def server(name):
        if name not in started:
            started[name] = Server(program(name), tmp_path_factory.mktemp(name)).start()
        return started[name]

    yield server
    for started_server in started.values():
        started_server.kill()


@pytest.fixture
def own_server(tmp_path):
    """A function that starts a server for one test."""
    started = []

    def server(name="redis-server", *flags):
        folder = tmp_path / f"server{len(started)}"
        folder.mkdir()
        started.append(Server(program(name), folder, *flags).start())
        return started[-1]

    yield server
    for started_server in started:
        started_server.kill()


@pytest.fixture(params=["folder", "redis-server", "valkey-server"])
def place(request, tmp_path, servers):
    """An exchange that holds nothing yet, as a driver and a worker are given it."""
    if request.param == "folder":
        shared = tmp_path / "shared"
        shared.mkdir()
        return str(shared)
    server = servers(request.param)
    redis.Redis(unix_socket_path=str(server.socket)).flushall()
    return server.where
