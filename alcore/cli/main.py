"""The entry of the command: what it does at signals and errors, and with which exit code it ends.

Importing this module imports nothing heavy, since a signal that comes before `main` is entered ends the process in
Python's own way; all else is imported by `main`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn

from alcore.cli.interruption import SignalHandling
from alcore.commands.exits import INTERRUPTED
from alcore.commands.messages import rank, say


def main() -> NoReturn:
    """Run the command."""
    signals = SignalHandling()
    signals.install()
    debug = "--debug" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--debug"]
    _take_only(sys.argv)
    try:
        _call_application()
        code = 0
    except SystemExit as end:
        code = _exit_code(end)
    except KeyboardInterrupt:
        say("interrupted.", on_every_rank=True)
        code = INTERRUPTED
    except Exception as error:  # noqa: BLE001 - every error is one paragraph
        if debug:
            import traceback

            traceback.print_exc()
        code = 1 if signals.asked else _report(error, debug=debug)
    if signals.asked and code != INTERRUPTED:  # KeyboardInterrupt was swallowed, or became another error
        say("interrupted.", on_every_rank=True)
        code = INTERRUPTED
    with contextlib.suppress(Exception):  # Python does that again, and says what is wrong
        sys.stdout.flush()
    signals.settle(code)
    sys.exit(code)


def _call_application() -> None:
    from alcore.cli import application
    from alcore.plugins.registry import installed

    registry = installed()
    for warning in registry.warnings:
        say(f"warning: {warning}.")
    application.application(registry)(obj=registry)


def _exit_code(end: SystemExit) -> int:
    """Return the code of `SystemExit`; as Python does, print what is neither a number nor None."""
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1


def _report(error: Exception, *, debug: bool) -> int:
    """Print an error as one paragraph, and return the exit code."""
    from alcore.errors import AlcoreError, message_of

    _report_failure(error)
    if isinstance(error, AlcoreError):
        if not (type(error).__name__ == "RankError" and rank()):  # rank 0 prints it
            notes = getattr(error, "__notes__", ())
            say(f"error: {message_of(error)}{'.' if notes else ''}", on_every_rank=True)
        return error.exit_code
    advice = "" if debug else " Run it again with --debug for the traceback."
    say(f"error: {type(error).__name__}: {message_of(error)}.{advice}", on_every_rank=True)
    return 1


def _take_only(arguments: list[str]) -> None:
    """Set ALCORE_ONLY from the option ``--only A,B`` before the sub-command, since it decides which plugins load."""
    for place, word in enumerate(arguments[1:], start=1):
        if word == "--only" and place + 1 < len(arguments):
            os.environ["ALCORE_ONLY"] = arguments[place + 1]
        elif word.startswith("--only="):
            os.environ["ALCORE_ONLY"] = word.partition("=")[2]
        elif not word.startswith("-"):
            break


def _report_failure(error: Exception) -> None:
    """Report to torchrun and the other ranks why this process ends, where there are any."""
    if "TORCHELASTIC_ERROR_FILE" in os.environ or "alcore.distributed.manager" in sys.modules:
        from alcore.distributed.manager import report_failure

        report_failure(error)
