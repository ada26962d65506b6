"""SIGINT and SIGTERM from the entry of the command to the end of its process: 130 and one sentence, or its own code."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

BOTH = [signal.SIGINT, signal.SIGTERM]

IN_IMPORT = """
    def hook(event, arguments):
        if event == "import" and arguments[0] == PLACE:
            send()
    sys.addaudithook(hook)
"""
IN_LOCK = """
    seen = 0
    def profile(frame, event, argument):
        global seen
        if event == "call" and frame.f_code.co_name == "cb" and "importlib" in frame.f_code.co_filename:
            seen += 1
            if seen == PLACE:
                send()
    from alcore.cli.main import main
    sys.setprofile(profile)
"""
IN_COMMAND = """
    from alcore.cli import application
    from alcore.cli.interruption import interruptible

    def build(registry):
        return lambda obj: interruptible(command)()
    application.application = build
"""


def process(
    tmp_path: Path, prepare: str, *words: str, number: int = signal.SIGINT, place: object = None
) -> tuple[int, str, str]:
    """Call `main` in a process of its own, after a preparation whose ``send()`` sends it the signal once."""
    program = textwrap.dedent(f"""
        import os, signal, sys
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell may have ignored
        PLACE, sent = {place!r}, []
        def send(*_):
            if not sent:
                sent.append(True)
                os.kill(os.getpid(), {int(number)})
    """) + textwrap.dedent(prepare) + "\nfrom alcore.cli.main import main\nmain()\n"  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("place", "number"),
    [
        *itertools.product(["typer", "alcore.cli.run", "sqlite3", "alcore.plugins.discovery"], BOTH),
        *itertools.product(["numpy.matrixlib", "torch.optim", "alcore.driver"], [signal.SIGINT]),
    ],
)
def test_signal_while_a_module_is_imported_ends_the_command_at_once(tmp_path, place, number):
    outcome = process(tmp_path, IN_IMPORT, "run", "--steps", "1", number=number, place=place)
    assert outcome == (130, "", "alcore: interrupted.\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", [1, 30])
def test_signal_in_a_callback_of_the_import_system_is_not_swallowed(tmp_path, place):
    """Python drops what a callback of a weak reference raises, and each imported module has one."""
    assert process(tmp_path, IN_LOCK, "--version", place=place) == (130, "", "alcore: interrupted.\n")


@pytest.mark.parametrize("number", BOTH)
@pytest.mark.parametrize(
    "body",
    [
        "send(); time.sleep(60)",
        "try: send(); time.sleep(60)\n    except BaseException: pass",
        "try: send(); time.sleep(60)\n    except BaseException: raise AttributeError('half a module')",
        "class Last: __del__ = send\n    Last()\n    time.sleep(60)",
        "class One: pass\n    one = One()\n    ref = weakref.ref(one, send)\n    del one\n    time.sleep(60)",
    ],
    ids=["plain", "swallowed", "another-error", "finalizer", "callback"],
)
def test_signal_in_a_command_ends_it_whatever_becomes_of_the_exception(tmp_path, body, number):
    prepare = f"{IN_COMMAND}\n    import time, weakref\n"
    command = f"def command():\n    {body}\n"
    code, out, err = process(tmp_path, textwrap.dedent(prepare) + command, number=number)
    assert (code, out) == (130, "")
    assert err == "alcore: interrupted.\n"


def test_signal_in_a_command_lets_it_clean_up(tmp_path):
    command = "def command():\n    try:\n        send(); time.sleep(60)\n    finally:\n        print('cleaned')\n"
    code, out, _ = process(tmp_path, textwrap.dedent(f"{IN_COMMAND}\n    import time\n") + command)
    assert (code, out) == (130, "cleaned\n")


@pytest.mark.parametrize("number", BOTH)
@pytest.mark.parametrize(("words", "own"), [(["--version"], 0), (["show", "nothing"], 2)], ids=["done", "failed"])
@pytest.mark.parametrize(
    "late",
    [
        "import atexit; atexit.register(send)",
        "import threading; threading._register_atexit(send)",
        "class Last:\n    __del__ = send\n    kill, pid = os.kill, os.getpid()\nlast = Last()",
        "import os, weakref\nclass One: pass\nsys.modules['one'] = one = One(); ref = weakref.ref(one, send)",
    ],
    ids=["exit-function", "threads", "finalizer", "modules"],
)
def test_signal_after_the_last_line_changes_no_exit_code(tmp_path, late, words, own, number):
    code, out, err = process(tmp_path, late, *words, number=number)
    assert code == own
    assert (out.startswith("alcore "), err.count("alcore: error: ")) == (own == 0, int(own != 0))
    assert "Traceback" not in err
    assert "interrupted" not in err


def test_signal_while_the_last_output_is_written_counts(tmp_path):
    prepare = """
        import io
        class Slow(io.TextIOWrapper):
            def flush(self):
                send()
                super().flush()
        from alcore.cli import application
        application.application = lambda registry: lambda obj: None
        sys.stdout = Slow(sys.stdout.buffer)
    """
    assert process(tmp_path, prepare) == (130, "", "alcore: interrupted.\n")


def test_process_that_is_forked_in_a_command_is_ended_by_terminate(tmp_path):
    command = """
def command():
    import time
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, b".")
        time.sleep(60)
        os._exit(0)
    os.read(reading, 1)  # Python drops signals that come while it forks
    os.kill(child, signal.SIGTERM)
    print(os.waitpid(child, 0)[1])
"""
    assert process(tmp_path, textwrap.dedent(IN_COMMAND) + command) == (0, f"{int(signal.SIGTERM)}\n", "")


PLUGIN = """
import os, signal, time
import typer
from alcore import hookimpl

def stay():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)

def stay_in_group():
    stay()

@hookimpl
def alcore_commands(app):
    group = typer.Typer()
    group.command("stay")(stay_in_group)
    group.callback()(lambda: None)
    app.add_typer(group, name="group")
    app.command("stay")(stay)
"""


@pytest.mark.parametrize("words", [["stay"], ["group", "stay"]], ids=" ".join)
def test_commands_of_plugins_are_interrupted_as_those_of_core(tmp_path, words):
    site = tmp_path / "site"
    info = site / "stayer-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "stayer.py").write_text(PLUGIN)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: stayer\nVersion: 1.0\nRequires-Dist: alcore>=0.1,<0.2\n"
    )
    (info / "entry_points.txt").write_text("[alcore]\nstayer = stayer\n")
    done = subprocess.run(
        [sys.executable, "-m", "alcore", *words], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "alcore: interrupted.\n")
