"""A reserved port stays free for the one who reserved it."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import ports


def only(monkeypatch: pytest.MonkeyPatch, *order: int) -> None:
    """Let ports be tried in this order, and no others."""
    monkeypatch.setattr(random.SystemRandom, "sample", lambda *_: list(order))


def free() -> list[int]:
    """Return three free ports."""
    with ports.reserved_port() as one, ports.reserved_port() as two, ports.reserved_port() as three:
        return [one, two, three]


def test_port_can_be_bound_and_is_none_that_the_kernel_chooses() -> None:
    range_of_kernel = Path("/proc/sys/net/ipv4/ip_local_port_range")
    with ports.reserved_port() as port, socket.socket() as server:
        server.bind(("127.0.0.1", port))
        server.listen()
        if range_of_kernel.exists():
            assert port < int(range_of_kernel.read_text().split()[0])


def test_port_that_is_bound_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    bound, other, _ = free()
    only(monkeypatch, bound, other)
    with socket.socket() as server:
        server.bind(("127.0.0.1", bound))
        with ports.reserved_port() as port:
            assert port == other


def test_port_that_another_process_reserved_is_not_given_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    reserved, other, last = free()
    program = (
        "import random, sys; from helpers import ports\n"
        f"random.SystemRandom.sample = lambda *_: [{reserved}]\n"
        "with ports.reserved_port() as port:\n    print(port, flush=True); sys.stdin.read()"
    )
    tests = Path(ports.__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=tests, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == reserved
        only(monkeypatch, reserved, other)
        with ports.reserved_port() as port:
            assert port == other
            only(monkeypatch, reserved, other, last)
            with ports.reserved_port() as second:
                assert second == last
        process.kill()
    with ports.reserved_port() as port:
        assert port == reserved


def test_no_free_port_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch)
    with pytest.raises(RuntimeError, match="no port is free"), ports.reserved_port():
        pass
