"""Exit codes and error messages: one paragraph with what, where, the nearest valid thing and the remedy."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.system

BAD = {
    "name": (["--query", "up"], ["query 'up'", "did you mean 'uq'?", "random", "alcore plugins"]),
    "undecodable": (["--data", "csv", "--set", b"data.csv.path=\xff.csv"], ["data.csv.path"]),
    "class": (["--set", "metrology.f1.positive=two"], ["f1_metrology", "'two'"]),
    "file": (["broken.toml"], ["broken.toml", "TOML", "line 1"]),
}


@pytest.fixture
def there(here, tmp_path):
    (tmp_path / "broken.toml").write_text("[driver\n")
    return here


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_paragraph_and_exit_code_2(there, tmp_path, case):
    """More of them are in tests/cli/test_cli_refusals.py, in one process."""
    arguments, fragments = BAD[case]
    result = there("run", *arguments, "--steps", "1", "-q", code=2)
    for fragment in fragments:
        assert fragment in result.message
    assert result.out == ""
    assert not (tmp_path / "active_learning_logs").exists(), "a refused run left something behind"


def test_all_faults_come_at_once(there):
    result = there(
        *("run", "--query", "up", "--learner", "mpl", "--set", "metrology.f1.positif=1", "--set", "driver.seed=x"),
        code=2,
    )
    for fragment in ("4 things are wrong", "'uq'", "'mlp'", "'positive'", "driver.seed is 'x'"):
        assert fragment in result.message


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["describe", "qery", "uq"], ["'qery'", "did you mean 'query'?"]),
        (["describe", "query", "ug"], ["'ug'", "did you mean 'uq'?"]),
        (["show", "nothing"], ["'nothing'", "active_learning_logs", "alcore runs"]),
        (["show", "./nothing"], ["nothing", "no run directory"]),
        (["export", "nothing"], ["'nothing'"]),
        (["plugins", "lits"], ["lits", "list or check"]),
    ],
)
def test_other_commands_refuse_alike(there, arguments, fragments):
    message = there(*arguments, code=2).message
    for fragment in fragments:
        assert fragment in message


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["rnu"], "'run"),
        (["run", "--qury", "uq"], "--query"),
        (["run", "--seed", "x"], "--seed"),
        (["run", "a.toml", "b.toml"], "b.toml"),
        (["show"], "RUN"),
    ],
)
def test_wrong_words_on_the_command_line_exit_with_2(there, arguments, fragment):
    result = there(*arguments, code=2)
    assert fragment in result.err
    assert result.out == ""
    assert "Traceback" not in result.err


def test_a_traceback_is_shown_only_with_debug(there):
    plain = there("describe", "query", "up", code=2)
    assert "Traceback" not in plain.err
    for arguments in (["--debug", "describe", "query", "up"], ["describe", "query", "up", "--debug"]):
        debug = there(*arguments, code=2)
        assert "Traceback (most recent call last)" in debug.err
        assert plain.err.strip() in debug.err


RAISING = """
import alcore


class Query:
    def attach(self, driver):
        self.driver = driver

    def sample(self, queue):
        if self.driver.active_learning_step_idx == 1:
            raise RuntimeError("the moon is in the way")
        queue.put_many(next(self.driver.candidates())[:4].tolist())


class Label:
    def attach(self, driver):
        self.driver = driver

    def label(self, queue, answers):
        for _ in range(3):
            answers.put(alcore.Label(queue.get(), 1, source="expert"))
        raise OSError("the line is dead")
