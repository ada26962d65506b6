"""Ports for servers that bind them later than they are chosen."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator

_FIRST, _LAST = 20_000, 32_767
"""Below the ports that a kernel gives by itself: Linux from 32768 on, others from 49152 on."""


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """Give a TCP port of 127.0.0.1 that is free, and that nobody else gets here while the block runs.

    A port that was free once may be another process's when it is bound: the kernel gives one that it chose, and that
    was closed, to the next that asks. This one is of those that the kernel never chooses, and who reserves it holds the
    UDP port of the same number, which has nothing to do with the TCP port, and is free again when its holder ends.
    """
    for port in random.SystemRandom().sample(range(_FIRST, _LAST + 1), 1000):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held, socket.socket() as probe:
            try:
                held.bind(("127.0.0.1", port))
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            probe.close()
            yield port
            return
    raise RuntimeError("no port is free")
