"""`alcore watch` and `alcore dash`: what they print, how they end, and what they refuse."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest
from alcore_testing import run_command
from alcore_web import Runs
from alcore_web.watch import EXIT_CODES, RunWatch, picture, sparkline
from rich.console import Console

from alcore.store import Run


@pytest.mark.parametrize(("name", "code"), [("moons", 0), ("failed", 1)])
def test_a_run_that_has_ended_is_told_and_gives_its_exit_code(kept, name, code):
    done = run_command(kept.parent, "watch", name)
    run = Run(kept / name)
    assert done.code == code
    lines = done.out.splitlines()
    assert [line.split(":")[0] for line in lines[1:-1]] == [f"step {step['step']}" for step in run.steps()]
    first = next(iter(run.records().values()))[0]
    assert f"f1 {first['f1']:.4g}" in lines[1]
    assert lines[-1].startswith(f"Run {name}: {Runs(kept).detail(name).row.outcome}, {len(run.steps())} steps")
    assert "\x1b" not in done.out


def test_dash_counts_the_runs_that_it_shows(kept, monkeypatch):
    monkeypatch.setattr("alcore_web.server.serve", lambda _root, *, tell, **_others: tell("http://here"))
    told = run_command(kept.parent, "dash", str(kept), "--no-browser").out
    assert told.startswith(f"{len(Runs(kept).rows())} runs in {kept}: http://here")


def test_reasons_and_metrics_that_a_page_leaves_out_are_counted(kept, monkeypatch):
    from alcore_web import app

    monkeypatch.setattr(app, "MOST_REASONS", 0)
    monkeypatch.setattr(app, "MOST_METRICS", 1)
    pages = app._Pages(Runs(kept))
    count = len(Run(kept / "reasons").reasons())
    assert f"The 0 most frequent of {count} reasons." in pages.run("reasons", verify=False).html
    metrics = list(Runs(kept).detail("moons").row.metrics)
    assert f"Metrics without a column: {', '.join(metrics[1:])}." in pages.compare(["moons"]).html


def test_exit_codes_are_those_of_runs():
    assert EXIT_CODES == {"done": 0, "failed": 1, "stopped": 1, "unreadable": 1, "waiting": 3, "interrupted": 130}


def test_a_run_is_followed_to_its_end_in_plain_lines(paced, tmp_path):
    out = io.StringIO()
    looks = []

    def sleep(_seconds: float) -> None:
        looks.append(out.getvalue())
        paced.go_on() if len(looks) < 3 else paced.end()
        time.sleep(0.05)

    code = RunWatch(Run(tmp_path / "root" / "live"), Console(file=out, width=60), sleep).follow()
    lines = out.getvalue().splitlines()
    assert (code, lines[0][:17], lines[-1][:14]) == (0, "Run live: running", "Run live: done")
    assert "step 0, labeling, 0 of 4 labels" in looks[0]
    assert [line[:6] for line in lines if re.match(r"step \d: ", line)] == ["step 0", "step 1", "step 2"]


@pytest.mark.parametrize("width", [20, 60, 80, 200])
@pytest.mark.parametrize("name", ["moons", "reasons", "failed"])
def test_picture_fits_the_terminal(kept, width, name):
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=True, color_system=None).print(
        picture(Runs(kept).detail(name), width, 40)
    )
    lines = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()
    assert max(map(len, lines)) <= width
    assert "\x1b" not in "".join(lines)
    if width >= 60:
        assert "3 of 3 steps" in out.getvalue() or name == "failed"


def test_sparkline_is_low_and_high_where_the_values_are():
    assert sparkline([0.0, 1.0, 0.5], 10) == "▁█▅"
    assert len(sparkline(list(range(1000)), 30)) == 30
    assert sparkline([2.0, 2.0], 10) == "▄▄"


def _read(leader: int) -> bytes:
    if select.select([leader], [], [], 0.1)[0]:
        with contextlib.suppress(OSError):  # the other side is closed
            return os.read(leader, 65536)
    return b""


def test_ctrl_c_ends_watching_and_leaves_the_run_alone(paced, tmp_path):
    leader, follower = pty.openpty()
    words = [sys.executable, "-m", "alcore", "watch", "live", "--root", str(tmp_path / "root")]
    process = subprocess.Popen(
        words, stdin=follower, stdout=follower, stderr=subprocess.PIPE, env={**os.environ, "COLUMNS": "60"}
    )
    os.close(follower)
    shown, deadline = b"", time.monotonic() + 60
    while b"labeling" not in shown and time.monotonic() < deadline:
        shown += _read(leader)
    process.send_signal(signal.SIGINT)
    while process.poll() is None and time.monotonic() < deadline:
        _read(leader)
    os.close(leader)
    assert process.wait(30) == 130
    assert b"no longer watching live" in process.stderr.read()
    process.stderr.close()
    assert b"step 0, labeling" in shown
    assert Run(tmp_path / "root" / "live").meta()["status"] == "running"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["dash", "nowhere"], "there is no folder nowhere"),
        (["dash", "active_learning_logs/moons"], "is a run, and `alcore dash` takes the folder that runs are in"),
        (["dash", "--host", "0.0.0.0"], "ssh -L 8765:localhost:8765"),
        (["dash", "--host", "example.org"], "answers on this machine alone"),
        (["dash", "--port", "70000"], "it is no port"),
        (["watch", "mons"], "did you mean 'moons'"),
    ],
)
def test_what_cant_be_done_is_said_in_one_paragraph(kept, words, expected):
    done = run_command(kept.parent, *words)
    assert done.code == 2
    assert expected in done.err
    assert len(done.err.strip().splitlines()) == 1
