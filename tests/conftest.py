"""What all tests share: processes that react to Ctrl-C, one thread, and a small problem to build drivers on."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import torch
from helpers.toys import build as build
from helpers.toys import toys as toys
from hypothesis import HealthCheck, find, settings, strategies


def pytest_configure() -> None:
    """Let the processes that tests start react to Ctrl-C, also where a shell started pytest in the background.

    Such a shell ignores SIGINT, and its processes inherit that; a signal that is handled is reset to its default.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
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
def _one_thread() -> Any:
    """Tiny batches are slower on more threads, and results are compared bit by bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
