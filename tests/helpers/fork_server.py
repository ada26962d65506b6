"""A fork server: imports everything once, then starts processes on request; request and answer are a line of JSON each.

``{"start": {"argv": [...], "environment": {...}, "folder": DIR, "out": FILE, "err": FILE}}`` forks a process that does
what ``python ARGV`` would do; the answer is its process id. The words are a script and its arguments, or ``-m`` and a
module. ``{"wait": PID, "seconds": S}`` is answered by the exit code of a process, negative for a signal, or null while
it lives after so many seconds. It is answered once by an exit code, which is forgotten here: from then on the kernel
may give the process id to another process. ``{"store": true}`` opens a store, as torchrun does, and is answered by its
port.

Nothing is computed here: a process that is forked after torch has used its threads may hang.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import sys
import time
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

EARLY = (
    "alcore alcore.driver.driver alcore.experiment.build alcore.commands.driving alcore.cli.application alcore.cli.run "
    "alcore_dummy alcore_f1.metrology alcore_moons alcore_random alcore_torchloop.loop alcore_uq.query tqdm"
)
"""Modules that most commands import."""


def main() -> dict[str, Any] | None:
    """Serve until there are no more requests; in a forked process, return at once what it is to do."""
    del sys.path[0]  # the folder of this file
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    for name in EARLY.split():
        importlib.import_module(name)
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports much of torch
    gc.collect()
    gc.freeze()
    with requests, answers:
        for line in requests:
            task = json.loads(line)
            if "start" in task:
                answer: Any = os.fork()
                if not answer:
                    return dict(task["start"])
            elif "store" in task:
                _stores.append(TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False))
                answer = _stores[-1].port
            else:
                answer = wait(task["wait"], task["seconds"])
            print(json.dumps(answer), file=answers, flush=True)
    return None


def wait(pid: int, seconds: float) -> int | None:
    """Return the exit code of a process, or None if it lives on after so many seconds."""
    until = time.monotonic() + seconds
    while True:
        exited, status = os.waitpid(pid, os.WNOHANG)
        if exited:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= until:
            return None
        time.sleep(0.005)


def become(argv: list[str], environment: dict[str, str], folder: str, out: str, err: str) -> None:
    """Do in this forked process what a new interpreter does with these arguments.

    The objects ``sys.stdin``, ``sys.stdout`` and ``sys.stderr`` are those of an interpreter whose output is captured:
    nothing went through them, and the files below them are replaced.
    """
    write = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for path, flags, number in ((os.devnull, os.O_RDONLY, 0), (out, write, 1), (err, write, 2)):
        descriptor = os.open(path, flags, 0o644)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    np.random.seed()  # else all forked processes would draw the same; Python's generator does that itself
    torch.default_generator.seed()
    if "OMP_NUM_THREADS" in environment:  # it was read when torch was imported
        torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    module = argv[1] if argv[0] == "-m" else None
    first = folder if module else os.path.dirname(os.path.realpath(argv[0]))  # noqa: PTH120
    sys.path[:0] = [first, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = argv[1:] if module else list(argv)
    try:
        if module:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(argv[0], run_name="__main__")
        _code.append(0)
    except SystemExit as error:
        _code.append(error.code if isinstance(error.code, int) else int(error.code is not None))
        raise
    except BaseException as error:  # noqa: BLE001
        _code.append(-signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1)
        own = beyond_this_file(error.__traceback__)
        sys.excepthook(type(error), error.with_traceback(own), own)


def beyond_this_file(traceback: TracebackType | None) -> TracebackType | None:
    """Return the traceback without the frames of this file and of `runpy`."""
    while traceback and traceback.tb_frame.f_code.co_filename in (__file__, "<frozen runpy>"):
        traceback = traceback.tb_next
    return traceback


_stores: list[Any] = []
"""The stores of this server. A forked process must not take them apart, since their threads are not in it."""

_code: list[int] = []
"""The exit code of a forked process that has done its work, or the number of the signal that ends it, negative."""


def end() -> None:
    """End the process: called when all else is done that is registered for the end.

    The interpreter would take all modules apart next, which costs half a second of processor time.
    """
    if _code:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(ValueError):  # it is closed
                stream.flush()
        if _code[0] == -signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(_code[0] & 0xFF)


if __name__ == "__main__":
    atexit.register(end)  # first, so it is called last
    given = main()
    if given is not None:
        become(**given)
