"""`run_forked`, through which most tests call commands and scripts, has the outcome of a new process."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.processes import SCRIPT, ForkServer, clean_environment, run_forked

pytestmark = pytest.mark.system

PROGRAM = """
import atexit, os, sys, threading
atexit.register(print, "registered for the end")
threading.Thread(target=lambda: (threading.main_thread().join(), print("in a thread"))).start()
exec(sys.argv[1])
"""
ENDS = [
    "pass", "sys.exit()", "sys.exit(3)", "sys.exit(-1)", "sys.exit('said last')", "1 / 0", "raise KeyboardInterrupt",
    "os._exit(4)", "os.kill(os.getpid(), 9)", "input()", "sys.stdout.close()",
]  # fmt: skip
STATE = [
    "print(__name__, __file__, sys.argv, os.getcwd(), sys.path)",
    "print(sorted(os.environ.items()))",
    "import signal; print([signal.getsignal(number) for number in (2, 13, 14, 15)])",
    "print(sys.stdin.isatty(), sys.stdout, sys.stderr.line_buffering, sys.stdout.line_buffering)",
    "import torch; print(torch.get_num_threads(), torch.__config__.parallel_info())",
    "print('out', flush=True); print('err', file=sys.stderr)",
]


def new(*words: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=clean_environment(env), capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("code", [*ENDS, *STATE])
def test_forked_script_has_the_output_and_exit_code_of_a_new_process(tmp_path: Path, code: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    words, env = [tmp_path / "program.py", code, "more"], {"PYTHONPATH": str(tmp_path / "one")}
    forked, other = run_forked(*words, cwd=tmp_path, env=env), new(*words, cwd=tmp_path, **env)
    assert (forked.returncode, forked.stdout, forked.stderr) == (other.returncode, other.stdout, other.stderr)


@pytest.mark.parametrize("words", [[SCRIPT, "--version"], ["-m", "alcore", "--version"], [SCRIPT, "nothing"]])
def test_forked_command_has_the_output_and_exit_code_of_a_new_process(tmp_path: Path, words: list[str | Path]) -> None:
    forked, other = run_forked(*words, cwd=tmp_path), new(*words, cwd=tmp_path)
    assert (forked.returncode, forked.stdout, forked.stderr) == (other.returncode, other.stdout, other.stderr)


@pytest.mark.parametrize("threads", ["1", "2"])
def test_forked_process_has_the_threads_that_its_environment_says(tmp_path: Path, threads: str) -> None:
    (tmp_path / "program.py").write_text(STATE[4])
    env = {"OMP_NUM_THREADS": threads}
    forked = run_forked("program.py", cwd=tmp_path, env=env)
    assert forked.stdout == new("program.py", cwd=tmp_path, **env).stdout
    assert forked.stdout.startswith(f"{threads} ")


def test_variable_that_is_read_at_the_start_gets_a_new_process(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import sys; print(hash('word'), 'torch' in sys.modules)")
    env = {"PYTHONHASHSEED": "7"}
    forked = run_forked("program.py", cwd=tmp_path, env=env)
    assert forked.stdout == new("program.py", cwd=tmp_path, **env).stdout
    assert forked.stdout.endswith("False\n")


def test_forked_processes_draw_different_numbers(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import random, numpy, torch; print(random.random(), numpy.random.rand(), torch.rand(1).item())"
    )
    one, other = (run_forked("program.py", cwd=tmp_path).stdout.split() for _ in range(2))
    assert not set(one) & set(other)


ONE_NUMBER = """
import os
children, fork, waitpid = [], os.fork, os.waitpid

def fork_with_one_number():
    child = fork()
    children.append(child)
    return child and 7

def wait_for_last(pid, options):
    ended, status = waitpid(children[-1] if pid == 7 else pid, options)
    return (7 if ended and pid == 7 else ended), status

os.fork, os.waitpid = fork_with_one_number, wait_for_last
"""
"""What Python imports at its start: each process that is forked gets the process id that the one before had."""


@pytest.mark.parametrize("codes", [(3, 0), (0, 3), (0, -signal.SIGKILL)])
def test_process_that_gets_the_id_of_an_ended_one_has_its_own_exit_code(tmp_path: Path, codes: tuple[int, int]) -> None:
    (tmp_path / "sitecustomize.py").write_text(ONE_NUMBER)
    (tmp_path / "program.py").write_text(
        "import os, sys\ncode = int(sys.argv[1])\nos.kill(os.getpid(), -code) if code < 0 else sys.exit(code)"
    )
    server = ForkServer(clean_environment({"PYTHONPATH": str(tmp_path)}))
    processes = []
    for code in codes:
        words, log = ["program.py", str(code)], tmp_path / "log"
        processes.append(server.start(words, tmp_path, log, log, server.environment))
        assert processes[-1].wait(60) == code
    assert {process.pid for process in processes} == {7}
    assert [process.wait() for process in processes] == list(codes)
    server.close()


def test_no_signal_is_sent_to_a_process_that_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "program.py").touch()
    server, log = ForkServer(clean_environment()), tmp_path / "log"
    process = server.start(["program.py"], tmp_path, log, log, server.environment)
    assert process.wait(60) == 0
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("the process that has this id now was sent a signal"))
    process.kill()
    server.close()


@pytest.mark.parametrize("env", [{}, {"PYTHONHASHSEED": "1"}], ids=["forked", "new"])
def test_process_that_takes_too_long_is_killed(tmp_path: Path, env: dict[str, str]) -> None:
    held = tmp_path / "held"
    (tmp_path / "program.py").write_text(
        "import fcntl, time; file = open('held', 'w'); fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('locked', flush=True); time.sleep(60)"
    )
    with pytest.raises(subprocess.TimeoutExpired) as raised:
        run_forked("program.py", cwd=tmp_path, env=env, timeout=2)
    assert raised.value.output == "locked\n"
    with held.open() as file:  # the lock has gone with its holder
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
