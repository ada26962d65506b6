"""A fork server: imports everything once, then starts ranks on request; request and answer are one line of JSON each.

``{"start": {"argv": [...], "environment": {...}, "output": FILE, "folder": DIR}}`` forks a process that runs a script,
or alcore's command where the first word is ``-m``; the answer is its process id. ``{"ended": PID}`` is answered by the
exit code of a process, negative for a signal, or null while it lives. ``{"store": PORT}`` opens a store at that port,
as torchrun does.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
import traceback
from typing import Any

import torch

EARLY = (
    "alcore.experiment.build alcore.commands.driving alcore_f1.metrology alcore_uq.query alcore_torchloop.loop "
    "alcore_moons"
)


def start(argv: list[str], environment: dict[str, str], output: str, folder: str) -> int:
    """Fork a process; return its number."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for here, there in ((nothing, 0), (descriptor, 1), (descriptor, 2)):
            os.dup2(here, there)
        os.chdir(folder)
        os.environ.update(environment)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        code = live(argv)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def live(argv: list[str]) -> int:
    """Do what a new interpreter would do with these arguments, its exit included; return the exit code."""
    import atexit

    if argv[0] == "-m":
        sys.argv = ["alcore", *argv[2:]]
        name = {"run_name": "__main__", "mod_name": argv[1], "alter_sys": True}
        play: Any = lambda: runpy.run_module(**name)  # type: ignore[arg-type]  # noqa: E731
    else:
        sys.argv = list(argv)
        sys.path.insert(0, os.path.dirname(argv[0]))  # noqa: PTH120
        play = lambda: runpy.run_path(argv[0], run_name="__main__")  # noqa: E731
    code = 0
    try:
        play()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:  # noqa: BLE001
        sys.excepthook(type(error), error, error.__traceback__)
        code = 130 if isinstance(error, KeyboardInterrupt) else 1
    atexit._run_exitfuncs()
    return code


def main() -> None:
    """Serve."""
    for name in EARLY.split():
        importlib.import_module(name)
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports much of torch
    ended: dict[int, int] = {}
    stores: list[Any] = []
    for line in sys.stdin:
        task = json.loads(line)
        if "start" in task:
            answer: Any = start(**task["start"])
        elif "store" in task:
            stores.append(
                torch.distributed.TCPStore("127.0.0.1", task["store"], is_master=True, wait_for_workers=False)
            )
            answer = len(stores)
        else:
            pid = task["ended"]
            if pid not in ended:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    ended[pid] = os.waitstatus_to_exitcode(status)
            answer = ended.get(pid)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
