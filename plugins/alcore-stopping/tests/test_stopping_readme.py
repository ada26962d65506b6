"""What the README shows runs: its Python code, and its commands."""

import re
import shlex
from pathlib import Path

import pytest
from alcore_testing import run_command, run_examples

from alcore import plugins

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
COMMANDS = re.findall(r"^alcore run .*$", TEXT, flags=re.MULTILINE)


def test_the_example_runs(tmp_path):
    printed = run_examples(README, tmp_path)["printed"]
    assert re.match(r"f1 is 0\.\d+, at least 0\.95 was wanted|the predictions are stable", printed)


@pytest.mark.parametrize("command", COMMANDS, ids=re.findall(r"--stop ([\w-]+) --s", " ".join(COMMANDS)))
def test_the_commands_run(tmp_path, command):
    few = ["--steps", "2", "--set", "training.max_training_epochs=2"]
    done = run_command(tmp_path, *shlex.split(command)[1:], *few)
    assert done.code == 0, done.err
    assert "Ended: " in done.out


def test_every_criterion_and_parameter_is_in_the_tables():
    registry = plugins.installed()
    for name in ("metric", "plateau", "confident", "stabilizing-predictions", "budget"):
        assert f"| `{name}` |" in TEXT
        for parameter in plugins.parameters_of(plugins.load_factory(registry.offer("stop", name)))[0]:
            rows = [row for row in TEXT.splitlines() if row.startswith(f"| `{parameter.name}` |")]
            assert sum(f"`{name}`" in row.split("|")[2] for row in rows) == 1, (name, parameter.name)
