"""``alcore run``: flags, files and parameters; what it prints and writes; a run is repeated from its own file."""

from __future__ import annotations

import csv
import fcntl
import math
import os
import pty
import re
import struct
import subprocess
import termios
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

OTHER_HASHES = {"PYTHONHASHSEED": "1"}
"""The order in a set of strings must decide nothing: with this, a process is a new one whose order is another."""


@pytest.fixture(scope="module")
def base(run_alcore, tmp_path_factory):
    """A finished run with something other than the default everywhere, its folder and what was printed."""
    folder = tmp_path_factory.mktemp("base")
    result = run_alcore(
        *(
            "run",
            "--query",
            "uq",
            "--query",
            "random",
            "--query",
            "random",
            "--label",
            "dummy",
            "--metrology",
            "f1",
            "--loop",
            "default",
        ),
        *("--data", "moons", "--learner", "mlp", "--set", "query.uq.max_samples=3", "--set", "query.uq.measure=margin"),
        *(
            "--set",
            "query.random.max_samples=2",
            "--set",
            "query.random-2.max_samples=1",
            "--set",
            "learner.mlp.hidden=[5, 4]",
            "--set",
            "data.moons.noise=0.3",
        ),
        *("--set", "training.optimizer.lr=0.05", "--set", "training.max_training_epochs=3", "--seed", "5"),
        *("--steps", "3", "--batch-size", "8", "--budget", "16", "--device", "cpu", "--dtype", "float64"),
        *("--run-id", "base", "--root", "kept here"),
        cwd=folder,
    )
    return folder / "kept here" / "base", result


def test_every_flag_reaches_the_run(base, rows):
    folder, _ = base
    written = tomllib.loads((folder / "experiment.toml").read_text())
    driver = written["driver"]
    assert (driver["batch_size"], driver["budget"], driver["seed"]) == (8, 16.0, 5)
    assert (driver["dtype"], driver["device"], driver["max_active_learning_steps"]) == ("float64", "cpu", 3)
    assert written["query"] == {
        "uq": {"max_samples": 3, "measure": "margin", "temperature": 1.0, "reduce": "mean"},
        "random": {"max_samples": 2},
        "random-2": {"use": "random", "max_samples": 1},
    }
    assert written["learner"]["mlp"]["hidden"] == [5, 4]
    assert written["data"]["moons"]["noise"] == 0.3
    assert written["training"]["max_training_epochs"] == 3
    assert written["training"]["optimizer"] == {"cls": "SGD", "lr": 0.05}
    picks = rows(
        folder, "SELECT step, strategy, COUNT(*) FROM requests GROUP BY step, strategy ORDER BY step, strategy"
    )
    assert picks == [
        (0, "classifier_uq_query", 3),
        (0, "random_query", 2),
        (0, "random_query-2", 1),
        (1, "classifier_uq_query", 3),
        (1, "random_query", 2),
        (1, "random_query-2", 1),
        (2, "classifier_uq_query", 3),
        (2, "random_query", 1),  # the budget of 16 leaves no more
    ]


def test_written_experiment_is_complete_and_has_no_run_id(base):
    written = tomllib.loads((base[0] / "experiment.toml").read_text())
    assert set(written["data"]["moons"]) == {"samples", "majority", "noise", "initial", "seed"}
    assert set(written["training"]) >= {"max_training_epochs", "max_fine_tuning_epochs", "reset_learner", "optimizer"}
    assert set(written) >= {"driver", "training", "data", "learner", "loop", "query", "label", "metrology"}
    assert "base" not in (base[0] / "experiment.toml").read_text()


def test_run_repeats_exactly_from_its_file(base, run_alcore, requests_of, tmp_path):
    folder, _ = base
    again = run_alcore("run", folder / "experiment.toml", "--quiet", "--root", "again", cwd=tmp_path, env=OTHER_HASHES)
    second = tmp_path / again.out.strip()
    assert second.name != "base"
    assert (second / "f1_metrology.json").read_bytes() == (folder / "f1_metrology.json").read_bytes()
    assert requests_of(second) == requests_of(folder)
    assert len(requests_of(second)) == 16
    first_text, second_text = ((run_folder / "experiment.toml").read_text() for run_folder in (folder, second))
    assert second_text == first_text.replace('"kept here"', '"again"')


def test_another_seed_gives_another_run(base, run_alcore, requests_of, tmp_path):
    """Without this the test above could pass on constants."""
    again = run_alcore("run", base[0] / "experiment.toml", "--seed", "6", "-q", "--root", "again", cwd=tmp_path)
    second = tmp_path / again.out.strip()
    assert (second / "f1_metrology.json").read_bytes() != (base[0] / "f1_metrology.json").read_bytes()
    assert requests_of(second) != requests_of(base[0])


def test_flags_and_set_override_the_file(base, run_alcore, tmp_path):
    again = run_alcore(
        *("run", base[0] / "experiment.toml", "-q", "--root", "r", "--steps", "1", "--query", "uq"),
        *("--set", "query.uq.max_samples=4"),
        cwd=tmp_path,
    )
    written = tomllib.loads((tmp_path / again.out.strip() / "experiment.toml").read_text())
    assert written["driver"]["max_active_learning_steps"] == 1
    assert written["query"]["uq"] == {"max_samples": 4, "measure": "margin", "temperature": 1.0, "reduce": "mean"}
    assert written["learner"]["mlp"]["hidden"] == [5, 4]