"""


def test_a_query_that_raises_ends_the_run_with_1_and_says_where(there, tmp_path):
    (tmp_path / "raising.py").write_text(RAISING)
    result = there("run", "--query", "raising:Query", "--steps", "3", "--run-id", "bad", "-q", code=1)
    for fragment in ("RuntimeError: the moon is in the way", "query phase", "step 1", "run bad", "--debug"):
        assert fragment in result.err
    assert "Traceback" not in result.err
    assert str(tmp_path / "active_learning_logs" / "bad") in result.err or "active_learning_logs/bad" in result.err
    shown = there("show", "bad", "--json").data
    assert shown["status"] == "failed"
    assert [one["labelled"] for one in shown["steps"]] == [4]
    assert [one["step"] for one in shown["metrics"]["f1_metrology"]] == [0, 1], "what was measured is kept"


def test_debug_is_not_recommended_to_whom_it_was_given(there, tmp_path):
    (tmp_path / "raising.py").write_text(RAISING)
    result = there("run", "--query", "raising:Query", "--steps", "3", "-q", "--debug", code=1)
    assert "raising.py" in result.err
    assert "RuntimeError: the moon is in the way" in result.err
    assert "again with --debug" not in result.err


def test_labels_that_came_before_a_failure_are_kept(there, tmp_path):
    (tmp_path / "raising.py").write_text(RAISING)
    result = there(
        *("run", "--query", "raising:Query", "--label", "raising:Label", "--steps", "3", "--run-id", "bad", "-q"),
        code=1,
    )
    for fragment in ("OSError: the line is dead", "labeling phase", "step 0", "run bad"):
        assert fragment in result.err
    requests = there("show", "bad", "--step", "0", "--json").data["requests"]
    assert [one["state"] for one in requests] == ["labelled"] * 3 + ["open"]
    assert [one["source"] for one in requests] == ["expert"] * 3 + [None]
    (run,) = there("runs", "--json").data
    assert (run["status"], run["labels"]) == ("failed", 3)


SLOW = """
import time
import torch


class Slow(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, inputs):
        time.sleep(0.005)
        return self.layer(inputs)


def never():
    open("building", "w").close()
    time.sleep(60)
"""


def interrupt(script, environment, folder, ready, *arguments):
    (folder / "slow.py").write_text(SLOW)
    process = subprocess.Popen(
        [script, "run", *arguments], cwd=folder, env=environment(), text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    until = time.monotonic() + 60
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def labels_in(path):
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return connection.execute("SELECT COUNT(*) FROM labels").fetchone()[0]
        finally:
            connection.close()
    except sqlite3.Error:
        return 0


def test_an_interrupted_run_exits_with_130_and_keeps_its_labels(script, environment, here, tmp_path):
    path = tmp_path / "active_learning_logs" / "cut" / "run.db"
    code, out, err = interrupt(
        script, environment, tmp_path, lambda: labels_in(path), "--learner", "slow:Slow", "--run-id", "cut"
    )
    assert code == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert "interrupted in step" in err
    assert "alcore resume cut" in err
    (run,) = here("runs", "--json").data
    assert run["status"] == "interrupted"
    assert run["labels"] == labels_in(path) >= 10


def test_an_interruption_before_the_run_exits_with_130_and_says_so(script, environment, tmp_path):
    code, _, err = interrupt(
        script, environment, tmp_path, (tmp_path / "building").exists, "--learner", "slow:never", "--run-id", "cut"
    )
    assert code == 130
    assert "Traceback" not in err
    assert not (tmp_path / "active_learning_logs").exists()
    assert err.strip() == "alcore: interrupted."


HEAVY = ("torch", "sklearn", "numpy", "pandas", "matplotlib")


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "alcore", "--help"],
        ["-m", "alcore", "--version"],
        ["-m", "alcore", "run", "--help"],
        ["-m", "alcore", "plugins"],
        ["-c", "import alcore, alcore.protocols, alcore.errors; dir(alcore)"],
    ],
    ids=" ".join,
)
def test_what_needs_no_torch_imports_none(environment, tmp_path, words):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "alcore.errors" in modules
    assert not modules.intersection(HEAVY)


def test_help_names_every_command_and_how_to_start(here):
    text = here("--help").out
    for command in ("run", "runs", "show", "export", "plugins", "describe"):
        assert f"\n  {command} " in text
        assert here(command, "--help").out.startswith("Usage: alcore ")
    assert "alcore run --query uq --metrology f1" in text
    assert here("-h").out == text


def test_the_version_is_printed(here):
    assert here("--version").out == "alcore 0.1.0\n"
