"""What the tests of core and of all plugins share: processes that react to Ctrl-C, and one thread."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, find, settings, strategies


def pytest_configure() -> None:
    """Prepare this process, and with it those that tests start.

    A shell that starts pytest in the background ignores SIGINT, and its processes inherit that; a signal that is
    handled is reset to its default. Tiny batches are slower on more threads, and results are compared bit by bit.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    # how long an example takes says nothing about alcore on a machine that does other things too
    settings.register_profile("alcore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("alcore")


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
