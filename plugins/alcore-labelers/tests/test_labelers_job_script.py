"""The script of a job: what its program is given, and what it writes of the end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

import pytest
from alcore_labelers.job_script import how_it_ended, job_script, seconds_worked

_PRINTS = "import json, os; print(json.dumps(dict(os.environ)))"


def ran(folder, arguments, env, limit, outside=None):
    """Run a job to its end, and return how it ended."""
    (folder / "job.sh").write_bytes(job_script(folder, arguments, env, limit, 1.0))
    subprocess.run(["sh", "job.sh"], cwd=folder, env={**os.environ, **(outside or {})}, check=True)
    return how_it_ended(folder, limit)


@pytest.mark.parametrize("limit", [None, 30.0])
def test_program_has_the_variables_that_it_was_given_and_the_script_keeps_its_own(tmp_path, limit):
    script = job_script(tmp_path, ["true"], {}, limit, 1.0).decode()
    names = set(re.findall(r"\b(\w+)=", script)) | {
        "PATH",
        "IFS",
        "UID",
        "PWD",
        "LC_ALL",
        "beats",
        "begin",
        "code",
        "sent",
    }
    env = dict.fromkeys(names, "0.5") | {"ALCORE_FOLDER": str(tmp_path)}
    assert "begin" in env
    ended = ran(tmp_path, [sys.executable, "-c", _PRINTS], env, limit)
    assert (ended.code, ended.reason) == (0, "")
    assert 0 <= ended.seconds < 20
    assert json.loads((tmp_path / "stdout").read_text()).items() >= env.items()


def test_program_has_the_variables_of_the_user(tmp_path):
    outside = dict.fromkeys(["beats", "begin", "code", "end", "sent"], "0.5")
    assert ran(tmp_path, [sys.executable, "-c", _PRINTS], {}, None, outside).code == 0
    assert json.loads((tmp_path / "stdout").read_text()).items() >= outside.items()


@pytest.mark.parametrize("limit", [None, 30.0])
@pytest.mark.parametrize(("program", "code"), [("a=b", 0), ("eval", 127), ("exit", 127), ("", 127), ("X=1", 127)])
def test_word_is_a_program_and_nothing_else(tmp_path, program, code, limit):
    if code == 0:
        program = tmp_path / program
        program.write_text('#!/bin/sh\nprintf "%s|" "$@"')
        program.chmod(0o755)
    assert ran(tmp_path, [str(program), "touch hacked", "a b"], {"A": "1"}, limit).code == code
    assert not (tmp_path / "hacked").exists()
    assert (tmp_path / "stdout").read_text() == ("touch hacked|a b|" if code == 0 else "")


def test_folder_and_arguments_may_have_any_bytes(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    assert ran(folder, ["printf", "%s", os.fsdecode(b"\xe9")], {}, None).code == 0
    assert (folder / "stdout").read_bytes() == b"\xe9"


@pytest.mark.parametrize(
    ("content", "code", "was_terminated"),
    [("0 1 2 TERM", 0, True), ("7 1 2 TERM", -15, True), ("0 1 2", 0, False), ("124 1 9 TERM", 124, False)],
)
def test_end_after_sigterm_is_told_from_an_end_by_itself(tmp_path, content, code, was_terminated):
    (tmp_path / "exit").write_text(content)
    ended = how_it_ended(tmp_path, 5.0)
    assert (ended.code, ended.was_terminated) == (code, was_terminated)


def test_time_that_has_not_come_is_not_paid(tmp_path):
    for name, time_of in (("started", 1000), ("stdout", 1030), ("mesh", 4e9), ("part", time.time() + 1e4)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time_of, time_of))
    assert seconds_worked(tmp_path) == 30
