"""``alcore show``."""

from __future__ import annotations

import re
import shlex

import pytest


@pytest.mark.parametrize("root", ["active_learning_logs", "my runs"])
def test_commands_that_it_suggests_work_wherever_the_run_lies(command, root: str) -> None:
    command("run", "--run-id", "one", "--root", root, "--steps", "1", "--set", "training.max_training_epochs=1")
    out, _ = command("show", "one", "--root", root)
    suggested = re.findall(r"alcore ((?:show|export) [^,\n]*)", out.splitlines()[-1])
    assert len(suggested) == 2
    for arguments in suggested:
        command(*shlex.split(arguments))
