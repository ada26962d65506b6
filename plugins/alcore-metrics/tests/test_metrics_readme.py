"""What the README shows runs, and its tables name every parameter and every figure."""

import re
import shlex
from pathlib import Path

import pytest
from alcore_testing import run_command, run_examples

from alcore import plugins
from alcore.store import Run

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
COMMANDS = re.findall(r"^alcore run .*$", TEXT, flags=re.MULTILINE)


def test_the_example_runs(tmp_path):
    records = run_examples(README, tmp_path)["metrology"].records
    assert [record["train_samples"] for record in records] == [20, 25, 30]
    assert [entry["group"] for entry in records[0]["per_group"]] == ["left", "right"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_run_and_the_table_names_their_figures(tmp_path, command):
    few = ["--steps", "2", "--set", "training.max_training_epochs=2", "--run-id", "r"]
    done = run_command(tmp_path, *shlex.split(command)[1:], *few)
    assert done.code == 0, done.err
    record = Run(tmp_path / "active_learning_logs" / "r").records()["classification_metrology"][-1]
    assert all(f"`{name}`" in TEXT for name in (*record, *record["per_class"][0]))


@pytest.mark.parametrize("name", ["classification", "regression", "fields", "uncertainty"])
def test_every_parameter_is_in_the_table(name):
    for parameter in plugins.parameters_of(plugins.load_factory(plugins.installed().offer("metrology", name)))[0]:
        (row,) = [
            row
            for row in TEXT.splitlines()
            if row.startswith(f"| `{parameter.name}` |") and f"`{parameter.default!r}`" in row
        ]
        owners = row.split("|")[2]
        assert "all" in owners or f"`{name}`" in owners


def test_rmse_is_another_name_of_regression():
    offer = plugins.installed().offer
    assert offer("metrology", "rmse").factory == offer("metrology", "regression").factory
