"""What the tests of core and of all plugins share: processes that react to Ctrl-C, one thread, folders in memory."""

from __future__ import annotations

import os
import signal
import sysconfig
from collections.abc import Iterator
from importlib.metadata import Distribution
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, find, settings, strategies

from alcore.plugins import discovery

MEMORY = Path("/dev/shm")
"""A file system in memory, on Linux: nothing is waited for there when a run flushes what it wrote."""
ENOUGH = 4 * 2**30
"""Bytes that must be free there, more than tests hold at once: the folder of one that passes is removed with it."""


def pytest_configure() -> None:
    """Prepare this process, and with it those that tests start.

    A shell that starts pytest in the background ignores SIGINT, and its processes inherit that; a signal that is
    handled is reset to its default. Tiny batches are slower on more threads, and results are compared bit by bit. A
    folder in memory makes no difference to a test: what a disk would lose with the power is lost in no test.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    if "TMPDIR" not in os.environ and _has_room(MEMORY):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
    _remember_what_is_installed()
    # how long an example takes says nothing about alcore on a machine that does other things too
    settings.register_profile("alcore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("alcore")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse names of tests that are others in each process: those that run tests side by side compare them."""
    others = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if others:
        raise pytest.UsageError(f"the name of a test has an address in it; give it an id: {others[0]}")


def _has_room(folder: Path) -> bool:
    """Return whether a folder can be written to, has enough room, and lets programs be started from it."""
    if not os.access(folder, os.W_OK):
        return False
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize > ENOUGH and not room.f_flag & os.ST_NOEXEC


def _remember_what_is_installed() -> None:
    """Read the metadata of each distribution in site-packages once: each run of alcore reads all, in 10 ms.

    Distributions that tests make lie elsewhere, and are read anew each time.
    """
    read, place = discovery._of_one, sysconfig.get_path("purelib") + os.sep
    known: dict[str, list[discovery.Found]] = {}

    def remembered(distribution: Distribution) -> Iterator[discovery.Found]:
        path = str(getattr(distribution, "_path", ""))
        if not path.startswith(place):
            return read(distribution)
        if path not in known:
            known[path] = list(read(distribution))
        return iter(known[path])

    discovery._of_one = remembered


@pytest.fixture(scope="session", autouse=True)
def _hypothesis_tables() -> None:
    """Let Hypothesis make its table of all characters, which takes a second in a new checkout.

    Else the first test that draws a text would, and Hypothesis would blame the test for being slow.
    """
    find(strategies.text(), lambda _text: True, settings=settings(database=None))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Undo what a test did to the number of threads."""
    yield
    torch.set_num_threads(1)