@pytest.fixture
def spreadsheet(tmp_path):
    """Two clearly different clouds, in a column of text classes."""
    path = tmp_path / "points.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["1", "b", "kind"])
        for i in range(80):
            side = i % 2
            writer.writerow([math.sin(i) + 3 * side, math.cos(3 * i) - 2 * side, ["no", "yes"][side]])
    return path


def test_run_on_a_csv_file_repeats_from_another_folder(spreadsheet, here, run_alcore, requests_of):
    first = here(
        *("run", "--data", "csv", "--set", "data.csv.path=points.csv", "--set", "data.csv.target=kind"),
        *("--steps", "2", "--set", "query.uq.max_samples=10", "-q"),
    )
    folder = spreadsheet.parent / first.out.strip()
    written = tomllib.loads((folder / "experiment.toml").read_text())
    assert written["data"]["csv"]["path"] == str(spreadsheet)
    assert list(written["digests"]) == [str(spreadsheet)]
    elsewhere = spreadsheet.parent / "elsewhere"
    elsewhere.mkdir()
    again = run_alcore("run", folder / "experiment.toml", "-q", cwd=elsewhere, env=OTHER_HASHES)
    second = elsewhere / again.out.strip()
    assert (second / "f1_metrology.json").read_bytes() == (folder / "f1_metrology.json").read_bytes()
    assert requests_of(second) == requests_of(folder)
    assert len(requests_of(second)) == 20

    spreadsheet.write_text(spreadsheet.read_text().replace("yes", "yea"))
    message = run_alcore("run", folder / "experiment.toml", cwd=elsewhere, code=2).message
    assert "points.csv has changed" in message
    assert "[digests]" in message


def test_results_go_to_stdout_and_the_headline_to_stderr(base):
    folder, result = base
    for text in (result.out, result.err):
        assert "\r" not in text, "nothing moves the cursor in a pipe"
        assert "\x1b" not in text
    assert re.search(r"^step +samples +precision +recall +f1 +accuracy$", result.out, re.MULTILINE)
    assert result.err.startswith(
        "Run base: data moons, learner mlp, query uq, random, random, label dummy, metrology f1; seed 5"
    )
    assert "Run base" not in result.out
    for name in ("driver_log.json", "f1_metrology.json", "experiment.toml", "ckpt"):
        assert name in result.out
        assert (folder / name).exists()
    for line in re.findall(r"alcore show (\S.*)", result.out):
        assert line.strip() == "'kept here/base'", "a path with a space is quoted"


def test_commands_that_a_run_suggests_work(here, tmp_path):
    printed = here("run", "--steps", "1", "--run-id", "one").out
    again = re.search(r"run it again with: alcore run (.*)", printed)
    following = re.search(r"^Next: alcore (.*)", printed, re.MULTILINE)
    assert again
    assert following
    assert (tmp_path / again.group(1)).is_file()
    assert here(*following.group(1).split()).out.startswith("Run one: done")


def test_progress_bar_is_drawn_on_a_terminal_only(script, environment, tmp_path):
    reader, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    process = subprocess.Popen(
        [script, "run", "--steps", "2"],
        cwd=tmp_path, env=environment({"TERM": "xterm"}), stdout=subprocess.PIPE, stderr=terminal, text=True,
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    while True:
        try:
            shown += os.read(reader, 4096)
        except OSError:  # the other end is closed
            break
    os.close(reader)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"2/2" in shown
    assert b"labels=" in shown
    assert "\r" not in out
    assert "\x1b" not in out


def test_closed_pipe_gives_no_traceback(script, environment, here, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [script, "plugins"], cwd=tmp_path, env=environment(), stdout=writer, stderr=subprocess.PIPE, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    os.close(writer)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_json_is_one_document_and_warnings_go_to_stderr(here):
    result = here("run", "--steps", "2", "--json", "--budget", "15", "--run-id", "doc")
    assert {name: result.data[name] for name in ("run_id", "status", "steps", "labels")} == {
        "run_id": "doc", "status": "done", "steps": 2, "labels": 15,
    }  # fmt: skip
    (records,) = result.data["metrics"].values()
    assert [(record["step"], record["train_samples"], record["on"]) for record in records] == [
        (0, 50, "pool"), (1, 60, "pool"), (2, 65, "pool"),
    ]  # fmt: skip
    assert result.err == "alcore: warning: 5 requests were dropped: over the budget\n"


def test_existing_run_id_is_refused_and_its_run_unchanged(here, tmp_path):
    result = here("run", "--steps", "1", "--quiet", "--run-id", "mine")
    assert result.out == f"{Path('active_learning_logs') / 'mine'}\n"
    assert result.err == ""
    before = {path: path.read_bytes() for path in (tmp_path / "active_learning_logs").rglob("*") if path.is_file()}
    again = here("run", "--steps", "1", "--run-id", "mine", code=2)
    after = {path: path.read_bytes() for path in (tmp_path / "active_learning_logs").rglob("*") if path.is_file()}
    assert after == before
    # `message` also fails where a run is announced that can't begin
    assert again.message.startswith("alcore: error: run 'mine' exists already")
    assert "--run-id" in again.message


def test_zero_steps_buy_no_labels(here):
    result = here("run", "--steps", "0", "--json")
    assert (result.data["steps"], result.data["labels"]) == (0, 0)
