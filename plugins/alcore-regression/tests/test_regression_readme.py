"""What the README shows runs: its Python code, and its commands."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from alcore_testing import run_command, run_examples

from alcore import plugins

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
COMMANDS = re.findall(r"^alcore run .*$", TEXT, flags=re.MULTILINE)


def test_the_example_runs(tmp_path):
    records = run_examples(README, tmp_path)["metrology"].records
    assert [record["train_samples"] for record in records] == [10, 20, 30, 40]
    assert records[-1]["rmse"] < records[0]["rmse"]


@pytest.mark.parametrize("command", COMMANDS, ids=re.findall(r"--query (\w+)", " ".join(COMMANDS)))
def test_the_commands_run(tmp_path, command):
    generator = np.random.default_rng(0)
    water, age = generator.uniform(1, 3, (2, 60))
    rows = zip(water, age, 40 * np.log(age) / water, strict=True)
    lines = ["water,age,strength", *(f"{one:.4f},{two:.4f},{three:.4f}" for one, two, three in rows)]
    (tmp_path / "strength.csv").write_text("\n".join(lines))
    done = run_command(tmp_path, *shlex.split(command)[1:], "--steps", "2")
    assert done.code == 0, done.err
    assert "rmse" in done.out


def test_every_strategy_and_parameter_is_in_the_tables():
    registry = plugins.installed()
    for name in ("gsx", "gsy", "igs", "variance", "emcm", "max-variance", "alc"):
        assert f"`{name}`" in TEXT
        for parameter in plugins.parameters_of(plugins.load_factory(registry.offer("query", name)))[0]:
            (row,) = [
                row for row in TEXT.splitlines() if row.startswith(f"| `{parameter.name}` |") and _is_of(row, name)
            ]
            assert f"`{parameter.default!r}`".replace("'", '"') in row


def _is_of(row, name):
    owners = row.split("|")[2]
    return "all" in owners or f"`{name}`" in owners
