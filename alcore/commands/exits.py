"""How a command ends that was interrupted; importing this module imports nothing but the standard library."""

from __future__ import annotations

import contextlib
import os
from typing import NoReturn

from alcore.commands.messages import message

INTERRUPTED = 130
"""The exit code of a command that was interrupted."""


def end_at_once(text: str) -> NoReturn:
    """End the process as one that was interrupted, with a message, and without any code that could change that."""
    with contextlib.suppress(OSError):
        os.write(2, f"{message(text)}\n".encode())  # not sys.stderr, in whose code the signal may have come
    os._exit(INTERRUPTED)
