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
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_paragraph_and_exits_with_2(here, tmp_path, case):
    # tests/cli/test_run.py has more of them, in one process
    arguments, fragments = BAD[case]
    result = here("run", *arguments, "--steps", "1", "-q", code=2)
    for fragment in fragments:
        assert fragment in result.message
    assert result.out == ""
    assert not (tmp_path / "active_learning_logs").exists(), "a refused run left something behind"


def test_all_faults_come_at_once(here):
    result = here(
        *("run", "--query", "up", "--learner", "mpl", "--set", "metrology.f1.positif=1", "--set", "driver.seed=x"),
        code=2,
    )
    for fragment in ("4 things are wrong", "'uq'", "'mlp'", "'positive'", "driver.seed is 'x'"):
        assert fragment in result.message


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


def test_raising_query_ends_the_run_with_1_and_says_where(here, tmp_path):
    (tmp_path / "raising.py").write_text(RAISING)
    result = here("run", "--query", "raising:Query", "--steps", "3", "--run-id", "bad", "-q", code=1)
    for fragment in ("RuntimeError: the moon is in the way", "query phase", "step 1", "run bad", "--debug"):
        assert fragment in result.err
    assert "Traceback" not in result.err
    assert str(tmp_path / "active_learning_logs" / "bad") in result.err or "active_learning_logs/bad" in result.err
    shown = here("show", "bad", "--json").data
    assert shown["status"] == "failed"
    assert [step["labeled"] for step in shown["steps"]] == [4]
    assert [record["step"] for record in shown["metrics"]["f1_metrology"]] == [0, 1], "what was measured is kept"


def test_debug_shows_the_users_own_code(here, tmp_path):
    (tmp_path / "raising.py").write_text(RAISING)
    result = here("run", "--query", "raising:Query", "--steps", "3", "-q", "--debug", code=1)
    assert "raising.py" in result.err
    assert "RuntimeError: the moon is in the way" in result.err
    assert "again with --debug" not in result.err


def test_labels_before_a_failure_are_kept(here, tmp_path):
    (tmp_path / "raising.py").write_text(RAISING)
    result = here(
        *("run", "--query", "raising:Query", "--label", "raising:Label", "--steps", "3", "--run-id", "bad", "-q"),
        code=1,
    )
    for fragment in ("OSError: the line is dead", "labeling phase", "step 0", "run bad"):
        assert fragment in result.err
    requests = here("show", "bad", "--step", "0", "--json").data["requests"]
    assert [request["state"] for request in requests] == ["labeled"] * 3 + ["open"]
    assert [request["source"] for request in requests] == ["expert"] * 3 + [None]
    (run,) = here("runs", "--json").data
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


def test_interrupted_run_exits_with_130_and_keeps_its_labels(script, environment, here, tmp_path):
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


def test_interruption_before_the_run_exits_with_130(script, environment, tmp_path):
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
        ["-m", "alcore", "runs"],
        ["-c", "import alcore, alcore.protocols, alcore.errors; dir(alcore)"],
    ],
    ids=" ".join,
)
def test_command_that_needs_no_torch_imports_none(environment, tmp_path, words):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "alcore.errors" in modules
    assert not modules.intersection(HEAVY)
