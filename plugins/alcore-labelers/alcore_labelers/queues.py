"""What the label strategies of this package do with the queue of requests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from alcore.errors import UsageError
from alcore.protocols import QueryQueue, Request


def give_back(requests: QueryQueue, left: Iterable[Request]) -> None:
    """Let requests be handed out again, but for those that were answered meanwhile, by somebody else for instance."""
    for request in left:
        with contextlib.suppress(UsageError):
            requests.give_back(request)
